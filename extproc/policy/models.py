"""Models: how their prompts are counted, how much they take, what they cost."""

import math
import operator
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Final, Literal

import msgspec

from extproc.llm.usage import Usage
from extproc.policy.section import Section

Encoding = Literal["cl100k_base", "o200k_base", "o200k_harmony", "llama3", "qwen3"]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
UsdPerMillion = Annotated[
    Decimal, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 1_000_000})
]

OUTPUT_TOKENS_EXPECTED: Final = 512
"""What an answer is taken for where neither the request, the settings nor experience says."""


_NOTHING: Final = Decimal(0)


class Price(Section, frozen=True, kw_only=True, dict=True):
    """US dollars per million tokens, as providers publish them."""

    input: UsdPerMillion = Decimal(0)
    cached_input: UsdPerMillion | None = None
    cache_write: UsdPerMillion | None = None
    output: UsdPerMillion = Decimal(0)
    reasoning: UsdPerMillion | None = None

    def micro_usd(self, *, prompt_tokens: int, output_tokens: int) -> int:
        """Cost in micro-dollars at most, rounded up so that no call with a price is free.

        One dollar per million tokens is one micro-dollar a token. How much of the prompt will
        be written to a cache, and how much of the answer will be thoughts, nobody knows yet.
        """
        per, prompt_rate, output_rate = self._rates_max
        return -(-(prompt_rate * prompt_tokens + output_rate * output_tokens) // per)

    @cached_property
    def _rates_max(self) -> tuple[int, ...]:
        return _integers(
            max(self.input, self.cache_write or _NOTHING),
            max(self.output, self.reasoning or _NOTHING),
        )

    @cached_property
    def _rates(self) -> tuple[int, ...]:
        return _integers(
            self.input,
            self.input if self.cached_input is None else self.cached_input,
            self.input if self.cache_write is None else self.cache_write,
            self.output,
            self.output if self.reasoning is None else self.reasoning,
        )

    def cost_micro_usd(self, usage: Usage) -> int:
        """What an answer cost, in micro-dollars, rounded up; each kind of token at its price."""
        per, *rates = self._rates
        tokens = (
            usage.prompt - usage.cached - usage.cache_write,
            usage.cached,
            usage.cache_write,
            usage.completion - usage.reasoning,
            usage.reasoning,
        )
        cost: int = sum(map(operator.mul, rates, tokens))
        return -(-cost // per)


def _integers(*prices: Decimal) -> tuple[int, ...]:
    """A denominator, and each price over it: integers add up in half the time."""
    ratios = [price.as_integer_ratio() for price in prices]
    per: int = math.lcm(*(denominator for _, denominator in ratios))
    return (per, *(numerator * (per // denominator) for numerator, denominator in ratios))


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
