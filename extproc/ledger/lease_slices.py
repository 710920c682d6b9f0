"""Leases as a replica sees them: what it may still use of a budget, and how much it uses."""

import math
from typing import Final

from extproc.ledger.lease_messages import Rules, micros
from extproc.ledger.port import Standing
from extproc.policy.budgets import Balance, Claim
from extproc.policy.windows import Span, Window

_FADE_SECONDS: Final = 0.5
"""Use of so long ago counts for a third."""

_IDLE_REQUESTS: Final = 0.01
"""Who expects fewer in a horizon has no use for a lease, whatever the rules say."""

LEAST_REQUESTS: Final = 2
"""A lease that would take fewer of the largest requests is none: each of them is one call."""


class Account:
    """One budget in one window, as the store last told of it, and what was done here since."""

    __slots__ = (
        "begin",
        "committed",
        "end",
        "heard",
        "leased",
        "opened",
        "reserved",
        "room",
        "start",
        "stop",
        "target",
        "telling",
        "until",
        "untold",
    )

    def __init__(self, start: float, stop: float) -> None:
        self.start = start
        self.stop = stop
        """Seconds; infinite where the budget has no window."""
        self.begin = micros(start)
        self.end = 0 if stop == float("inf") else micros(stop)
        self.committed = 0
        self.reserved = 0
        self.leased = 0
        """Of all replicas, as the store counts it."""
        self.heard = (0, 0)
        """The mark of the books when they said so."""
        self.room = 0
        """What may be decided here."""
        self.target = 0
        """What the store would have us keep."""
        self.opened = 0.0
        self.until = 0.0
        """From when to when that holds, by the clock that only goes forward."""
        self.untold = 0
        self.telling = 0
        """What was decided here: not sent yet, and sent but not answered."""

    @property
    def used(self) -> int:
        """What is charged and held, with what the store has yet to hear."""
        return self.committed + self.reserved + self.untold + self.telling

    def is_of(self, window: Window | None) -> bool:
        """Whether it is of such a window: windows that have changed may begin together."""
        span = (0.0, math.inf) if window is None else window.span(self.start)
        return (self.start, self.stop) == span

    def balance(self, claim: Claim, server_now: float) -> Balance:
        """How it stands, measured by the limit of `claim`."""
        remaining = max(0, claim.limit - self.used)
        return balance(claim, remaining, self.start, self.stop, server_now)


def balance(claim: Claim, remaining: int, start: float, stop: float, now: float) -> Balance:
    """How a budget stands."""
    if claim.window is None:
        return Balance(claim.budget, claim.unit, claim.limit, remaining, None, None)
    reset = max(0.0, stop - now)
    return Balance(claim.budget, claim.unit, claim.limit, remaining, reset, stop - start)


def standing(claim: Claim, span: Span, sums: tuple[int, int], now: float) -> Standing:
    """How a budget stands of which so much is committed and reserved."""
    remaining = max(0, claim.limit - sum(sums))
    return Standing(balance(claim, remaining, *span, now), *sums)


class Lease:
    """The current account of one budget, under the limit and window for which it was leased."""

    __slots__ = ("account", "limit", "window")

    def __init__(self, account: Account, limit: int, window: Window | None) -> None:
        self.account = account
        self.limit = limit
        self.window = window


class Demand:
    """How much of a budget is asked for, lately."""

    __slots__ = ("_amount", "_largest", "_rate", "_requests", "_since", "claim")

    def __init__(self, claim: Claim, now: float) -> None:
        self.claim = claim
        """The last one."""
        self._amount = 0
        self._requests = 0
        self._largest = 0
        self._rate = (0.0, 0.0)
        """Units and requests, per second."""
        self._since = now

    def add(self, claim: Claim) -> None:
        """Count one more."""
        self.claim = claim
        self._amount += claim.amount
        self._requests += 1
        self._largest = max(self._largest, claim.amount)

    def wanted(self, rules: Rules, now: float) -> tuple[int, int]:
        """How much to lease, 0 if it is not worth it; and how little is too little."""
        units, requests = self._faded(now)
        least = max(1, LEAST_REQUESTS * self._largest)
        if requests * rules.horizon < max(rules.busy_requests, _IDLE_REQUESTS):
            return 0, least
        return max(math.ceil(units * rules.horizon), least), least

    def is_idle(self, rules: Rules, now: float) -> bool:
        """Whether so little was asked for that nothing need be known of it."""
        return self._faded(now)[1] * rules.horizon < _IDLE_REQUESTS

    def _faded(self, now: float) -> tuple[float, float]:
        elapsed = now - self._since
        units, requests = self._rate
        if elapsed <= 0:
            return units + self._amount / _FADE_SECONDS, requests + self._requests / _FADE_SECONDS
        fade = math.exp(-elapsed / _FADE_SECONDS)
        # A burst counts as if it had taken no less than the time that fades it.
        share = (1 - fade) / elapsed
        units = units * fade + self._amount * share
        requests = requests * fade + self._requests * share
        self._rate = units, requests
        self._since = now
        self._amount = self._requests = 0
        if requests * _FADE_SECONDS < 1:
            self._largest = 0
        return units, requests
