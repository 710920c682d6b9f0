"""What a replica knows of a tenant's books: as the store last told, and what was done here since.

The store's books may go back: a server that lost its data, or a replica of it that had not got
all. Each answer carries a mark that only grows, so that whoever saw a later one notices. Then all
reservations made here that are open are told once more, and `lost` says what was known to be
charged, for the store to count as used until the settlements come again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from extproc.ledger.lease_messages import MICROSECONDS, Made, Reply, budget_of, micros
from extproc.ledger.lease_slices import Account
from extproc.ledger.port import Sum
from extproc.policy.budgets import Settlement

KEPT_SECONDS = 300.0
"""An account whose window is over is known for so long."""

UNACKNOWLEDGED_MAX = 10_000
"""Beyond it, one that a store forgets counts twice as used, until its window is over."""


class Seen(NamedTuple):
    """What was charged to an account when the store was last heard of."""

    budget: str
    start: int
    stop: int
    committed: int
    birth: int
    written: int
    """The mark of the store's books as they were then."""


class Known:
    """Of one tenant."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.own: dict[str, Made] = {}
        """Made here and open, in the order in which they were made."""
        self.mark = (0, 0)
        """Birth of the store's books, and how often they were written; as last heard."""
        self.lasts = 0
        """Before this instant the store's books don't end by themselves, in microseconds."""
        self.unacknowledged: dict[str, Settlement] = {}
        """Charged, but whoever brought it does not know, since others of its batch are not. If the
        store forgets it, it is ours to bring again: what comes otherwise was never charged."""
        self.forgotten_until = 0.0
        self.expired = 0
        """How many reservations expired in answers to us."""
        self._due_last = 0.0

    @property
    def is_open(self) -> bool:
        """Whether something is yet to come of what is known."""
        return bool(self.own or self.unacknowledged)

    def add(self, name: str, made: Made) -> None:
        """A reservation was made here. If the clock stepped back, nothing is due after it."""
        if made.due < self._due_last:
            for other, earlier in self.own.items():
                if earlier.due > made.due:
                    self.own[other] = earlier._replace(due=made.due)
        self._due_last = made.due
        self.own[name] = made

    def charged(self, settlement: Settlement) -> None:
        """The store has it, and nobody knows yet."""
        if len(self.unacknowledged) < UNACKNOWLEDGED_MAX:
            self.unacknowledged[settlement.reservation] = settlement

    def account(self, start: float, stop: float, budget: str) -> Account:
        """What is known of an account; opened if nothing is."""
        field = f"{micros(start)}:{budget}"
        account = self.accounts.get(field)
        if account is None:
            account = self.accounts[field] = Account(start, stop)
        return account

    def hear(self, reply: Reply, mark_when_sent: tuple[int, int]) -> Sequence[Seen]:
        """Take in how the store's books stand. Return what they lack, if they went back."""
        birth, written = mark_when_sent
        mark = (reply.birth, reply.written)
        went_back = reply.birth != birth or reply.written < written
        lost: Sequence[Seen] = ()
        if birth and went_back and reply.now < self.lasts:
            lost = self._lost()
        if lost or reply.birth != self.mark[0] or mark > self.mark:
            self.mark = mark
        self.lasts = reply.lasts
        self.forgotten_until = max(self.forgotten_until, reply.forgotten / MICROSECONDS)
        self.expired += len(reply.expired)
        for field, committed, reserved, leased, start, stop in reply.accounts:
            end = stop / MICROSECONDS if start and stop else float("inf")
            account = self.account(start / MICROSECONDS, end, budget_of(field))
            account.stop, account.end = end, stop
            if lost or account.heard[0] != reply.birth or mark >= account.heard:
                account.committed, account.reserved, account.leased = committed, reserved, leased
                account.heard = mark
            # Else this was overtaken by the answer to something that was asked later.
        self._let_expire(reply)
        return lost

    def _lost(self) -> Sequence[Seen]:
        lost = []
        for field, account in self.accounts.items():
            if account.committed and account.start:
                stop = 0 if account.stop == float("inf") else micros(account.stop)
                start = micros(account.start)
                lost.append(Seen(budget_of(field), start, stop, account.committed, *account.heard))
            account.committed = account.reserved = account.leased = 0
        return lost or (Seen("", 0, 0, 0, 0, 0),)

    def _let_expire(self, reply: Reply) -> None:
        for name in reply.expired:
            self.own.pop(name, None)
        if reply.is_behind:
            return
        now = reply.now / MICROSECONDS
        while self.own:
            name, oldest = next(iter(self.own.items()))
            if oldest.due >= now:
                return
            del self.own[name]  # another replica has heard of it

    def forget(self, now: float) -> None:
        """Forget accounts whose windows are over."""
        over = [
            field
            for field, account in self.accounts.items()
            if account.stop + KEPT_SECONDS < now and not (account.untold or account.telling)
        ]
        for field in over:
            del self.accounts[field]

    def held(self, now: float) -> int:
        """How many reservations made here are open."""
        return len(self.own) - sum(1 for _ in self._due(now))

    def _due(self, now: float) -> Iterator[Made]:
        for made in self.own.values():
            if made.due > now:
                return
            yield made

    def sums(self, tenant: str, now: float) -> Iterator[Sum]:
        """The accounts of windows that last, without what is overdue."""
        overdue = self._overdue(now)
        for field, account in self.accounts.items():
            if account.start <= now < account.stop:
                held, charged = overdue.get(field, (0, 0))
                yield Sum(
                    tenant,
                    budget_of(field),
                    account.start,
                    account.stop,
                    account.committed + charged,
                    account.used - account.committed - held,
                )

    def _overdue(self, now: float) -> Mapping[str, tuple[int, int]]:
        overdue: dict[str, tuple[int, int]] = {}
        for made in self._due(now):
            for field, (_, start, _, amount, expected) in made.fields():
                held, charged = overdue.get(field, (0, 0))
                overdue[field] = held + amount, charged + (expected if start else 0)
        return overdue
