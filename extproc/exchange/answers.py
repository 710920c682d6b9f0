"""What goes back: a decision as headers, metadata and, if refused, a body of its own."""

from typing import Any, Final, NamedTuple

from extproc.exchange import names
from extproc.exchange.actions import Header, Reject, Route
from extproc.exchange.holds import holds_text
from extproc.llm.dialects import Dialect
from extproc.llm.errors import error_body
from extproc.policy.budgets import Balance, Budget
from extproc.policy.decide import Decision, Routed
from extproc.policy.refusals import Refused

RETRY_AFTER_SECONDS_MAX: Final = 60
"""The official SDKs ignore a longer Retry-After or give up on it; we tell them to give up."""

_ALWAYS_REMOVED: Final = (names.ACCEPT_ENCODING,)
"""A compressed answer can't be read by the meter on its way."""

_REMOVED_UNLESS_STREAMED: Final = (names.ACCEPT_ENCODING, names.STREAM)

_JSON: Final = ("content-type", b"application/json")


class Rewrite(NamedTuple):
    """A body to send instead.

    `asks_for_usage`: it asks for usage that the client did not ask for, so that the meter has
    to take it out of the answer.
    """

    body: bytes
    asks_for_usage: bool


def route(  # noqa: PLR0913  # each is a part of what goes back
    decision: Decision,
    routed: Routed,
    *,
    reservation: str,
    warnings: tuple[str, ...],
    rewrite: Rewrite | None,
    is_observed: bool,
) -> Route:
    """Let the request go, with another body where there is a `rewrite`.

    Where answers are observed, the request's own record says that it waits for that: settings
    may change in the meantime.
    """
    is_streamed = decision.request.is_streamed
    headers: list[Header] = [
        (names.TIER, routed.tier.encode()),
        (names.TENANT, decision.admitted.tenant.encode()),
        (names.PRIORITY, b"%d" % routed.priority),
        (names.MODEL, routed.model.encode()),
        (names.PROMPT_TOKENS, b"%d" % routed.prompt_tokens),
    ]
    if is_streamed:
        headers.append((names.STREAM, b"true"))
    if rewrite is not None:
        headers.append(("content-length", b"%d" % len(rewrite.body)))
    metadata = _metadata_of_route(decision, routed, reservation)
    if rewrite is not None and rewrite.asks_for_usage:
        metadata["strip_usage"] = True
    if is_observed:
        metadata["meter"] = names.OBSERVE
    if warnings:
        metadata["budget_warnings"] = ", ".join(warnings)
    removed = _ALWAYS_REMOVED if is_streamed else _REMOVED_UNLESS_STREAMED
    return Route(tuple(headers), removed, metadata, rewrite.body if rewrite is not None else None)


def _metadata_of_route(decision: Decision, routed: Routed, reservation: str) -> dict[str, Any]:
    metadata = metadata_of(decision)
    metadata["outcome"] = "routed"
    metadata["tier"] = routed.tier
    metadata["model"] = routed.model
    metadata["priority"] = routed.priority
    metadata["prompt_tokens"] = routed.prompt_tokens
    metadata["reservation"] = reservation
    metadata["reserved"] = holds_text(routed.claims, routed.window_starts)
    if routed.downgraded_from:
        metadata["downgraded_from"] = routed.downgraded_from
        metadata["reason"] = decision.tried[0].failure
    if routed.decided_by:
        metadata["budget_state"] = routed.decided_by
    _put_budget(metadata, routed.balances)
    return metadata


def metadata_of(decision: Decision) -> dict[str, Any]:
    """What is known of a request once it was decided, whatever the outcome."""
    request = decision.request
    known: dict[str, Any] = {
        "tenant": decision.admitted.tenant,
        "identity": decision.admitted.source,
        "plan": decision.plan,
        "dialect": request.dialect.value,
        "requested_model": request.model,
        "stream": request.is_streamed,
        "complexity": round(decision.score.value, 4),
        "prompt_tokens": decision.prompt_count.tokens,
    }
    if request.temperature is not None:
        known["temperature"] = request.temperature
    if request.output_tokens_max is not None:
        known["output_tokens_max"] = request.output_tokens_max
    return known


