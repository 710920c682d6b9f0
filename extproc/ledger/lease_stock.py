"""What a replica holds on lease of one tenant's budgets, and how much of each it would have."""

from collections.abc import Iterator, Sequence

from extproc.ledger.lease_known import Known
from extproc.ledger.lease_messages import (
    MICROSECONDS,
    NO_LEASES,
    Contact,
    Reply,
    Rules,
    budget_of,
)
from extproc.ledger.lease_slices import Account, Demand, Lease
from extproc.policy.budgets import Claim


class Stock:
    """The leases of one book. Without rules there are none."""

    def __init__(self, known: Known, rules: Rules | None) -> None:
        self.gives_back = False
        """Whether the store would have something back at once."""
        self._known = known
        self._is_leasing = rules is not None
        self._rules = rules or NO_LEASES
        self._leases: dict[str, Lease] = {}
        self._demand: dict[str, Demand] = {}

    @property
    def has_leases(self) -> bool:
        """Whether something is leased that may be used or given back."""
        return any(account.room for account in self._known.accounts.values())

    def stop(self) -> None:
        """Give all back with the next message, and want none any more."""
        self._is_leasing = False
        self._rules = NO_LEASES
        self._demand.clear()
        self._leases.clear()
        self.drop()
        self.gives_back = True

    def drop(self) -> None:
        """Use nothing of what there is: the store may have given it to others."""
        for account in self._known.accounts.values():
            account.room = 0

    def take(self, claims: Sequence[Claim], steady: float) -> list[Account] | None:
        """Use of the leases what is claimed; None, and nothing used, if they do not cover it."""
        if not self._is_leasing:
            return None
        taken: list[Account] = []
        for claim in claims:
            lease = self._leases.get(claim.budget)
            if lease is not None:
                account = lease.account
                if (
                    account.opened <= steady < account.until
                    and claim.limit == lease.limit > 0
                    and (claim.window is lease.window or claim.window == lease.window)
                    and claim.amount <= account.room
                    # Else more was charged than was held, and the lease is no longer covered.
                    and (not claim.amount or account.used + claim.amount <= claim.limit)
                ):
                    account.room -= claim.amount
                    account.untold += claim.amount
                    taken.append(account)
                    continue
            for account, held in zip(taken, claims, strict=False):
                account.room += held.amount
                account.untold -= held.amount
            return None
        return taken

    def count(self, claims: Sequence[Claim], steady: float) -> None:
        """Learn from what was asked for, whoever decided it."""
        if not self._is_leasing:
            return
        for claim in claims:
            demand = self._demand.get(claim.budget)
            if demand is None:
                demand = self._demand[claim.budget] = Demand(claim, steady)
            demand.add(claim)

    def wants(self, steady: float) -> list[tuple[Claim, int, int]]:
        """Of which budgets to have how much on lease, and how little would be too little."""
        wants = []
        for budget, demand in tuple(self._demand.items()):
            amount, least = demand.wanted(self._rules, steady)
            if amount:
                wants.append((demand.claim, amount, least))
            elif demand.is_idle(self._rules, steady):
                del self._demand[budget]
        return wants

    def keep(self, asked: set[str], steady: float) -> Iterator[tuple[str, int]]:
        """All that the store must go on counting as leased. The rest is given back.

        Nothing is kept of budgets that the store is `asked` about: what is left of them is to be
        found in one place. Nor of those whose limit has changed: what was cut from the old one
        may not be there.
        """
        self.gives_back = False
        for field, account in self._known.accounts.items():
            if account.room:
                is_usable = account.opened <= steady < account.until
                budget = budget_of(field)
                if is_usable and budget not in asked and not self._is_outdated(budget):
                    account.room = min(account.room, account.target)
                else:
                    account.room = 0
            if account.room or account.untold:
                yield field, account.room + account.untold

    def hear(self, contact: Contact, reply: Reply) -> None:
        """Take what the store has leased, and as long as it is sure to."""
        leases = dict(reply.leases)
        for field in {**contact.kept, **leases}:
            account = self._known.accounts.get(field)
            if account is None:
                continue
            has, account.target = leases.get(field, (0, 0))
            account.room = max(0, account.room + has - contact.kept.get(field, 0))
            account.opened = contact.sent.steady
            lasts = self._rules.lease
            if account.start:
                lasts = min(lasts, account.stop - reply.now / MICROSECONDS)
            account.until = contact.sent.steady + lasts
            self.gives_back = self.gives_back or account.room > account.target
            claim = contact.wanted.get(budget_of(field))
            if claim is not None:
                self._decide_from(account, claim)

    def _decide_from(self, account: Account, claim: Claim) -> None:
        """Decide claims like this from the account: the latest that is of such a window."""
        lease = self._leases.get(claim.budget)
        if not account.is_of(claim.window):
            if lease is not None and lease.account is account:
                del self._leases[claim.budget]
        elif lease is None or lease.window != claim.window or lease.account.start <= account.start:
            self._leases[claim.budget] = Lease(account, claim.limit, claim.window)

    def _is_outdated(self, budget: str) -> bool:
        """Whether the limit or window has changed since the budget was leased."""
        lease, demand = self._leases.get(budget), self._demand.get(budget)
        if lease is None or demand is None:
            return False
        return (lease.limit, lease.window) != (demand.claim.limit, demand.claim.window)
