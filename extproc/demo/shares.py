"""Bounds of a share that is drawn at random, exact."""

import math
from typing import Final, NamedTuple

CHANCE: Final = 1e-7
"""How often a share that is right may look wrong."""


class Range(NamedTuple):
    """From `low` to `high`, both included."""

    low: int
    high: int

    def __contains__(self, count: object) -> bool:
        return isinstance(count, int) and self.low <= count <= self.high


def binomial(trials: int, share: float) -> Range:
    """What so many trials give, but for one time in ten million: exact tails, half on each side."""

    def weight(count: int) -> float:
        return math.comb(trials, count) * share**count * (1 - share) ** (trials - count)

    low, tail = 0, weight(0)
    while tail < CHANCE / 2:
        low += 1
        tail += weight(low)
    high, tail = trials, weight(trials)
    while tail < CHANCE / 2:
        high -= 1
        tail += weight(high)
    return Range(low, high)
