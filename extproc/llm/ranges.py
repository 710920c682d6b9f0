"""A number of tokens that is not known exactly."""

from typing import NamedTuple


class Range(NamedTuple):
    """An expected number of tokens, and what it lies between as far as is known."""

    tokens: int
    tokens_min: int
    tokens_max: int

    @property
    def is_exact(self) -> bool:
        """Whether nothing of it was estimated."""
        return self.tokens_min == self.tokens_max

    def plus(self, other: "Range") -> "Range":
        """Return both together."""
        return Range(
            self.tokens + other.tokens,
            self.tokens_min + other.tokens_min,
            self.tokens_max + other.tokens_max,
        )


NOTHING = Range(0, 0, 0)


def exactly(tokens: int) -> Range:
    """Return a range of one number."""
    return Range(tokens, tokens, tokens)
