"""Why a request gets what it gets: the decision's own trail, as data and as text.

Nothing is decided here. The exchange is run as the service runs it, over budgets of which
nothing is used yet.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from extproc import app
from extproc.config.loader import Loaded
from extproc.exchange import actions
from extproc.exchange.events import RequestBody, RequestHeaders
from extproc.exchange.machine import Exchange
from extproc.exchange.trail import outcome_of, trail_of
from extproc.ledgers import empty_ledger
from extproc.policy.budgets import Balance, Reserve
from extproc.server.rulebook import rules_of


class Question(NamedTuple):
    """One request to explain. `claims` are those of a verified token."""

    path: str
    headers: Mapping[str, str]
    claims: Mapping[str, str]
    peer_uri: str
    body: bytes


def explain(loaded: Loaded, question: Question) -> dict[str, Any]:
    """Decide about `question` with these settings; return every step, ready for JSON."""
    exchange = Exchange(rules_of(loaded), app.counter_of(loaded), reservation=app.new_reservation())
    action = asyncio.run(_run(exchange, loaded, question))
    told: dict[str, Any] = {}
    if exchange.decision is not None:
        told = trail_of(exchange.decision)
    return told | {"outcome": outcome_of(action)}


async def _run(exchange: Exchange, loaded: Loaded, question: Question) -> actions.Verdict:
    ledger = empty_ledger(loaded, app.clock)
    headers = {":method": "POST", ":path": question.path, **question.headers}
    head = RequestHeaders(headers, not question.body, {"": question.claims}, question.peer_uri)
    action = exchange.receive(head)
    while not isinstance(action, actions.Verdict):
        if isinstance(action, Reserve):
            action = exchange.receive(await ledger.reserve(action))
        else:
            action = exchange.receive(RequestBody(question.body))
    return action


NOTHING_USED: Final = "as if nothing were used yet"


def text_of(told: Mapping[str, Any], *, budgets: str = NOTHING_USED) -> str:
    """The same for people: one subject a paragraph, in the order of the decision.

    `budgets` says of what moment their balances are.
    """
    lines: list[str] = []
    if "tenant" in told:
        lines += _decided_text(told, budgets)
    outcome = told["outcome"]
    lines.append(f"outcome     {_outcome_text(outcome)}")
    lines += [
        f"              {name}: {value}" for name, value in outcome.get("headers", {}).items()
    ]
    if "body" in outcome:
        lines.append(f"              {outcome['body']}")
    return "\n".join(lines)


def _decided_text(told: Mapping[str, Any], budgets: str) -> list[str]:
    tenant, request, tokens = told["tenant"], told["request"], told["prompt_tokens"]
    exact = (
        "exact"
        if tokens["at_least"] == tokens["at_most"]
        else (f"between {tokens['at_least']} and {tokens['at_most']}")
    )
    lines = [
        f"tenant      {tenant['name']} (told by {tenant['told_by']}), plan {tenant['plan']}",
        f"request     {request['dialect']}, model {request['model']}"
        + (", streamed" if request["stream"] else ""),
        f"tokens      {tokens['total']} in the prompt, as {tokens['counted_for']} counts ({exact})",
    ]
    lines += [f"              {name:<14}{part:>8}" for name, part in tokens["parts"].items()]
    lines.append(f"complexity  {told['complexity']['score']:.2f}")
    lines += [
        f"              {reason['feature']:<14}{reason['value']:>8}  +{reason['points']:.3f}"
        for reason in told["complexity"]["reasons"]
    ]
    lines.append("rules")
    lines += [
        f"              {number}. {rule['tier']:<12}"
        + ("applies" if rule["applies"] else f"no: {rule['because']}")
        for number, rule in enumerate(told["rules"], 1)
    ]
    lines.append("tiers")
    lines += [f"              {_tier_text(tier)}" for tier in told["tiers"]]
    lines.append(f"budgets     {budgets}")
    lines += [f"              {_budget_text(Balance(**balance))}" for balance in told["budgets"]]
    return lines


def _tier_text(tier: Mapping[str, Any]) -> str:
    takes = ", ".join(f"{amount} of {budget}" for budget, amount in tier["takes"].items())
    verdict = "taken" if tier["taken"] else f"no: {tier['because']}"
    return f"{tier['tier']} ({tier['model']}), takes {takes or 'nothing'}: {verdict}"


def _budget_text(balance: Balance) -> str:
    unit = "micro-dollars" if balance.unit == "usd" else balance.unit
    text = f"{balance.budget}: {balance.remaining} of {balance.limit} {unit} left"
    if balance.reset_seconds is not None:
        text += f", starts anew in {balance.reset_seconds:.0f} s"
    return text


def _outcome_text(outcome: Mapping[str, Any]) -> str:
    match outcome["kind"]:
        case "routed":
            metadata = outcome["metadata"]
            return f"routed to tier {metadata['tier']}, model {metadata['model']}"
        case "rejected":
            return f"refused with {outcome['status']} ({outcome['details']})"
        case _:
            return str(outcome["because"])
