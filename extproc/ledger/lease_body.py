"""The body of a message: what `scripts/contact.lua` reads."""

from collections.abc import Mapping, Sequence

from extproc.ledger.lease_messages import (
    MICROSECONDS,
    Instant,
    Made,
    Question,
    Rules,
    micros,
    spans_near,
)
from extproc.policy.budgets import Claim


def body_of(
    questions: Sequence[Question],
    told: Mapping[str, Made],
    wants: Sequence[tuple[Claim, int, int]],
    at: Instant,
    rules: Rules,
) -> dict[str, object]:
    """What is asked, told and wanted. Budgets, limits and windows are named once each."""
    indexes: dict[Claim, int] = {}
    specs: list[object] = []

    def index_of(claim: Claim) -> int:
        key = claim._replace(unit="tokens", amount=0, expected=0)
        if key not in indexes:
            specs.append((claim.budget, claim.limit, spans_near(claim, at.server)))
            indexes[key] = len(specs)  # Lua counts from 1
        return indexes[key]

    asks = [
        (
            question.ask.reservation,
            [(index_of(claim), claim.amount, claim.expected) for claim in question.ask.claims],
            question.is_kept,
            at.steady - question.asked_at >= rules.patience,
        )
        for question in questions
    ]
    return {
        "asks": asks,
        "tells": [(name, micros(made.made), made.parts) for name, made in told.items()],
        "wants": [(index_of(claim), amount, least) for claim, amount, least in wants],
        "specs": specs,
        "valid_until": micros(at.server) + MICROSECONDS,
        "lease": micros(rules.lease),
        "recall": micros(rules.recall),
    }
