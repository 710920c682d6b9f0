"""Models: how their prompts are counted, how much they take, what they cost."""

from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec

from extproc.policy.section import Section

Encoding = Literal["cl100k_base", "o200k_base", "o200k_harmony", "llama3", "qwen3"]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
UsdPerMillion = Annotated[
    Decimal, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 1_000_000})
]

OUTPUT_TOKENS_EXPECTED: Final = 512
"""What an answer is taken for where neither the request, the settings nor experience says."""


class Price(Section, frozen=True, kw_only=True):
    """US dollars per million tokens, as providers publish them."""

    input: UsdPerMillion = Decimal(0)
    cached_input: UsdPerMillion | None = None
    cache_write: UsdPerMillion | None = None
    output: UsdPerMillion = Decimal(0)
    reasoning: UsdPerMillion | None = None

    def micro_usd(self, *, prompt_tokens: int, output_tokens: int) -> int:
        """Cost in micro-dollars, rounded up so that no call with a price is free.

        One dollar per million tokens is one micro-dollar a token.
        """
        prompt_rate, output_rate, per = _rates(self.input, self.output)
        return -(-(prompt_rate * prompt_tokens + output_rate * output_tokens) // per)


@lru_cache(maxsize=4096)
def _rates(prompt: Decimal, output: Decimal) -> tuple[int, int, int]:
    """Both prices as integers over one denominator: integers add up in half the time."""
    prompt_rate, prompt_per = prompt.as_integer_ratio()
    output_rate, output_per = output.as_integer_ratio()
    return prompt_rate * output_per, output_rate * prompt_per, prompt_per * output_per


class Model(Section, frozen=True, kw_only=True):
    """One model that a tier can stand for."""

    encoding: Encoding
    context_tokens: Tokens
    output_tokens_max: Tokens
    output_tokens_expected: Tokens | None = None
    scale: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    """Tokens of this model per token of `encoding`, where the two differ (Claude: 1.25)."""
    served_by: tuple[str, ...] = ()
    usd_per_million: Price = Price()

    def output_expected(self) -> int:
        """How long an answer is expected to be when the request sets no maximum, in tokens."""
        expected = self.output_tokens_expected or OUTPUT_TOKENS_EXPECTED
        return min(expected, self.output_tokens_max)
