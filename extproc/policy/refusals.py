"""Why a request is not served, as a value that any dialect can be told."""

import math
from typing import Final, NamedTuple

from extproc.llm.errors import Fault
from extproc.policy.budgets import Balance, DecidedBy, is_rate

JITTER_SHARE: Final = 0.1
JITTER_SECONDS_MAX: Final = 5.0
"""Clients that were refused together must not all come back together."""

OVERLOADED_SECONDS_MAX: Final = 5
"""Within which those that came at a bad time are to come back, each at another."""


class Refused(NamedTuple):
    """An answer in place of the model's. `message` names the budget, never the spend."""

    fault: Fault
    message: str
    param: str | None = None
    balances: tuple[Balance, ...] = ()
    retry_after_seconds: int | None = None
    may_downgrade: bool = False
    decided_by: DecidedBy = ""
    """What refused, where the store of budgets was away."""


def refuse_denied(
    exhausted: tuple[Balance, ...], *, reservation: str, may_downgrade: bool
) -> Refused:
    """Turn the ledger's denial into a refusal that names the budget to wait longest for."""
    last = max(exhausted, key=lambda balance: (not is_rate(balance), balance.reset_seconds or 0))
    if last.limit == 0:
        message = f"Budget {last.budget!r} is suspended."
        fault = Fault.TENANT_SUSPENDED
    elif is_rate(last):
        fault = Fault.RATE_LIMITED
        message = f"Rate limit: budget {last.budget!r} ({_limit(last)}) has no room for this."
    else:
        fault = Fault.BUDGET_EXHAUSTED
        message = f"Budget {last.budget!r} ({_limit(last)}) is exhausted."
    is_rate_limited = fault is Fault.RATE_LIMITED
    return Refused(
        fault,
        message,
        balances=exhausted,
        retry_after_seconds=_retry_after(last, reservation) if is_rate_limited else None,
        may_downgrade=may_downgrade,
    )


def refuse_overloaded(reservation: str) -> Refused:
    """Say that there are more requests than can be decided in time."""
    return Refused(
        Fault.OVERLOADED,
        "There are more requests than can be looked at in time.",
        retry_after_seconds=1 + int(reservation[-4:], 16) % OVERLOADED_SECONDS_MAX,
    )


def _retry_after(balance: Balance, reservation: str) -> int:
    """Whole seconds, never before the window ends, spread by the reservation's own digits."""
    seconds = balance.reset_seconds if balance.reset_seconds is not None else 1.0
    spread = int(reservation[-4:], 16) / 0xFFFF
    return math.ceil(seconds + spread * min(JITTER_SECONDS_MAX, seconds * JITTER_SHARE))


def _limit(balance: Balance) -> str:
    if balance.unit == "usd":
        amount = f"{balance.limit / 1_000_000:g} USD"
    elif balance.unit == "concurrent_requests":
        amount = f"{balance.limit} requests at a time"
    else:
        amount = f"{balance.limit} {balance.unit}"
    if balance.window_seconds is None:
        return amount
    return f"{amount} per {_duration(balance.window_seconds)}"


def _duration(seconds: float) -> str:
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            number = int(seconds // length)
            return name if number == 1 else f"{number} {name}s"
    return f"{seconds:g} seconds"
