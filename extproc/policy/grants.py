"""Grants: what somebody has added to a budget's limit, until an instant, and why.

A limit of 0 is a word of the settings that no grant weakens.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Final

import msgspec

from extproc.policy.budgets import CHARGE_MAX, MICRO_USD_PER_USD, Budget
from extproc.policy.tenants import Tenant

REASON_CHARS_MAX: Final = 500


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`amount` is in the budget's integer unit; it counts until `until`, not included."""

    id: str
    tenant: str
    budget: str
    amount: Annotated[int, msgspec.Meta(gt=0, le=CHARGE_MAX)]
    until: float
    reason: str
    by: str
    at: float
    is_reset: bool = False
    """Whether it gives again what was charged in one window."""

    def counts(self, now: float) -> bool:
        """Whether it is still added to the limit."""
        return now < self.until


def raised(tenants: Mapping[str, Tenant], grants: Iterable[Grant]) -> Mapping[str, Tenant]:
    """The tenants with these grants added to their limits; the same mapping if none apply."""
    extra: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for grant in grants:
        extra[grant.tenant][grant.budget] += grant.amount
    changed = {
        name: _raised(tenants[name], amounts) for name, amounts in extra.items() if name in tenants
    }
    return {**tenants, **changed} if changed else tenants


def _raised(tenant: Tenant, amounts: Mapping[str, int]) -> Tenant:
    budgets = tuple(
        _with(budget, amounts[budget.id]) if budget.id in amounts and budget.limit else budget
        for budget in tenant.budgets
    )
    return msgspec.structs.replace(tenant, budgets=budgets)


def _with(budget: Budget, amount: int) -> Budget:
    one = MICRO_USD_PER_USD if budget.unit == "usd" else 1
    return msgspec.structs.replace(budget, limit=budget.limit + Decimal(amount) / one)
