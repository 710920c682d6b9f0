"""Budgets in the memory of one process: exact, fast, and gone with it.

Time is that of the clock it is given. Where that steps back, a reservation expires no later
than one made after it, and what was used stays used (`accounts` says how far back).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from extproc.ledger.accounts import Account, Accounts, Key
from extproc.ledger.port import Standing
from extproc.policy.budgets import (
    Answer,
    Balance,
    Claim,
    Denied,
    Reserve,
    Reserved,
    Settled,
    Settlement,
    Unavailable,
)

RESERVATIONS_MAX: Final = 1_000_000
"""Held at a time. Each takes about 650 bytes with two claims."""

REMEMBERED_MAX: Final = 1_000_000
"""Settled or expired. Beyond it the oldest is forgotten early, and would be charged again.

Each takes about 300 bytes, and 650 where it expired: its settlement may still come."""

REMEMBERED_SECONDS: Final = 3600.0
"""So late may a settlement come again, or replace what its expired reservation was charged."""

ACCOUNTS_MAX: Final = 1_000_000
"""Tenants times budgets times the windows that are kept. Each takes about 500 bytes."""

EXPIRATIONS_PER_CALL: Final = 256
"""Bounds the work of one call. What is overdue holds back no less than it will be charged, so
nobody is let in wrongly; and before anybody is refused, all that is overdue expires."""


class Size(NamedTuple):
    """How much is kept."""

    held: int
    remembered: int
    accounts: int


_Part = tuple[Account, Claim]
"""What a reservation holds of one account."""


class _Reservation:
    """Held until it is `due`; when it was settled or has expired, remembered until then."""

    __slots__ = ("due", "is_settled", "parts", "tenant")

    def __init__(
        self, tenant: str, parts: Sequence[_Part], due: float, *, is_settled: bool = False
    ) -> None:
        self.tenant = tenant
        self.parts = parts
        self.due = due
        self.is_settled = is_settled


class MemoryLedger:
    """An `OpenLedger` that one process keeps for itself. No call ever waits."""

    def __init__(
        self,
        clock: Callable[[], float],
        reservation_seconds: float,
        *,
        reservations_max: int = RESERVATIONS_MAX,
        remembered_max: int = REMEMBERED_MAX,
        accounts_max: int = ACCOUNTS_MAX,
    ) -> None:
        self._clock = clock
        self._reservation_seconds = reservation_seconds
        self._reservations_max = reservations_max
        self._remembered_max = remembered_max
        self._accounts = Accounts(accounts_max)
        # Both in the order in which they fall due.
        self._held: OrderedDict[str, _Reservation] = OrderedDict()
        self._remembered: OrderedDict[str, _Reservation] = OrderedDict()
        self._due_last = 0.0

    @property
    def size(self) -> Size:
        """How much is kept now."""
        return Size(len(self._held), len(self._remembered), len(self._accounts))

    async def reserve(self, ask: Reserve) -> Answer:
        """Hold every claim or none."""
        return self._answer(ask, is_kept=True)

    async def peek(self, ask: Reserve) -> Answer:
        """Say what `reserve` would answer, and hold nothing."""
        return self._answer(ask, is_kept=False)

    async def settle(self, settlements: Sequence[Settlement]) -> tuple[Settled, ...]:
        """Charge what was used and give the rest back. Idempotent by reservation.

        Raises:
            ValueError: a charge is negative. Nothing changed.
        """
        for settlement in settlements:
            _check(settlement)
        return tuple([self._settle(settlement) for settlement in settlements])

    def _settle(self, settlement: Settlement) -> Settled:
        now = self._clock()
        self._tidy(now)
        name = settlement.reservation
        held = self._held_still(name, now)
        past = self._remembered.get(name)
        if past is not None and past.is_settled:
            return "repeated"
        known = held or past
        charged = self._charged(settlement, known, now)
        if charged is None:
            return "unavailable"
        if held is not None:
            del self._held[name]
            _give_back(held.parts)
        elif past is not None:
            _charge_expected(past.parts, -1)
        for account, amount in charged:
            account.committed += amount
        due = now + REMEMBERED_SECONDS
        self._remember(name, _Reservation(settlement.tenant, (), due, is_settled=True), now)
        if known is None:
            return "unknown"
        return "settled" if held is not None else "late"

    async def release(self, reservation: str) -> None:
        """Give a reservation back whole, because its request went nowhere."""
        now = self._clock()
        self._tidy(now)
        held = self._held_still(reservation, now)
        if held is not None:
            del self._held[reservation]
            _give_back(held.parts)

    async def standing(
        self, tenant: str, claims: Sequence[Claim], *, at: float | None = None
    ) -> tuple[Standing, ...]:
        """How each claim's budget stands now, or stood at the end of the window of `at`."""
        now = self._clock()
        self._expire(now, len(self._held))
        found = []
        for claim in claims:
            account = self._accounts.read(tenant, claim, now if at is None else at)
            balance = _balance(account, claim, now)
            found.append(Standing(balance, account.committed, account.reserved))
        return tuple(found)

    def _answer(self, ask: Reserve, *, is_kept: bool) -> Answer:
        now = self._clock()
        self._tidy(now)
        if ask.reservation in self._held or ask.reservation in self._remembered:
            return self._answer_again(ask, now)
        if len(self._held) >= self._reservations_max:
            return Unavailable(f"{len(self._held)} reservations are open: no more are taken")
        parts: list[_Part] = []
        for claim in ask.claims:
            account = self._accounts.current(ask.tenant, claim, now)
            if account is None:
                return Unavailable(f"{len(self._accounts)} budgets are in use: no more are kept")
            parts.append((account, claim))
        lacking = _hold(parts)
        if lacking and self._expire(now, len(self._held)):
            lacking = _hold(parts)
        if lacking:
            return Denied(tuple([_balance(account, claim, now) for account, claim in lacking]))
        balances = tuple([_balance(account, claim, now) for account, claim in parts])
        if is_kept:
            self._keep(ask, parts, now)
        else:
            _give_back(parts)
        return Reserved(ask.reservation, balances, _window_starts(parts))

    def _answer_again(self, ask: Reserve, now: float) -> Answer:
        """Answer for a reservation that is known: it never takes more than it took."""
        held = self._held_still(ask.reservation, now)
        if held is None:
            return Unavailable("the reservation is over: it was settled or has expired")
        taken = [(claim.budget, claim.amount) for _, claim in held.parts]
        if held.tenant != ask.tenant or taken != [(c.budget, c.amount) for c in ask.claims]:
            return Unavailable("the reservation is held for something else")
        balances = [
            _balance(account, claim, now)
            for (account, _), claim in zip(held.parts, ask.claims, strict=True)
        ]
        return Reserved(ask.reservation, tuple(balances), _window_starts(held.parts))

    def _keep(self, ask: Reserve, parts: Sequence[_Part], now: float) -> None:
        due = now + self._reservation_seconds
        if due < self._due_last:
            # The clock stepped back: nothing is due after what comes last.
            for earlier in reversed(self._held.values()):
                if earlier.due <= due:
                    break
                earlier.due = due
        self._due_last = due
        self._held[ask.reservation] = _Reservation(ask.tenant, parts, due)

    def _tidy(self, now: float) -> None:
        """Do what time asks for, in bounds, before anything else is done."""
        self._expire(now, EXPIRATIONS_PER_CALL)
        self._accounts.forget(now)

    def _expire(self, now: float, expirations_max: int) -> int:
        """Let what is overdue expire, at most so many. Return how many did."""
        expired = 0
        while expired < expirations_max and self._held:
            name, oldest = next(iter(self._held.items()))
            if oldest.due > now:
                break
            self._let_expire(name, oldest, now)
            expired += 1
        return expired

    def _held_still(self, name: str, now: float) -> _Reservation | None:
        """The reservation, if it is held; one that is overdue expires at the latest now."""
        held = self._held.get(name)
        if held is not None and held.due <= now:
            self._let_expire(name, held, now)
            return None
        return held

    def _let_expire(self, name: str, reservation: _Reservation, now: float) -> None:
        del self._held[name]
        _give_back(reservation.parts)
        _charge_expected(reservation.parts, 1)
        reservation.due = now + REMEMBERED_SECONDS
        self._remember(name, reservation, now)

    def _charged(
        self, settlement: Settlement, known: _Reservation | None, now: float
    ) -> list[tuple[Account, int]] | None:
        """What is charged to which account; None where an account can't be opened."""
        parts = () if known is None else known.parts
        held = {claim.budget: (account, claim) for account, claim in parts}
        found: list[tuple[Account, int]] = []
        for budget, window_start, amount in settlement.charges:
            if budget in held:
                account, claim = held[budget]
                if claim.window is not None:
                    found.append((account, amount))
            elif amount and window_start:
                key = Key(settlement.tenant, budget, window_start)
                named = self._accounts.named(key, now)
                if named is None:
                    return None
                found.append((named, amount))
        return found

    def _remember(self, name: str, reservation: _Reservation, now: float) -> None:
        remembered = self._remembered
        remembered.pop(name, None)
        remembered[name] = reservation
        for _ in range(2):  # more than is added, so that it ends; no more, so that nobody waits
            oldest = next(iter(remembered.values()))
            if oldest.due > now and len(remembered) <= self._remembered_max:
                break
            remembered.popitem(last=False)


