"""What commands end with."""

from typing import Final

EXIT_NOT_ALL: Final = 1
"""Something was refused, found, or left out."""

EXIT_WRONG_INPUT: Final = 2
"""Nothing was done: the words or the files that were given are wrong."""

EXIT_SELF_TEST: Final = 3
"""The service would not do what its settings say."""
