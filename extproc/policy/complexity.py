"""How hard a request is, as a score in [0, 1] that can name its reasons.

score = min(1, sum of weight x min(1, value / full_at)): linear, so that a reader can add up
`explain`'s table by hand and an operator can move one weight without moving the others.
"""

from typing import Annotated

import msgspec

from extproc.llm.record import Record
from extproc.llm.request import LlmRequest
from extproc.policy.section import Section

Weight = Annotated[float, msgspec.Meta(ge=0, le=1)]
Amount = Annotated[float, msgspec.Meta(gt=0, le=1e12)]


class Feature(Section, frozen=True, kw_only=True):
    """What one property of a request adds: all of `weight` from `full_at` on."""

    weight: Weight
    full_at: Amount


class Complexity(Section, frozen=True, kw_only=True):
    """The weights. The shipped ones call a 4,000 token prompt with a tool or two complex."""

    prompt_tokens: Feature = Feature(weight=0.7, full_at=4000)
    turns: Feature = Feature(weight=0.2, full_at=20)
    tools: Feature = Feature(weight=0.3, full_at=4)
    images: Feature = Feature(weight=0.2, full_at=2)
    output_tokens: Feature = Feature(weight=0.2, full_at=4000)
    choices: Feature = Feature(weight=0.1, full_at=4)


class Reason(Record, frozen=True):
    """One addend of a score."""

    feature: str
    value: int
    points: float


class Score(Record, frozen=True):
    """A request's complexity, and why."""

    value: float
    reasons: tuple[Reason, ...]


def score_of(weights: Complexity, request: LlmRequest, *, prompt_tokens: int) -> Score:
    """Score a request whose prompt has `prompt_tokens`; reasons that add nothing are left out."""
    reasons = []
    points = 0.0
    for name, feature, value in (
        ("prompt_tokens", weights.prompt_tokens, prompt_tokens),
        ("turns", weights.turns, len(request.messages)),
        ("tools", weights.tools, len(request.tools)),
        ("images", weights.images, request.images),
        ("output_tokens", weights.output_tokens, request.output_tokens_max or 0),
        ("choices", weights.choices, request.choices - 1),
    ):
        if value > 0 and feature.weight > 0:
            is_full = value >= feature.full_at
            added = feature.weight if is_full else feature.weight * value / feature.full_at
            reasons.append(Reason(name, value, added))
            points += added
    return Score(min(1.0, points), tuple(reasons))
