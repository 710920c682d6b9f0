"""The whole decision about one request: one pure function, and its trail.

`decide` is a generator: it yields what it asks of the ledger and is sent the answer, so that
the way of a request can be read from top to bottom and needs no I/O. Whoever drives it (the
exchange, `explain`, a test) brings the ledger.
"""

from collections.abc import Generator, Iterator, Mapping
from typing import Final, NamedTuple

from extproc.llm.errors import Fault
from extproc.llm.prompt import PromptCount, TextCounter
from extproc.llm.record import Record
from extproc.llm.request import LlmRequest
from extproc.policy.budgets import (
    Answer,
    Balance,
    Budget,
    Claim,
    DecidedBy,
    Demand,
    Denied,
    Reserve,
    Reserved,
    Unavailable,
    claims_of,
)
from extproc.policy.complexity import Complexity, Score, score_of
from extproc.policy.counts import Counts
from extproc.policy.identity import Evidence, IdentitySource, identify
from extproc.policy.models import Model
from extproc.policy.refusals import Refused, refuse_denied
from extproc.policy.tenants import Tenant
from extproc.policy.tiers import Facts, Rule, Tier, Verdict, choose_tier

REJECT: Final = "reject"
DENY: Final = "deny"
COUNT_ONLY: Final = "count_only"


class Policy(NamedTuple):
    """The settings that decide, as one frozen value: an exchange keeps the one it began with."""

    identity: tuple[IdentitySource, ...]
    keys: Mapping[str, str]
    """SHA-256 of an API key, in lower-case hex, to its tenant."""
    unknown_tenant: str
    unknown_model: str
    models: Mapping[str, Model]
    tiers: Mapping[str, Tier]
    plans: Mapping[str, tuple[Rule, ...]]
    tenants: Mapping[str, Tenant]
    complexity: Complexity


class Admitted(Record, frozen=True):
    """A tenant that we know, and how we know it."""

    tenant: str
    source: str


class Inquiry(Record, frozen=True):
    """One request of one tenant, read and ready to be decided."""

    admitted: Admitted
    headers: Mapping[str, str]
    path: str
    request: LlmRequest
    reservation: str


class Routed(Record, frozen=True):
    """The request may go: where to, and what is held for it."""

    tier: str
    model: str
    priority: int
    prompt_tokens: int
    claims: tuple[Claim, ...]
    balances: tuple[Balance, ...]
    window_starts: tuple[float, ...]
    """Of the claims, in their order: see `Reserved`."""
    downgraded_from: str
    """The tier that the rules chose, where it is another one; else empty."""
    decided_by: DecidedBy = ""


class Tried(Record, frozen=True):
    """One tier that was considered; `failure` says why it was not taken, or is empty."""

    tier: str
    model: str
    prompt_tokens: int
    claims: tuple[Claim, ...]
    failure: str


class Decision(Record, frozen=True):
    """What was decided, and every step that led there."""

    outcome: Routed | Refused
    admitted: Admitted
    plan: str
    request: LlmRequest
    counted_for: str
    """The model in whose tokens the rules saw the prompt."""
    prompt_count: PromptCount
    score: Score
    verdicts: tuple[Verdict, ...]
    tried: tuple[Tried, ...]


def admit(policy: Policy, evidence: Evidence) -> Admitted | Refused:
    """Say who asks, or refuse; needs no body."""
    found = identify(policy.identity, policy.keys, evidence)
    name = found.name if found is not None and found.name in policy.tenants else None
    if name is not None and found is not None:
        admitted = Admitted(name, found.source)
    elif policy.unknown_tenant == REJECT:
        # Which of the two it was is not told: names of tenants are not for guessing.
        return Refused(Fault.UNKNOWN_TENANT, "The API key or tenant is missing or not known.")
    else:
        admitted = Admitted(policy.unknown_tenant, "unknown_tenant")
    if policy.tenants[admitted.tenant].is_suspended:
        return Refused(Fault.TENANT_SUSPENDED, "This tenant is suspended.")
    return admitted


def decide(
    policy: Policy, inquiry: Inquiry, counter: TextCounter
) -> Generator[Reserve, Answer, Decision]:
    """Decide about one request; yields what the ledger is asked, one tier at a time."""
    request = inquiry.request
    plan = policy.tenants[inquiry.admitted.tenant].plan
    counts = Counts(policy.models, request, counter)
    counted_for = _asked_model(policy, plan, request)
    count = counts.of(counted_for)
    score = score_of(policy.complexity, request, prompt_tokens=count.tokens)
    facts = Facts(request, inquiry.headers, inquiry.path, score.value, count.tokens)
    verdicts = choose_tier(policy.plans[plan], facts)
    tried: tuple[Tried, ...] = ()
    if request.model not in policy.models and policy.unknown_model == DENY:
        message = "The model does not exist or is not offered here."
        outcome: Routed | Refused = Refused(Fault.UNKNOWN_MODEL, message, param="model")
    else:
        outcome, tried = yield from _take(policy, inquiry, counts, verdicts[-1].tier)
    return Decision(
        outcome,
        inquiry.admitted,
        plan,
        request,
        counted_for,
        count,
        score,
        verdicts,
        tried,
    )


