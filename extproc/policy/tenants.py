"""Tenants: who pays."""

from functools import cached_property
from typing import Literal

from extproc.policy.budgets import Budget
from extproc.policy.section import Section

WhenUnavailable = Literal["local_share", "allow", "deny"]
"""What becomes of requests while budgets can't be asked for, or not be settled."""


class Tenant(Section, frozen=True, kw_only=True, dict=True):
    """A plan that chooses tiers, and budgets, all of which apply."""

    plan: str
    budgets: tuple[Budget, ...] = ()
    when_unavailable: WhenUnavailable | None = None

    @cached_property
    def is_suspended(self) -> bool:
        """Whether nothing at all is allowed, whatever is asked."""
        return any(budget.is_suspension for budget in self.budgets)
