"""The store's time, as far as it is known here."""

import time
from collections.abc import Callable
from typing import Final

from extproc.ledger.lease_messages import MICROSECONDS, Instant

_TRUSTED_SECONDS: Final = 30.0
"""So long an answer that came quickly says more about the store's clock than later slow ones."""


class ServerClock:
    """Tells the server's time, from `clock` and its answers.

    Where the clock is imposed, for a test, that is the time, for the server too.
    """

    def __init__(self, clock: Callable[[], float], *, is_imposed: bool) -> None:
        self._clock = clock
        self._is_imposed = is_imposed
        self._ahead = 0.0
        self._trip = float("inf")
        self._set_at = 0.0

    def now(self) -> Instant:
        """Both clocks."""
        now = self._clock()
        if self._is_imposed:
            return Instant(now, now)
        return Instant(now + self._ahead, time.monotonic())

    def imposed(self) -> float | None:
        """What scripts are to take for the time; None where it is the server's own."""
        return self._clock() if self._is_imposed else None

    def hear(self, server_now: int, sent: Instant) -> None:
        """Take in what the server's clock said in an answer to what was sent at `sent`."""
        if self._is_imposed:
            return
        steady = time.monotonic()
        trip = steady - sent.steady
        if trip <= 2 * self._trip or steady - self._set_at > _TRUSTED_SECONDS:
            self._trip = trip
            self._set_at = steady
            self._ahead = server_now / MICROSECONDS + trip / 2 - self._clock()
