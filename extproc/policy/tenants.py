"""Tenants: who pays."""

from extproc.policy.budgets import Budget
from extproc.policy.section import Section


class Tenant(Section, frozen=True, kw_only=True):
    """A plan that chooses tiers, and budgets, all of which apply."""

    plan: str
    budgets: tuple[Budget, ...] = ()
