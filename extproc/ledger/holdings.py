"""What every ledger decides from: reservations, and the accounts they are held in, in memory.

No call waits. A settlement takes two of them, so that a file may be written in between: `plan`
says what it changes, and `apply` changes that, or `abandon` leaves everything as it was. In
between a reservation is *settling*: it stays held, and can't expire or be given back.

Time is that of the clock it is given. Where that steps back, a reservation expires no later
than one made after it, and what was used stays used (`accounts` says how far back).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from extproc.ledger.accounts import ALWAYS, Account, Accounts, Key
from extproc.ledger.bounds import BOUNDS, Bounds
from extproc.ledger.notes import is_text
from extproc.ledger.parts import Part, balance_of, give_back, hold, window_starts
from extproc.ledger.port import Size, Standing, Sum
from extproc.ledger.remembered import SETTLED, Expired, Remembered
from extproc.policy.budgets import (
    CHARGE_MAX,
    Answer,
    Claim,
    Denied,
    Reserve,
    Reserved,
    Settled,
    Settlement,
    Unavailable,
)

EXPIRATIONS_PER_CALL: Final = 256
"""Bounds the work of one call. What is overdue holds back no less than it will be charged, so
nobody is let in wrongly; and before anybody is refused, all that is overdue expires."""

SUM_MAX: Final = 1 << 61
"""Beyond it an account counts no further: it would not fit into a file."""

Changes = tuple[tuple[Account, int], ...]
"""What is added to what is committed."""


class _Reservation:
    """Held until it is `due`."""

    __slots__ = ("due", "parts", "tenant")

    def __init__(self, tenant: str, parts: Sequence[Part], due: float) -> None:
        self.tenant = tenant
        self.parts = parts
        self.due = due


class Plan(NamedTuple):
    """All that one settlement changes, decided once: memory and file get the same integers."""

    reservation: str
    settled: Settled
    changes: Changes
    last_end: float
    """When the last of the windows that it is about ends; 0 where there is none."""


class Journal(Protocol):
    """Is told what changes by itself, as time passes. A settlement is no news: see `Plan`."""

    def expired(self, reservation: str, expired: Expired, changes: Changes) -> None:
        """A reservation has expired, and `changes` were made."""

    def moved(self, key: Key) -> None:
        """An account was forgotten, or is kept until another time than before."""


class NoJournal:
    """Forgets whatever it is told."""

    def expired(self, reservation: str, expired: Expired, changes: Changes) -> None:
        """Do nothing."""

    def moved(self, key: Key) -> None:
        """Do nothing."""


UNHEARD: Final = NoJournal()


class Holdings:
    """Accounts, reservations held, and reservations that are over."""

    def __init__(
        self,
        clock: Callable[[], float],
        reservation_seconds: float,
        bounds: Bounds = BOUNDS,
        journal: Journal = UNHEARD,
    ) -> None:
        self.accounts = Accounts(bounds.accounts, journal.moved)
        self.remembered = Remembered(bounds.remembered)
        self.expired = 0
        """How many reservations have."""
        self._clock = clock
        self._reservation_seconds = reservation_seconds
        self._reservations_max = bounds.reservations
        self._journal = journal
        self._held: OrderedDict[str, _Reservation] = OrderedDict()
        """In the order in which they fall due."""
        self._settling: set[str] = set()
        self._due_last = 0.0

    @property
    def size(self) -> Size:
        """How much is kept now."""
        return Size(len(self._held), len(self.remembered), len(self.accounts))

    def answer(self, ask: Reserve, *, is_kept: bool) -> Answer:
        """Hold every claim or none; if it is not to be kept, hold nothing, and answer the same."""
        now = self._clock()
        self._tidy(now)
        if not (is_text(ask.reservation) and is_text(ask.tenant)):
            return Unavailable("the name of the tenant or reservation is no text")
        if self._is_known(ask.reservation):
            return self._answer_again(ask, now)
        if len(self._held) >= self._reservations_max:
            return Unavailable(f"{len(self._held)} reservations are open: no more are taken")
        parts: list[Part] = []
        for claim in ask.claims:
            account = self.accounts.current(ask.tenant, claim, now)
            if account is None:
                return Unavailable(f"{len(self.accounts)} budgets are in use: no more are kept")
            parts.append((account, claim))
        lacking = hold(parts)
        if lacking and self._expire(now, len(self._held)):
            lacking = hold(parts)
        if lacking:
            return Denied(tuple([balance_of(account, claim, now) for account, claim in lacking]))
        balances = tuple([balance_of(account, claim, now) for account, claim in parts])
        if is_kept:
            self._keep(ask, parts, now)
        else:
            give_back(parts)
        return Reserved(ask.reservation, balances, window_starts(parts))

    def release(self, reservation: str) -> None:
        """Give a reservation back whole, if it is held and no settlement of it is under way."""
        now = self._clock()
        self._tidy(now)
        held = self._held_still(reservation, now)
        if held is not None and reservation not in self._settling:
            del self._held[reservation]
            give_back(held.parts)

    def standing(
        self, tenant: str, claims: Sequence[Claim], *, at: float | None
    ) -> tuple[Standing, ...]:
        """How each claim's budget stands now, or stood at the end of the window of `at`."""
        now = self._clock()
        self._expire(now, len(self._held))
        found = []
        for claim in claims:
            account = self.accounts.read(tenant, claim, now if at is None else at)
            balance = balance_of(account, claim, now)
            found.append(Standing(balance, account.committed, account.reserved))
        return tuple(found)

    def tidy(self) -> None:
        """Do a bounded part of what time asks for, as other calls do first."""
        self._tidy(self._clock())

    def sums(self) -> tuple[Sum, ...]:
        """The accounts of all windows that last now."""
        now = self._clock()
        self._tidy(now)
        return self.accounts.sums(now)

    def plan(self, settlement: Settlement, past: Expired | None = None) -> Plan | Settled:
        """Say what a settlement changes, or why it changes nothing.

        `past` is what is known elsewhere of a reservation that is over. Every plan is applied
        or abandoned; until then its reservation is settling.
        """
        now = self._clock()
        self._tidy(now)
        name = settlement.reservation
        held = self._held_still(name, now)
        past = past or self.remembered.get(name)
        if name in self._settling:
            return "repeated"
        if past is SETTLED:
            self.release(name)  # it was made anew under a name that is over
            return "repeated"
        known: dict[str, Key] = {}
        if past is not None:
            known = {part[0]: Key(past.tenant, part[0], part[1]) for part in past.parts}
        elif held is not None:
            known = {claim.budget: account.key for account, claim in held.parts}
        charged = self._charged(settlement, known, now)
        if charged is None:
            return "unavailable"
        settled: Settled = "late" if past else "settled" if held else "unknown"
        changes = charged if past is None else (*self._taken_back(past), *charged)
        self._settling.add(name)
        return Plan(name, settled, changes, self._last_end(known, charged))

    def apply(self, plan: Plan) -> None:
        """Let it be so."""
        name = plan.reservation
        self._settling.remove(name)
        held = self._held.pop(name, None)
        if held is not None:
            give_back(held.parts)
        for account, amount in plan.changes:
            account.committed += amount
        self.remembered.add(name, SETTLED, self._clock())

    def abandon(self, plan: Plan) -> None:
        """Let nothing have happened."""
        self._settling.remove(plan.reservation)

    def _is_known(self, name: str) -> bool:
        return name in self._held or name in self.remembered or name in self._settling

    def _answer_again(self, ask: Reserve, now: float) -> Answer:
        """Answer for a reservation that is known: it never takes more than it took."""
        held = self._held_still(ask.reservation, now)
        if held is None:
            return Unavailable("the reservation is over: it was settled or has expired")
        taken = [(claim.budget, claim.amount) for _, claim in held.parts]
        if held.tenant != ask.tenant or taken != [(c.budget, c.amount) for c in ask.claims]:
            return Unavailable("the reservation is held for something else")
        balances = [
            balance_of(account, claim, now)
            for (account, _), claim in zip(held.parts, ask.claims, strict=True)
        ]
        return Reserved(ask.reservation, tuple(balances), window_starts(held.parts))

    def _keep(self, ask: Reserve, parts: Sequence[Part], now: float) -> None:
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
        self.accounts.forget(now)

    def _expire(self, now: float, expirations_max: int) -> int:
        """Let what is overdue expire, at most so many. Return how many did."""
        expired = 0
        for _ in range(min(expirations_max, len(self._held))):
            name, oldest = next(iter(self._held.items()))
            if oldest.due > now:
                break
            if name in self._settling:
                # Its settlement is being written. If that fails it comes again: wait for it.
                oldest.due = self._due_last = max(self._due_last, now)
                self._held.move_to_end(name)
                continue
            self._let_expire(name, oldest, now)
            expired += 1
        return expired

    def _held_still(self, name: str, now: float) -> _Reservation | None:
        """The reservation, if it is held; one that is overdue expires at the latest now."""
        held = self._held.get(name)
        if held is not None and held.due <= now and name not in self._settling:
            self._let_expire(name, held, now)
            return None
        return held

    def _let_expire(self, name: str, reservation: _Reservation, now: float) -> None:
        del self._held[name]
        give_back(reservation.parts)
        parts = []
        changes = []
        for account, claim in reservation.parts:
            expected = 0
            if claim.window is not None:
                expected = min(claim.expected, CHARGE_MAX, SUM_MAX - account.committed)
                account.committed += expected
                changes.append((account, expected))
            parts.append((claim.budget, account.key.start, expected))
        expired = Expired(reservation.tenant, tuple(parts))
        self.remembered.add(name, expired, now)
        self.expired += 1
        self._journal.expired(name, expired, tuple(changes))

    def _charged(self, settlement: Settlement, known: dict[str, Key], now: float) -> Changes | None:
        """What is charged to which account; None where an account can't be opened."""
        charged = []
        for budget, window_start, amount in settlement.charges:
            key = known.get(budget) or Key(settlement.tenant, budget, window_start)
            if not (amount and key.start):
                continue
            account = self.accounts.named(key, now)
            if account is None:
                return None
            charged.append((account, min(amount, SUM_MAX - account.committed)))
        return tuple(charged)

    def _taken_back(self, past: Expired) -> Changes:
        """What it was charged when it expired, as far as that is still kept."""
        found = [
            (self.accounts.get(Key(past.tenant, budget, start)), -amount)
            for budget, start, amount in past.parts
            if amount
        ]
        return tuple([(account, amount) for account, amount in found if account is not None])

    def _last_end(self, known: dict[str, Key], charged: Changes) -> float:
        accounts = {account.key: account for account, _ in charged}
        accounts |= {key: a for key in known.values() if (a := self.accounts.get(key))}
        ends = [account.span.end for account in accounts.values() if account.span != ALWAYS]
        return max(ends, default=0.0)
