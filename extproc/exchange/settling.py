"""What a finished request is charged: pure, total, and decided by its `Outcome` alone.

In this order (`contract.md`, "Reservation and settlement"):

1. what never reached a model, and what was not answered with 2xx, costs nothing;
2. an answer costs what its provider says it used;
3. where the provider did not say, because the answer was cut off or it never does, it costs the
   counted prompt and what the meter counted of the answer, and is marked `estimated`.

The model that served is charged, not the one that was meant to: after a fallback they differ.
"""

from typing import Final, Literal, NamedTuple

from extproc.exchange.holds import Hold, holds_of
from extproc.exchange.outcome import Outcome
from extproc.exchange.places import served_model
from extproc.llm.dialects import Dialect
from extproc.llm.usage import Usage, usage_of
from extproc.policy.budgets import CHARGE_MAX, Charge, Settled, Settlement
from extproc.policy.decide import Policy
from extproc.policy.models import Price

Source = Literal["usage", "estimated", "zero"]
"""What a charge rests on."""

Kind = Literal["call", "refused", "unattributed", "other"]
"""What a record is about: a call that was let go, one that we refused, one that passed a filter
which failed open, or a request that was none of ours: another hop, another service."""

BYTES_PER_TOKEN: Final = 4
"""Of an answer in JSON without usage, its framing included: better high than low."""

UNSEEN_EVENTS_MAX: Final = 64
"""The meter notes its count every few chunks; an answer that was cut off had at most so many
events more."""


class Bill(NamedTuple):
    """What one request cost, whoever pays. `model` is the one that served."""

    source: Source
    model: str
    usage: Usage
    cost_micro_usd: int


class Summary(NamedTuple):
    """One finished request, as those who observe are told of it.

    `bill` is None where no model answered a call; `settled` says how the ledger took the
    settlement, None where there was none to take.
    """

    outcome: Outcome
    kind: Kind
    bill: Bill | None
    settled: Settled | None


def kind_of(outcome: Outcome) -> Kind:
    """Tell what a record is about."""
    match outcome.noted.outcome:
        case "routed":
            return "call"
        case "refused":
            return "refused"
        case _:
            return "unattributed" if outcome.noted.unattributed else "other"


def bill_of(policy: Policy, outcome: Outcome) -> Bill:
    """Say what a request cost that was let go, by us or by a filter that failed open."""
    source, usage = _used(outcome)
    noted = outcome.noted
    model = served_model(policy.models, noted.served_model or noted.model, outcome.place)
    return Bill(source, model, usage, _price(policy, outcome, model).cost_micro_usd(usage))


def settlement_of(outcome: Outcome, bill: Bill) -> Settlement | None:
    """Say what its budgets are charged; None where nothing was held that could be read."""
    noted = outcome.noted
    holds = holds_of(noted.reserved)
    if not noted.reservation or holds is None:
        return None
    is_request = bill.source != "zero" or outcome.was_answered
    charges = tuple(
        Charge(
            hold.budget,
            hold.window_start,
            min(CHARGE_MAX, _amount(hold, bill, is_request=is_request)),
        )
        for hold in holds
    )
    return Settlement(noted.reservation, noted.tenant, charges)


def _amount(hold: Hold, bill: Bill, *, is_request: bool) -> int:
    match hold.unit:
        case "tokens":
            return bill.usage.total
        case "usd":
            return bill.cost_micro_usd
        case "requests":
            return int(is_request)
        case "concurrent_requests":
            return 0


def _price(policy: Policy, outcome: Outcome, model: str) -> Price:
    """The price of the model that served; of that which stands for unknown ones, if it is one."""
    noted = outcome.noted
    if (
        model == noted.model
        and noted.requested_model not in policy.models
        and policy.unknown_model in policy.models
    ):
        model = policy.unknown_model
    return policy.models[model].usd_per_million if model in policy.models else Price()


def _used(outcome: Outcome) -> tuple[Source, Usage]:
    noted = outcome.noted
    is_free = noted.dialect is Dialect.ANTHROPIC_COUNT_TOKENS
    if is_free or not (outcome.was_answered or _was_abandoned(outcome)):
        return "zero", Usage()
    usage = usage_of(noted.usage, noted.usage_start) if noted.usage else None
    if usage is not None:
        return "usage", usage
    begun = usage_of("", noted.usage_start) or Usage(noted.prompt_tokens)
    return "estimated", begun._replace(completion=max(begun.completion, _counted_output(outcome)))


def _was_abandoned(outcome: Outcome) -> bool:
    """Whether the client left while the model was at work: it has read the prompt."""
    return (
        outcome.status == 0 and bool(outcome.place.host) and outcome.timing.request_sent is not None
    )


def _counted_output(outcome: Outcome) -> int:
    """Tokens of an answer that nobody told: one an event; the unnoted rest in proportion."""
    noted = outcome.noted
    if noted.events and noted.bytes:
        unseen = max(0, outcome.bytes_sent - noted.bytes) * noted.events // noted.bytes
        return noted.events + min(unseen, UNSEEN_EVENTS_MAX)
    has_output = noted.dialect is None or noted.dialect.has_output
    if noted.stream or not has_output:
        return 0
    return -(-noted.bytes // BYTES_PER_TOKEN)
