"""How one tenant's budgets stand, in numbers that people read."""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from extproc.admin.views import Books
from extproc.ledger.port import Standing
from extproc.policy.budgets import (
    MICRO_USD_PER_USD,
    RATE_WINDOW_SECONDS_MAX,
    Budget,
    Unit,
    claims_on,
)
from extproc.policy.windows import Span, Window
from extproc.telemetry.recent import Burn

WARN_AT: Final = 0.8
"""From which share on a budget is shown as nearly used up, where the settings don't say."""

BUDGETS_SHOWN_MAX: Final = 64
"""Of one tenant."""

State = Literal["ok", "warn", "exhausted", "suspended"]


class WindowShown(msgspec.Struct, frozen=True, kw_only=True):
    """The window that lasts now; instants in seconds since 1970."""

    text: str
    start: float
    end: float


class BudgetShown(msgspec.Struct, frozen=True, kw_only=True):
    """One budget. Amounts are in its unit: tokens, US dollars, requests."""

    id: str
    unit: Unit
    limit: float
    committed: float
    reserved: float
    remaining: float
    used_share: float | None
    """Committed and reserved, of the limit; None where the limit is 0."""
    state: State
    window: WindowShown | None
    burn_per_minute_1: float
    burn_per_minute_15: float
    exhausted_in_seconds: float | None
    """At the present pace; None if it outlives its window."""
    models: tuple[str, ...] | None
    tiers: tuple[str, ...] | None
    on_exhausted: str


class TenantShown(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant. `used_share` is that of the budget that is nearest to its end."""

    tenant: str
    plan: str
    state: State
    used_share: float
    budgets: list[BudgetShown]
    budgets_left_out: int


async def tenant_shown(
    books: Books, tenant: str, now: float, burn: Callable[[str, str], Burn]
) -> TenantShown:
    """Look at all budgets of a tenant, that the settings know, as they stand now."""
    settings = books.policy.tenants[tenant]
    budgets = settings.budgets[:BUDGETS_SHOWN_MAX]
    standings = await books.ledger.standing(tenant, claims_on(budgets))
    shown = [
        _budget_shown(budget, standing, now, burn(tenant, budget.id))
        for budget, standing in zip(budgets, standings, strict=True)
    ]
    return TenantShown(
        tenant=tenant,
        plan=settings.plan,
        state=state_of_tenant(settings.budgets, [one.state for one in shown]),
        used_share=max((one.used_share or 0.0 for one in shown), default=0.0),
        budgets=shown,
        budgets_left_out=len(settings.budgets) - len(budgets),
    )


def state_of(budget: Budget, used: int) -> State:
    """Say how near its end a budget is of which `used` is committed or reserved."""
    limit = budget.limit_units
    if limit == 0:
        return "suspended"
    if used >= limit:
        return "exhausted"
    return "warn" if used >= limit * min(budget.warn_at, default=WARN_AT) else "ok"


def state_of_tenant(budgets: Sequence[Budget], states: Sequence[State]) -> State:
    """The worst of its budgets' states. A budget of some models can't suspend the tenant."""
    if any(budget.is_suspension for budget in budgets):
        return "suspended"
    worst: tuple[State, ...] = ("exhausted", "warn")
    return next((state for state in worst if state in states), "ok")


def window_text(window: Window | None) -> str:
    """Name a window as the settings do."""
    if window is None:
        return ""
    if window.seconds is not None:
        return f"{window.seconds} s"
    zone = "" if window.timezone == "UTC" else f", {window.timezone}"
    return f"{window.calendar}{zone}"


def _budget_shown(budget: Budget, standing: Standing, now: float, burn: Burn) -> BudgetShown:
    balance, committed, reserved = standing
    one = MICRO_USD_PER_USD if budget.unit == "usd" else 1
    used = committed + reserved
    span = budget.window.span(now) if budget.window is not None else None
    return BudgetShown(
        id=budget.id,
        unit=budget.unit,
        limit=budget.limit_units / one,
        committed=committed / one,
        reserved=reserved / one,
        remaining=balance.remaining / one,
        used_share=used / budget.limit_units if budget.limit_units else None,
        state=state_of(budget, used),
        window=span
        and WindowShown(text=window_text(budget.window), start=span.start, end=span.end),
        burn_per_minute_1=burn.minute / one,
        burn_per_minute_15=burn.quarter / one,
        exhausted_in_seconds=exhausted_in_seconds(balance.remaining, burn, span, now),
        models=budget.models,
        tiers=budget.tiers,
        on_exhausted=budget.on_exhausted,
    )


def exhausted_in_seconds(remaining: int, burn: Burn, span: Span | None, now: float) -> float | None:
    """How long what remains lasts at the present pace; None if the window ends before.

    Where the window is short, the present is the last minute.
    """
    if span is None:
        return None
    is_short = span.end - span.start <= RATE_WINDOW_SECONDS_MAX
    per_second = (burn.minute if is_short else burn.quarter) / 60
    if per_second <= 0:
        return None
    seconds = max(0, remaining) / per_second
    return seconds if now + seconds < span.end else None
