"""Tiers, and the rules that choose one."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from extproc.llm.record import Record
from extproc.llm.request import LlmRequest
from extproc.policy.section import Section, matches_any

TierName = Annotated[
    str,
    msgspec.Meta(
        pattern="^[a-z0-9][a-z0-9_-]{0,62}$",
        description="a name of up to 63 of a-z, 0-9, _ and -, beginning with a-z or 0-9",
    ),
]
"""A value of the header `x-llm-tier`: what a route can match without quoting."""


class Tier(Section, frozen=True, kw_only=True):
    """A class of service: the model it stands for, and where a request goes when it may not."""

    model: str
    priority: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    downgrade_to: TierName | None = None


class Condition(Section, frozen=True, kw_only=True):
    """What a rule asks of a request. All that is given must hold; patterns are shell globs."""

    complexity_above: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    prompt_tokens_above: Annotated[int, msgspec.Meta(ge=0)] | None = None
    models: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    headers: dict[str, str] | None = None
    stream: bool | None = None
    tools: bool | None = None
    images: bool | None = None


class Rule(Section, frozen=True, kw_only=True):
    """A tier, and when. Without `when` the rule always applies."""

    tier: TierName
    when: Condition | None = None


class Facts(Record, frozen=True):
    """All that a rule may look at."""

    request: LlmRequest
    headers: Mapping[str, str]
    path: str
    complexity: float
    prompt_tokens: int


class Verdict(Record, frozen=True):
    """One rule, looked at: `failed` names the first condition that did not hold, or is empty."""

    tier: str
    failed: str

    @property
    def applies(self) -> bool:
        """Whether this rule decided."""
        return not self.failed


def choose_tier(rules: tuple[Rule, ...], facts: Facts) -> tuple[Verdict, ...]:
    """Look at the rules in order until one applies: the last verdict is the decision.

    Total, because settings whose last rule has a condition are refused when they are loaded.
    """
    verdicts = []
    for rule in rules:
        verdict = Verdict(rule.tier, _first_failure(rule.when, facts) if rule.when else "")
        verdicts.append(verdict)
        if verdict.applies:
            break
    return tuple(verdicts)


def _first_failure(when: Condition, facts: Facts) -> str:
    """Name the first condition that does not hold, with what was found; empty if all hold."""
    request = facts.request
    if when.complexity_above is not None and facts.complexity <= when.complexity_above:
        return f"complexity {facts.complexity:.2f} is not above {when.complexity_above:g}"
    if when.prompt_tokens_above is not None and facts.prompt_tokens <= when.prompt_tokens_above:
        return f"{facts.prompt_tokens} prompt tokens are not above {when.prompt_tokens_above}"
    if when.models is not None and not matches_any(when.models, request.model):
        return "the model is not " + " or ".join(when.models)
    if when.paths is not None and not matches_any(when.paths, facts.path.partition("?")[0]):
        return "the path is not " + " or ".join(when.paths)
    for name, glob in (when.headers or {}).items():
        if not matches_any((glob,), facts.headers.get(name, "")):
            return f"the header {name} is not {glob}"
    for name, wanted, found in (
        ("stream", when.stream, request.is_streamed),
        ("tools", when.tools, bool(request.tools)),
        ("images", when.images, request.images > 0),
    ):
        if wanted is not None and wanted != found:
            return f"{name} is {str(found).lower()}"
    return ""
