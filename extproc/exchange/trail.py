"""A decision's own trail, and what became of the request, as data that is ready for JSON."""

from typing import Any

import msgspec

from extproc.exchange import actions
from extproc.policy.decide import Decision


def trail_of(decision: Decision) -> dict[str, Any]:
    """Every step of the decision, in its order."""
    request, count = decision.request, decision.prompt_count
    balances = decision.outcome.balances
    return {
        "tenant": {
            "name": decision.admitted.tenant,
            "told_by": decision.admitted.source,
            "plan": decision.plan,
        },
        "request": {
            "dialect": request.dialect.value,
            "model": request.model,
            "stream": request.is_streamed,
            "messages": len(request.messages),
            "tools": len(request.tools),
            "images": request.images,
            "output_tokens_max": request.output_tokens_max,
            "choices": request.choices,
            "temperature": request.temperature,
            "has_hidden_context": request.has_hidden_context,
        },
        "prompt_tokens": {
            "counted_for": decision.counted_for,
            "total": count.tokens,
            "at_least": count.tokens_min,
            "at_most": count.tokens_max,
            "parts": {name: tokens for name, tokens in count.parts.items() if tokens},
        },
        "complexity": {
            "score": round(decision.score.value, 4),
            "reasons": [
                {**msgspec.structs.asdict(reason), "points": round(reason.points, 4)}
                for reason in decision.score.reasons
            ],
        },
        "rules": [
            {"tier": verdict.tier, "applies": verdict.applies, "because": verdict.failed}
            for verdict in decision.verdicts
        ],
        "tiers": [
            {
                "tier": tried.tier,
                "model": tried.model,
                "prompt_tokens": tried.prompt_tokens,
                "takes": {claim.budget: claim.amount for claim in tried.claims},
                "taken": not tried.failure,
                "because": tried.failure,
            }
            for tried in decision.tried
        ],
        "budgets": [balance._asdict() for balance in balances],
    }


def outcome_of(action: actions.Verdict) -> dict[str, Any]:
    """What becomes of the request."""
    match action:
        case actions.PassThrough():
            return {"kind": "pass_through", "because": "not an LLM call: untouched, unbuffered"}
        case actions.Reject():
            return {
                "kind": "rejected",
                "status": action.status,
                "details": action.details,
                "headers": {name: value.decode() for name, value in action.headers},
                "body": action.body.decode(),
            }
        case actions.Route():
            headers = {name: value.decode() for name, value in action.set_headers}
            return {"kind": "routed", "headers": headers, "metadata": dict(action.metadata)}
