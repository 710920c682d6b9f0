"""What was read, and whether it is still the same: a digest of each file."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from extproc.config.loader import read_text

UNREADABLE: Final = b""
"""The digest of a file that can't be read."""


class Recorder:
    """Reads files, and remembers the digest of each."""

    def __init__(self) -> None:
        self.digests: dict[Path, bytes] = {}

    def read(self, path: Path) -> str:
        """Read a file.

        Raises:
            OSError: it can't be read.
            UnicodeDecodeError: it is no UTF-8.
        """
        self.digests[path] = UNREADABLE
        text = read_text(path)
        self.digests[path] = hashlib.blake2b(text.encode()).digest()
        return text


def digests_of(paths: Iterable[Path]) -> Mapping[Path, bytes]:
    """What is in the files now, each told by its digest."""
    recorder = Recorder()
    for path in paths:
        try:
            recorder.read(path)
        except (OSError, UnicodeDecodeError):
            continue
    return recorder.digests
