"""Reservations that are over: settled, so that they are charged once, or expired."""

from collections import OrderedDict
from typing import Final, NamedTuple

REMEMBERED_MAX: Final = 1_000_000
"""Beyond it the oldest is forgotten early, and would be charged again.

Each takes about 300 bytes, and 500 where it expired: its settlement may still come."""

REMEMBERED_SECONDS: Final = 3600.0
"""So late may a settlement come again, or replace what its expired reservation was charged."""


class Expired(NamedTuple):
    """What a reservation was charged when it expired: its settlement takes that back.

    `parts` are its budgets, in which window each, and how much; 0 and 0 where a budget has no
    window.
    """

    tenant: str
    parts: tuple[tuple[str, float, int], ...]


SETTLED: Final = Expired("", ())
"""What stands in the place of it once its settlement has come: there is nothing to take back."""


class Remembered:
    """What is known of reservations that are over, by name; each for a while."""

    def __init__(self, remembered_max: int) -> None:
        self._remembered_max = remembered_max
        self._all: OrderedDict[str, tuple[float, Expired]] = OrderedDict()
        """In the order in which they may be forgotten; and since when that is so."""
        self.forgotten_until = 0.0
        """Of reservations that were over by then not all are known any more."""

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def get(self, name: str) -> Expired | None:
        """What it was charged, or `SETTLED`; None where nothing is known."""
        found = self._all.get(name)
        return None if found is None else found[1]

    def add(self, name: str, expired: Expired, now: float) -> None:
        """Remember one from `now` on, and forget what its time or its number says."""
        remembered = self._all
        remembered.pop(name, None)
        remembered[name] = now, expired
        for _ in range(2):  # more than is added, so that it ends; no more, so that nobody waits
            since, _expired = next(iter(remembered.values()))
            if since + REMEMBERED_SECONDS > now and len(remembered) <= self._remembered_max:
                break
            remembered.popitem(last=False)
            self.forgotten_until = max(self.forgotten_until, since)
