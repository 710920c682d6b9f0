"""Whether amounts and windows make sense together: budgets, and what models take and cost."""

from collections.abc import Iterator
from decimal import Decimal
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from extproc.config.problems import Finding, Steps, did_you_mean, quoted
from extproc.config.settings import Settings
from extproc.policy.budgets import MICRO_USD_PER_USD, Budget, Window
from extproc.policy.models import Model

USD_MAX: Final = 10**9
PRICE_DECIMALS_MAX: Final = 12
SCOPES: Final = ("models", "tiers")


def check_amounts(settings: Settings) -> Iterator[Finding]:
    """Find amounts that contradict each other or mean nothing."""
    for name, model in settings.models.items():
        yield from _model(model, ("models", name))
    allowed = settings.limits.tenants
    if len(settings.tenants) > allowed:
        message = f"{len(settings.tenants)} tenants; $.limits.tenants allows {allowed}"
        yield Finding(("tenants",), message, (("limits", "tenants"),))
    for name, tenant in settings.tenants.items():
        numbers: dict[str, int] = {}
        for number, budget in enumerate(tenant.budgets):
            at = ("tenants", name, "budgets", number)
            first = numbers.setdefault(budget.id, number)
            if first != number:
                message = f"{quoted(budget.id)} is the id of budgets[{first}]; each has its own"
                needs = (("tenants", name, "budgets", first, "id"),)
                yield Finding((*at, "id"), message, needs)
            yield from _budget(budget, at)


def _model(model: Model, at: Steps) -> Iterator[Finding]:
    rising = ("output_tokens_expected", "output_tokens_max", "context_tokens")
    for lower, upper in pairwise(rising):
        least, most = getattr(model, lower), getattr(model, upper)
        if least is not None and least > most:
            message = f"{least} is more than {upper}, {most}"
            yield Finding((*at, lower), message, ((*at, upper),))
    price = model.usd_per_million
    for name in price.__struct_fields__:
        amount = getattr(price, name)
        if amount is not None and _decimals(amount) > PRICE_DECIMALS_MAX:
            message = f"a price has up to {PRICE_DECIMALS_MAX} decimals"
            yield Finding((*at, "usd_per_million", name), message)


def _budget(budget: Budget, at: Steps) -> Iterator[Finding]:
    yield from _limit(budget, at)
    yield from _window(budget, at)
    for scope in SCOPES:
        if getattr(budget, scope) == ():
            message = f"empty: this budget counts nothing; leave {scope} out to count all"
            yield Finding((*at, scope), message)
    if any(later <= earlier for earlier, later in pairwise(budget.warn_at)):
        needs = tuple((*at, "warn_at", number) for number in range(len(budget.warn_at)))
        yield Finding((*at, "warn_at"), "each share must be above the one before it", needs)


def _limit(budget: Budget, at: Steps) -> Iterator[Finding]:
    needs = ((*at, "unit"),)
    if budget.unit != "usd":
        if budget.limit != budget.limit.to_integral_value():
            message = f"expected a whole number of {budget.unit}, got {budget.limit:f}"
            yield Finding((*at, "limit"), message, needs)
        return
    micro_usd = budget.limit * MICRO_USD_PER_USD
    if micro_usd != micro_usd.to_integral_value():
        message = f"expected up to 6 decimals (micro-dollars), got {budget.limit:f}"
        yield Finding((*at, "limit"), message, needs)
    if budget.limit > USD_MAX:
        yield Finding((*at, "limit"), f"expected up to {USD_MAX} usd, got {budget.limit:f}", needs)


def _window(budget: Budget, at: Steps) -> Iterator[Finding]:
    at = (*at, "window")
    needs = ((*at[:-1], "unit"),)
    if budget.unit == "concurrent_requests":
        if budget.window is not None:
            message = "calls at one time have no window; leave it out"
            yield Finding(at, message, needs)
    elif budget.window is None:
        message = 'missing; expected {seconds: 60} or {calendar: month, timezone: "UTC"}, say'
        yield Finding(at, message, needs)
    if budget.window is not None:
        yield from _span(budget.window, at)


def _span(window: Window, at: Steps) -> Iterator[Finding]:
    seconds, calendar, zone = (*at, "seconds"), (*at, "calendar"), (*at, "timezone")
    if (window.seconds is None) == (window.calendar is None):
        yield Finding(at, "expected one of seconds and calendar", (seconds, calendar))
    if window.calendar is None and window.timezone != "UTC":
        message = "only with calendar: windows of seconds are counted from 1970 in UTC"
        yield Finding(zone, message, (calendar,))
    if not _is_zone(window.timezone):
        message = f"no time zone named {quoted(window.timezone)}; {_zone_meant(window.timezone)}"
        yield Finding(zone, message)


@lru_cache(maxsize=4096)
def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _zone_meant(name: str) -> str:
    near = did_you_mean(name, sorted(_zones()))
    return f"did you mean {quoted(near)}?" if near else 'expected one as in "Europe/Berlin"'


_zones = cache(available_timezones)


def _decimals(amount: Decimal) -> int:
    return -int(amount.normalize().as_tuple().exponent)
