"""Budgets: what a tenant may use in which window, and what one request takes of it.

Amounts are integers: tokens, micro-dollars, requests. The ledger keeps the sums; what is
asked of it and what it answers is said here.
"""

from collections.abc import Sequence
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from extproc.llm.record import Record
from extproc.policy.models import Model
from extproc.policy.section import Section, matches_any
from extproc.policy.windows import Span, Window

__all__ = [
    "Answer",
    "Balance",
    "Budget",
    "Charge",
    "Claim",
    "DecidedBy",
    "Demand",
    "Denied",
    "Reserve",
    "Reserved",
    "Settled",
    "Settlement",
    "Span",
    "Unavailable",
    "Unit",
    "Window",
    "claims_of",
    "claims_on",
    "is_rate",
]

MICRO_USD_PER_USD: Final = 1_000_000
RATE_WINDOW_SECONDS_MAX: Final = 3600
"""Up to an hour a client does well to wait and try again; beyond it the quota is gone."""

Unit = Literal["tokens", "usd", "requests", "concurrent_requests"]
BudgetId = Annotated[
    str,
    msgspec.Meta(
        pattern="^[a-z0-9][a-z0-9_.-]{0,62}$",
        description="a name of up to 63 of a-z, 0-9, _, . and -, beginning with a-z or 0-9",
    ),
]


class Budget(Section, frozen=True, kw_only=True, dict=True):
    """A limit of a tenant. Where `models` or `tiers` are given it is about those only."""

    id: BudgetId
    limit: Annotated[Decimal, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 10**15})]
    unit: Unit
    window: Window | None = None
    models: tuple[str, ...] | None = None
    tiers: tuple[str, ...] | None = None
    on_exhausted: Literal["refuse", "downgrade"] = "refuse"
    reserve: Literal["expected", "maximum"] = "expected"
    warn_at: tuple[Annotated[float, msgspec.Meta(gt=0, lt=1)], ...] = ()

    @cached_property
    def limit_units(self) -> int:
        """The limit in the budget's integer unit, rounded down: tokens, micro-dollars, requests."""
        return int(self.limit * MICRO_USD_PER_USD) if self.unit == "usd" else int(self.limit)

    def covers(self, *, tier: str, model: str) -> bool:
        """Whether a call of `model` in `tier` counts against this budget."""
        return (self.tiers is None or tier in self.tiers) and (
            self.models is None or matches_any(self.models, model)
        )

    @property
    def is_suspension(self) -> bool:
        """Whether nothing at all is allowed, whatever is asked."""
        return self.limit == 0 and self.models is None and self.tiers is None


class Demand(Record, frozen=True):
    """What one request may use of a model: tokens, before any budget looks at it."""

    prompt_tokens: int
    output_tokens_named: int | None
    """The request's own maximum."""
    choices: int
    has_output: bool


class Claim(NamedTuple):
    """What one reservation takes of one budget.

    `amount` is held back until the settlement; `expected`, never more than that, is charged if
    none ever comes. Where there is no `window` the claim is about what is in flight, and
    nothing is ever charged.
    """

    budget: str
    unit: Unit
    limit: int
    window: Window | None
    amount: int
    expected: int


class Reserve(NamedTuple):
    """Ask the ledger to hold all `claims` of `tenant` under `reservation`, or none of them."""

    reservation: str
    tenant: str
    claims: tuple[Claim, ...]


class Balance(NamedTuple):
    """How a budget stands. `remaining` counts what is held as gone."""

    budget: str
    unit: Unit
    limit: int
    remaining: int
    reset_seconds: float | None
    """Until the window ends; None where there is no window."""
    window_seconds: float | None


DecidedBy = Literal["", "local_share", "allow", "deny"]
"""What decided: the policy for a store that is away (`when_unavailable`); empty if it was there."""


class Reserved(NamedTuple):
    """All claims are held; the balances are those after it, in the order of the claims.

    `window_starts`, in the same order, name the windows that the ledger chose: seconds since
    1970, 0 where a claim has none.
    """

    reservation: str
    balances: tuple[Balance, ...]
    window_starts: tuple[float, ...]
    decided_by: DecidedBy = ""


class Denied(NamedTuple):
    """Nothing is held. The budgets that had no room, in the order of the claims."""

    exhausted: tuple[Balance, ...]
    decided_by: DecidedBy = ""


class Unavailable(NamedTuple):
    """The ledger cannot tell."""

    reason: str
    decided_by: DecidedBy = ""


Answer = Reserved | Denied | Unavailable


CHARGE_MAX: Final = 10**15
"""Of one settlement to one budget, so that sums of them fit into what a file or server counts."""


class Charge(NamedTuple):
    """What a finished request used of one budget, from 0 to `CHARGE_MAX`.

    `window_start` is that of the window in which it was admitted, 0 where there is none. It
    counts only where the ledger does not know the reservation, or knows it without this budget.
    """

    budget: str
    window_start: float
    amount: int


class Settlement(NamedTuple):
    """The outcome of one request: all that is needed to charge it.

    Amounts may exceed what was held: the tenant pays for what was used. A budget that was
    claimed and is not charged is given back whole.
    """

    reservation: str
    tenant: str
    charges: tuple[Charge, ...]


Settled = Literal["settled", "late", "unknown", "repeated", "unavailable"]
"""How a settlement was taken: in time; after expiry; without its reservation; again; not at all.

After `unavailable` nothing is charged: the record must come again.
"""


def claims_of(
    budgets: tuple[Budget, ...], *, tier: str, model_name: str, model: Model, demand: Demand
) -> tuple[Claim, ...]:
    """What `demand` takes of each budget that covers this tier and model."""
    return tuple(
        [
            _claim(budget, model, demand)
            for budget in budgets
            if budget.covers(tier=tier, model=model_name)
        ]
    )


def _claim(budget: Budget, model: Model, demand: Demand) -> Claim:
    unit = budget.unit
    allowance = _allowance(model, demand, "expected")
    amount = expected = _amount(unit, model, demand, allowance)
    if budget.reserve == "maximum":
        amount = _amount(unit, model, demand, _allowance(model, demand, "maximum"))
    if unit == "concurrent_requests":
        expected = 0  # the slot is free again, and nothing of it lasts
    return Claim(budget.id, unit, budget.limit_units, budget.window, amount, expected)


def _allowance(model: Model, demand: Demand, reserve: str) -> int:
    """Output tokens of one answer to set aside."""
    if not demand.has_output:
        return 0
    if demand.output_tokens_named is not None:
        return min(demand.output_tokens_named, model.output_tokens_max)
    return model.output_tokens_max if reserve == "maximum" else model.output_expected()


def _amount(unit: Unit, model: Model, demand: Demand, allowance: int) -> int:
    output_tokens = allowance * demand.choices
    match unit:
        case "tokens":
            return demand.prompt_tokens + output_tokens
        case "usd":
            return model.usd_per_million.micro_usd(
                prompt_tokens=demand.prompt_tokens, output_tokens=output_tokens
            )
        case "requests" | "concurrent_requests":
            return 1


def claims_on(budgets: Sequence[Budget]) -> list[Claim]:
    """What names the budgets to a ledger, and takes nothing of them."""
    return [Claim(one.id, one.unit, one.limit_units, one.window, 0, 0) for one in budgets]


def is_rate(balance: Balance) -> bool:
    """Whether waiting is a sensible answer: the window is short, or there is none."""
    if balance.limit == 0:
        return False
    return balance.window_seconds is None or balance.window_seconds <= RATE_WINDOW_SECONDS_MAX