def _check(settlement: Settlement) -> None:
    for budget, _, amount in settlement.charges:
        if amount < 0:
            msg = f"reservation {settlement.reservation!r} charges {amount} of {budget!r}"
            raise ValueError(msg)


def _hold(parts: Sequence[_Part]) -> list[_Part]:
    """Hold all of `parts`; or none, and return those that there is no room for."""
    for account, claim in parts:
        account.reserved += claim.amount
    lacking = [
        (account, claim)
        for account, claim in parts
        if claim.limit <= 0 or (claim.amount and account.committed + account.reserved > claim.limit)
    ]
    if lacking:
        _give_back(parts)
    return lacking


def _give_back(parts: Sequence[_Part]) -> None:
    for account, claim in parts:
        account.reserved -= claim.amount


def _charge_expected(parts: Sequence[_Part], times: int) -> None:
    """Charge what was expected where anything lasts; with -1 for `times`, take it back."""
    for account, claim in parts:
        if claim.window is not None:
            account.committed += times * claim.expected


def _window_starts(parts: Sequence[_Part]) -> tuple[float, ...]:
    return tuple([account.key.start for account, _ in parts])


def _balance(account: Account, claim: Claim, now: float) -> Balance:
    budget, unit, limit, window, _, _ = claim
    remaining = max(0, limit - account.committed - account.reserved)
    if window is None:
        return Balance(budget, unit, limit, remaining, None, None)
    start, end = account.span
    return Balance(budget, unit, limit, remaining, max(0.0, end - now), end - start)