def reject(dialect: Dialect, refused: Refused, metadata: dict[str, Any]) -> Reject:
    """Answer the client in its own dialect; `metadata` is what was known by then."""
    fault = refused.fault
    headers: list[Header] = [_JSON]
    if refused.retry_after_seconds is not None:
        headers.append(("retry-after", b"%d" % refused.retry_after_seconds))
    if fault.status == 429 and (refused.retry_after_seconds or 1e9) > RETRY_AFTER_SECONDS_MAX:  # noqa: PLR2004
        headers.append(("x-should-retry", b"false"))
    headers.extend(_budget_headers(refused.balances))
    metadata = metadata | {"outcome": "refused", "reason": fault.value, "dialect": dialect.value}
    if refused.decided_by:
        headers.append((names.BUDGET_STATE, refused.decided_by.encode()))
        metadata["budget_state"] = refused.decided_by
    _put_budget(metadata, refused.balances)
    body = error_body(dialect, fault, refused.message, param=refused.param)
    return Reject(fault.status, tuple(headers), body, names.DETAILS_PREFIX + fault, metadata)


def warnings_of(budgets: tuple[Budget, ...], balances: tuple[Balance, ...]) -> tuple[str, ...]:
    """The highest share of `warn_at` that each budget has reached: `month 0.8`."""
    shares = {budget.id: budget.warn_at for budget in budgets if budget.warn_at}
    if not shares:
        return ()
    found = []
    for balance in balances:
        used = balance.limit - balance.remaining
        reached = [at for at in shares.get(balance.budget, ()) if used >= at * balance.limit]
        if reached:
            found.append(f"{balance.budget} {max(reached):g}")
    return tuple(found)


def tightest(balances: tuple[Balance, ...]) -> Balance | None:
    """The budget with the smallest share left."""
    if len(balances) < 2:  # noqa: PLR2004  # nothing to compare
        return balances[0] if balances else None
    return min(balances, key=_share_left)


def _share_left(balance: Balance) -> float:
    return balance.remaining / balance.limit if balance.limit else -1.0


def _put_budget(metadata: dict[str, Any], balances: tuple[Balance, ...]) -> None:
    balance = tightest(balances)
    if balance is None:
        return
    metadata["budget_policy"] = balance.budget
    metadata["budget_unit"] = balance.unit
    metadata["budget_limit"] = balance.limit
    metadata["budget_remaining"] = balance.remaining
    if balance.reset_seconds is not None:
        metadata["budget_reset"] = round(balance.reset_seconds, 3)
    if balance.window_seconds is not None:
        metadata["budget_window"] = balance.window_seconds


def _budget_headers(balances: tuple[Balance, ...]) -> list[Header]:
    """Ours, and those of draft-ietf-httpapi-ratelimit-headers (structured fields, integers)."""
    balance = tightest(balances)
    if balance is None:
        return []
    reset = b"%d" % -(-(balance.reset_seconds or 0) // 1)
    headers = [
        ("x-llm-budget-policy", balance.budget.encode()),
        ("x-llm-budget-limit", b"%d" % balance.limit),
        ("x-llm-budget-remaining", b"%d" % balance.remaining),
    ]
    if balance.reset_seconds is not None:
        headers.append(("x-llm-budget-reset", reset))
    policy = b", ".join(map(_policy_item, balances))
    state = b'"%b";r=%d' % (balance.budget.encode(), balance.remaining)
    if balance.reset_seconds is not None:
        state += b";t=" + reset
    return [*headers, ("ratelimit-policy", policy), ("ratelimit", state)]


def _policy_item(balance: Balance) -> bytes:
    """One item of RateLimit-Policy; tokens and money are no registered units, hence `llm-unit`."""
    item = b'"%b";q=%d' % (balance.budget.encode(), balance.limit)
    if balance.window_seconds is not None:
        item += b";w=%d" % balance.window_seconds
    if balance.unit == "concurrent_requests":
        return item + b';qu="concurrent-requests"'
    if balance.unit in ("tokens", "usd"):
        unit = "micro-usd" if balance.unit == "usd" else "tokens"
        item += b';llm-unit="%b"' % unit.encode()
    return item
