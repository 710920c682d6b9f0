"""Budgets as they stand, in the words of our own gRPC interface."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from extproc.budgets_api import budgets_pb2 as pb
from extproc.ledger.port import OpenLedger, Standing
from extproc.policy.budgets import Budget, Unit, claims_on
from extproc.policy.grants import Grant
from extproc.policy.tenants import Tenant
from extproc.server.grants import Grants
from extproc.server.rulebook import Rulebook

AMOUNT_MAX: Final = (1 << 63) - 1
"""That an int64 holds. A limit of more dollars than there are is told as that."""

UNITS: Final[Mapping[Unit, pb.Unit]] = {
    "tokens": pb.UNIT_TOKENS,
    "usd": pb.UNIT_MICRO_USD,
    "requests": pb.UNIT_REQUESTS,
    "concurrent_requests": pb.UNIT_CONCURRENT_REQUESTS,
}


class States:
    """Looks at budgets: at the rules in force, the ledger and the grants."""

    def __init__(
        self, rulebook: Rulebook, ledger: OpenLedger, grants: Grants, clock: Callable[[], float]
    ) -> None:
        self._rulebook = rulebook
        self._ledger = ledger
        self._grants = grants
        self._clock = clock
        self._sorted = _Sorted({}, ())

    def budget(self, tenant: str, budget: str) -> Budget | None:
        """What the rules say of a budget; None if they don't know it."""
        known = self._tenants.get(tenant)
        return next((one for one in known.budgets if one.id == budget), None) if known else None

    def has(self, tenant: str) -> bool:
        """Whether the rules know the tenant."""
        return tenant in self._tenants

    def names(self, *, prefix: str, after: str, count_max: int) -> Sequence[str]:
        """The next tenants by name."""
        names = self._names()
        start = bisect_left(names, prefix)
        if after:
            start = max(start, bisect_left(names, after + "\0"))
        page = names[start : start + count_max]
        return [name for name in page if name.startswith(prefix)]

    async def one(self, tenant: str, budget: str) -> pb.Budget | None:
        """One budget; None if the rules don't know it."""
        known = self.budget(tenant, budget)
        return None if known is None else (await self._shown(tenant, (known,)))[0]

    async def of(self, tenant: str) -> list[pb.Budget]:
        """All budgets of a tenant, in the order of the settings."""
        known = self._tenants.get(tenant)
        return [] if known is None else await self._shown(tenant, known.budgets)

    @property
    def _tenants(self) -> Mapping[str, Tenant]:
        return self._rulebook.rules.policy.tenants

    def _names(self) -> Sequence[str]:
        tenants = self._tenants
        if tenants is not self._sorted.tenants:
            self._sorted = _Sorted(tenants, tuple(sorted(tenants)))
        return self._sorted.names

    async def _shown(self, tenant: str, budgets: Sequence[Budget]) -> list[pb.Budget]:
        standings = await self._ledger.standing(tenant, claims_on(budgets))
        now = self._clock()
        return [
            _shown(tenant, budget, standing, self._grants.of(tenant, budget.id), now)
            for budget, standing in zip(budgets, standings, strict=True)
        ]


class _Sorted(NamedTuple):
    tenants: Mapping[str, Tenant]
    names: Sequence[str]


def grant_shown(grant: Grant) -> pb.Grant:
    """A grant, without whom it is for."""
    return pb.Grant(
        id=grant.id,
        amount=grant.amount,
        until=grant.until,
        reason=grant.reason,
        by=grant.by,
        at=grant.at,
        is_reset=grant.is_reset,
    )


def _shown(
    tenant: str, budget: Budget, standing: Standing, grants: Sequence[Grant], now: float
) -> pb.Budget:
    shown = pb.Budget(
        tenant=tenant,
        budget=budget.id,
        unit=UNITS[budget.unit],
        limit=_amount(budget.limit_units),
        granted=_amount(sum(grant.amount for grant in grants) if budget.limit_units else 0),
        committed=_amount(standing.committed),
        reserved=_amount(standing.reserved),
        remaining=_amount(standing.balance.remaining),
        on_exhausted=budget.on_exhausted,
        grants=[grant_shown(grant) for grant in grants],
    )
    if budget.window is not None:
        span = budget.window.span(now)
        shown.window.start, shown.window.end = span
    return shown


def _amount(amount: int) -> int:
    return min(max(amount, 0), AMOUNT_MAX)
