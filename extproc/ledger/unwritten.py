"""What memory has decided and the ledger's file does not have yet; and what is written of it."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from extproc.ledger.accounts import ALWAYS, Account, Accounts, Key
from extproc.ledger.holdings import Changes, Plan
from extproc.ledger.remembered import SETTLED, Expired
from extproc.ledger.sqlite_file import Past, Row, Transaction

ID_KEPT_SECONDS: Final = 2 * 3600.0
"""After it was settled, and after the last window that it was about. Envoy repeats a record for
an hour at most."""

WRITTEN_AT_ONCE: Final = 1024
"""Bounds one transaction: so many expired reservations, and so many accounts that moved."""


class _Pending(NamedTuple):
    expired: Expired
    changes: Changes
    at: float


class Writing(NamedTuple):
    """A transaction, and what is no longer unwritten once it is committed."""

    transaction: Transaction
    expired: Sequence[str]
    moved: Sequence[Key]


class Unwritten:
    """A journal of what changed by itself. What is taken from it is kept or put back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._expired: dict[str, _Pending] = {}
        self._moved: dict[Key, None] = {}

    def __len__(self) -> int:
        return len(self._expired)

    def __bool__(self) -> bool:
        return bool(self._expired or self._moved)

    def expired(self, reservation: str, expired: Expired, changes: Changes) -> None:
        """Have it written that a reservation expired, and was charged `changes`."""
        for account, amount in changes:
            account.unwritten += amount
        self._expired[reservation] = _Pending(expired, changes, self.clock())

    def moved(self, key: Key) -> None:
        """Have it written how long an account is kept, or that it is forgotten."""
        self._moved[key] = None

    def get(self, reservation: str) -> Expired | None:
        """What a reservation was charged when it expired, if that is not written yet."""
        pending = self._expired.get(reservation)
        return None if pending is None else pending.expired

    def take(
        self, accounts: Accounts, plans: Sequence[Plan], notes: Mapping[str, str | None]
    ) -> Writing:
        """All that `plans` change, and as much else as fits, as one transaction.

        Accounts are written as the sums they will have: what memory says without what stays
        unwritten, and with what is in here.
        """
        now = self.clock()
        names = dict.fromkeys(p.reservation for p in plans if p.reservation in self._expired)
        names |= dict.fromkeys(islice(self._expired, WRITTEN_AT_ONCE))
        moved = [*islice(self._moved, WRITTEN_AT_ONCE)]
        past = []
        more: defaultdict[Account, int] = defaultdict(int)
        for name in names:
            expired, changes, at = self._expired[name]
            ends = [account.span.end for account, _ in changes]
            past.append(Past(name, expired, max([at, *ends]) + ID_KEPT_SECONDS))
            for account, amount in changes:
                more[account] += amount
        for plan in plans:
            until = max(now, plan.last_end) + ID_KEPT_SECONDS
            past.append(Past(plan.reservation, SETTLED, until))
            for account, amount in plan.changes:
                more[account] += amount
        forgotten = []
        for key in moved:
            del self._moved[key]
            kept = accounts.get(key)
            if kept is None:
                forgotten.append(key)
            elif kept.span != ALWAYS:
                more[kept] += 0
        rows = [
            Row(
                account.key,
                account.span.end,
                account.committed - account.unwritten + amount,
                account.forget_at,
            )
            for account, amount in more.items()
            if accounts.get(account.key) is account
        ]
        return Writing(Transaction(now, past, rows, forgotten, notes), [*names], moved)

    def keep(self, writing: Writing) -> None:
        """It is written."""
        for name in writing.expired:
            for account, amount in self._expired.pop(name).changes:
                account.unwritten -= amount

    def put_back(self, writing: Writing) -> None:
        """It is not."""
        self._moved |= dict.fromkeys(writing.moved)
