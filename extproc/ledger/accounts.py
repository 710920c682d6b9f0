"""Accounts: what is charged and what is held, per tenant, budget and window.

Nothing is decided here about admission, and nothing is known about reservations: only which
account an instant belongs to, and when an account may be forgotten.

One that is over is kept for as long again as its window lasted, and for five minutes at least:
so far may a clock step back without freeing what was used, and so long can people read what
was. What is still held in it keeps it longer.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, NamedTuple

from extproc.ledger.port import Sum
from extproc.policy.budgets import Claim
from extproc.policy.windows import Span, Window

KEPT_SECONDS_MIN: Final = 300.0
WINDOW_SECONDS_MAX: Final = 366 * 86400.0
FORGOTTEN_PER_CALL: Final = 64
"""Bounds the work of one call. More than one is forgotten for each that is opened."""

ALWAYS: Final = Span(0.0, float("inf"))
"""The span of a claim without a window."""


class Key(NamedTuple):
    """Which account: `start` is that of its window, 0 where there is none."""

    tenant: str
    budget: str
    start: float


class Account:
    """The sums of one budget in one window: what was charged, and apart from it what is held."""

    __slots__ = ("committed", "forget_at", "key", "reserved", "span", "unwritten", "window")

    def __init__(self, key: Key, window: Window | None, span: Span) -> None:
        self.key = key
        self.window = window
        self.span = span
        self.committed = 0
        self.reserved = 0
        self.unwritten = 0
        """Part of `committed` that a ledger with a file has yet to write."""
        self.forget_at = 0.0


def _nobody(_: Key) -> None:
    """Listen to nothing."""


class Accounts:
    """All accounts, `accounts_max` at most: where it would take one more there is None.

    `on_change` is told of each account that is forgotten, or whose window was found to end at
    another time.
    """

    def __init__(self, accounts_max: int, on_change: Callable[[Key], None] = _nobody) -> None:
        self._accounts_max = accounts_max
        self._on_change = on_change
        self._all: dict[Key, Account] = {}
        self._current: dict[tuple[str, str], Account] = {}
        """The account last used of each tenant's budget: its window needs no computing."""
        self._ends: list[tuple[float, Key]] = []
        """A heap with one valid entry for each account: that of its own `forget_at`."""
        self._lengths: dict[tuple[str, str], float] = {}
        """How long the windows of restored accounts are: of a budget, the longest."""

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: Key) -> Account | None:
        """The account, if there is one."""
        return self._all.get(key)

    def restore(self, key: Key, end: float, committed: int, forget_at: float) -> None:
        """Have an account again that was kept elsewhere, however many there are."""
        account = self._all[key] = Account(key, None, Span(key.start, end))
        account.committed = committed
        account.forget_at = forget_at
        heappush(self._ends, (forget_at, key))
        length = end - key.start
        if length != WINDOW_SECONDS_MAX:  # else nobody had learned how long it is
            self._lengths[key[:2]] = max(length, self._lengths.get(key[:2], 0.0))

    def sums(self, now: float) -> tuple[Sum, ...]:
        """The accounts of all windows that last."""
        return tuple(
            [
                Sum(
                    key.tenant,
                    key.budget,
                    span.start,
                    span.end,
                    account.committed,
                    account.reserved,
                )
                for key, account in self._all.items()
                if (span := account.span).start <= now < span.end
            ]
        )

    def forget(self, now: float) -> None:
        """Forget accounts whose time has come.

        Call it before a call's first account is looked up, never between that and what is done
        to it: nothing says yet that it is in use.
        """
        for _ in range(FORGOTTEN_PER_CALL):
            if not self._ends or self._ends[0][0] > now:
                return
            due, key = heappop(self._ends)
            account = self._all.get(key)
            if account is None or account.forget_at != due:
                continue
            if account.reserved:
                account.forget_at = now + KEPT_SECONDS_MIN
                heappush(self._ends, (account.forget_at, key))
                continue
            del self._all[key]
            if self._current.get(key[:2]) is account:
                del self._current[key[:2]]
            self._on_change(key)

    def current(self, tenant: str, claim: Claim, now: float) -> Account | None:
        """The account of the window that `now` lies in, opened if there is none yet."""
        account = self._current.get((tenant, claim.budget))
        if account is not None and account.window is claim.window:
            start, end = account.span
            if start <= now < end:
                return account
        return self._turn(tenant, claim, now)

    def read(self, tenant: str, claim: Claim, at: float) -> Account:
        """The account of the window that `at` lies in, or an empty one that is not kept."""
        span = _span(claim, at)
        key = Key(tenant, claim.budget, span.start)
        found = self._all.get(key)
        if found is None:
            return Account(key, claim.window, span)
        return found

    def named(self, key: Key, now: float) -> Account | None:
        """The account of a window of which only the start is known, as in a settlement.

        When it ends is told by the window that the budget has now, or else by those it had
        before a restart; if there are none, that is learned when somebody reserves in it.
        """
        account = self._all.get(key)
        if account is not None:
            return account
        length = self._lengths.get(key[:2], WINDOW_SECONDS_MAX)
        span = Span(key.start, key.start + length)
        current = self._current.get(key[:2])
        if current is not None and current.window is not None:
            span = current.window.span(key.start)
        return self._open(key, None, span._replace(start=key.start), now)

    def _turn(self, tenant: str, claim: Claim, now: float) -> Account | None:
        """Go on to the account of another window, or of settings that say it anew."""
        span = _span(claim, now)
        key = Key(tenant, claim.budget, span.start)
        account = self._all.get(key) or self._open(key, claim.window, span, now)
        if account is not None:
            if account.span != span:
                account.span = span
                self._forget_later(account, now)
                self._on_change(key)
            account.window = claim.window
            self._current[tenant, claim.budget] = account
        return account

    def _open(self, key: Key, window: Window | None, span: Span, now: float) -> Account | None:
        if len(self._all) >= self._accounts_max:
            return None
        account = self._all[key] = Account(key, window, span)
        self._forget_later(account, now)
        return account

    def _forget_later(self, account: Account, now: float) -> None:
        start, end = account.span if account.span != ALWAYS else (now, now)
        account.forget_at = max(now, end) + max(KEPT_SECONDS_MIN, end - start)
        heappush(self._ends, (account.forget_at, account.key))


def _span(claim: Claim, at: float) -> Span:
    return ALWAYS if claim.window is None else claim.window.span(at)