def _take(
    policy: Policy, inquiry: Inquiry, counts: Counts, chosen: str
) -> Generator[Reserve, Answer, tuple[Routed | Refused, tuple[Tried, ...]]]:
    """Try the chosen tier, then those that it downgrades to, until one has room.

    At the end of the chain the client learns of a budget rather than of a context that is too
    small: for the former it may wait.
    """
    budgets = policy.tenants[inquiry.admitted.tenant].budgets
    tried: list[Tried] = []
    refusals: list[Refused] = []
    for name in _chain(policy.tiers, chosen):
        tier = policy.tiers[name]
        offer = _offer(policy, inquiry.request, counts, name, budgets)
        outcome = yield from _ask(inquiry, offer, budgets)
        failure = outcome.message if isinstance(outcome, Refused) else ""
        tried.append(Tried(name, tier.model, offer.prompt_count.tokens, offer.claims, failure))
        if isinstance(outcome, Reserved):
            downgraded_from = chosen if name != chosen else ""
            return _routed(name, tier, offer, outcome, downgraded_from), tuple(tried)
        if not outcome.may_downgrade:
            return outcome, tuple(tried)
        refusals.append(outcome)
    hopeful = (refusal for refusal in refusals if refusal.fault is Fault.RATE_LIMITED)
    return next(hopeful, refusals[-1]), tuple(tried)


def _chain(tiers: Mapping[str, Tier], chosen: str) -> Iterator[str]:
    """The chosen tier and those that it downgrades to; settings with a cycle are refused."""
    name: str | None = chosen
    while name is not None:
        yield name
        name = tiers[name].downgrade_to


class _Offer(Record, frozen=True):
    """What serving the request in one tier takes."""

    tier: str
    model: Model
    prompt_count: PromptCount
    claims: tuple[Claim, ...]


def _offer(
    policy: Policy, request: LlmRequest, counts: Counts, tier: str, budgets: tuple[Budget, ...]
) -> _Offer:
    model_name = policy.tiers[tier].model
    model = policy.models[model_name]
    count = counts.of(model_name)
    demand = Demand(
        prompt_tokens=count.tokens_max,
        output_tokens_named=request.output_tokens_max,
        choices=request.choices,
        has_output=request.dialect.has_output,
    )
    priced = model
    if request.model not in policy.models and policy.unknown_model in policy.models:
        priced = policy.models[policy.unknown_model]
    claims = claims_of(budgets, tier=tier, model_name=model_name, model=priced, demand=demand)
    return _Offer(tier, model, count, claims)


def _ask(
    inquiry: Inquiry, offer: _Offer, budgets: tuple[Budget, ...]
) -> Generator[Reserve, Answer, Reserved | Refused]:
    """Hold what the offer takes, or say why it can't be."""
    excess = offer.prompt_count.tokens_min - offer.model.context_tokens
    if excess > 0:
        return Refused(
            Fault.CONTEXT_EXCEEDED,
            f"The prompt is about {excess} tokens longer than the context of"
            f" {offer.model.context_tokens} tokens of tier {offer.tier!r}.",
            param="messages",
            may_downgrade=True,
        )
    for claim in offer.claims:
        if claim.amount > claim.limit > 0:
            return Refused(
                Fault.BUDGET_TOO_SMALL,
                f"Budget {claim.budget!r} can never hold this request: it takes"
                f" {claim.amount - claim.limit} {_unit(claim)} more than the whole limit."
                " Ask for less output or send a shorter prompt.",
                may_downgrade=claim.budget in _movable(budgets),
            )
    if not offer.claims:
        return Reserved(inquiry.reservation, (), ())
    answer = yield Reserve(inquiry.reservation, inquiry.admitted.tenant, offer.claims)
    match answer:
        case Reserved():
            return answer
        case Denied(exhausted, decided_by):
            movable = _movable(budgets)
            may_downgrade = all(balance.budget in movable for balance in exhausted)
            refused = refuse_denied(
                exhausted, reservation=inquiry.reservation, may_downgrade=may_downgrade
            )
            return refused._replace(decided_by=decided_by)
        case Unavailable(_, decided_by):
            message = "Budgets cannot be checked at the moment."
            return Refused(
                Fault.LEDGER_UNAVAILABLE, message, retry_after_seconds=1, decided_by=decided_by
            )


def _movable(budgets: tuple[Budget, ...]) -> set[str]:
    """Those that a request may leave for a cheaper tier when they are used up."""
    return {budget.id for budget in budgets if budget.on_exhausted == "downgrade"}


def _routed(
    name: str, tier: Tier, offer: _Offer, reserved: Reserved, downgraded_from: str
) -> Routed:
    return Routed(
        name,
        tier.model,
        tier.priority,
        offer.prompt_count.tokens,
        offer.claims,
        reserved.balances,
        reserved.window_starts,
        downgraded_from,
        reserved.decided_by,
    )


def _asked_model(policy: Policy, plan: str, request: LlmRequest) -> str:
    """The model in whose tokens the rules see the prompt.

    The one asked for; where we don't know it, the one that stands for unknown models or that
    of the plan's last tier.
    """
    if request.model in policy.models:
        return request.model
    if policy.unknown_model in policy.models:
        return policy.unknown_model
    return policy.tiers[policy.plans[plan][-1].tier].model


def _unit(claim: Claim) -> str:
    return "micro-dollars" if claim.unit == "usd" else claim.unit
