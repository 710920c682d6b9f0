"""What tenants owe, from what their models and clients say, and nobody of ours.

What a client read to its end is owed to the last token. Where one left, or the connection to the
model broke, the filter may only have seen a part of the answer. How much it may be charged then
lies between bounds:

* of the prompt, what the filter counted or what the model told;
* of the answer, no less than half of the words that reached the client, but for the first few
  (the meter notes its count at the first, second, fourth, ... and then at every sixteenth chunk;
  what came after the last note is taken by its bytes, and the events that begin a stream are long
  and have no word), and no more than the model wrote, and as much again for wordless events;
* where no answer reached the client, maybe nothing at all.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final, NamedTuple, Self

import msgspec

from chaos.client import Ending
from chaos.traffic import COUNT_TOKENS, EMBEDDINGS
from extproc.demo.asked import Told
from extproc.demo.books import Answer

WORDLESS_EVENTS_MAX: Final = 6
"""Of a stream: what begins and ends it."""

WORDS_UNNOTED_MAX: Final = 4
"""Of the beginning of a stream, beside half of the rest."""

BYTES_PER_TOKEN: Final = 4
"""Of an answer in JSON that tells no usage."""

Unit = str
UNITS: Final = ("tokens", "usd", "requests")
"""The budgets that every tenant has are called by their units."""


class Range(NamedTuple):
    """Bounds of a sum, both included."""

    low: int
    high: int

    def __add__(self, other: object) -> Self:
        """Add bounds to bounds."""
        if not isinstance(other, Range):
            return NotImplemented
        return type(self)(self.low + other.low, self.high + other.high)

    @property
    def is_exact(self) -> bool:
        """Whether there is but one."""
        return self.low == self.high


NOTHING: Final = Range(0, 0)


class Price(msgspec.Struct, frozen=True):
    """US dollars per million tokens: micro-dollars a token."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None

    def micro_usd(self, told: Told) -> int:
        """What it costs, each begun micro-dollar a whole one."""
        prompt = told.prompt - told.cached - told.cache_write
        sum_ = (
            prompt * self.input
            + told.cached * _or(self.cached_input, self.input)
            + told.cache_write * _or(self.cache_write, self.input)
            + (told.completion - told.reasoning) * self.output
            + told.reasoning * _or(self.reasoning, self.output)
        )
        return int(sum_.to_integral_value("ROUND_CEILING"))

    def cheapest(self) -> "Price":
        """What tokens cost at least, whichever they were."""
        return self._of(min)

    def dearest(self) -> "Price":
        """What they cost at most."""
        return self._of(max)

    def _of(self, choose: Callable[[Iterable[Decimal]], Decimal]) -> "Price":
        inputs = self.input, _or(self.cached_input, self.input), _or(self.cache_write, self.input)
        outputs = self.output, _or(self.reasoning, self.output)
        return Price(input=choose(inputs), output=choose(outputs))


class Due(NamedTuple):
    """What one request is to be charged, in each unit."""

    tokens: Range = NOTHING
    usd: Range = NOTHING
    requests: Range = NOTHING

    @property
    def is_exact(self) -> bool:
        """Whether nothing of it is open."""
        return all(bounds.is_exact for bounds in self)


FREE: Final = Due()


def due_of(ending: Ending, answer: Answer | None, price: Price) -> Due:
    """Say what a request owes; `answer` is None where it reached no model."""
    if answer is None:
        return FREE
    if ending.is_whole:
        return _due_of_whole(ending, answer, price)
    if answer.path == COUNT_TOKENS:
        return Due(requests=Range(0, 1))
    is_error = answer.status >= 300  # noqa: PLR2004  # RFC 9110
    is_detailed = answer.told is not None and any(answer.told[2:])
    most = _most(answer)
    if ending.status == 0:
        # It left before an answer came: maybe before the model had read the prompt.
        most = Told(answer.estimate, 0) if is_error else most
        return _between(NOTHING_TOLD, most, price, Range(0, 1), is_detailed=is_detailed)
    if is_error or not 200 <= ending.status < 300:  # noqa: PLR2004  # the same
        return FREE
    told = answer.told or Told(answer.estimate, 0)
    words = max(0, ending.words // 2 - WORDS_UNNOTED_MAX)
    least = Told(min(answer.estimate, told.prompt), min(words, most.completion))
    return _between(least, most, price, Range(1, 1), is_detailed=is_detailed)


NOTHING_TOLD: Final = Told(0, 0)


def _due_of_whole(ending: Ending, answer: Answer, price: Price) -> Due:
    if not 200 <= ending.status < 300:  # noqa: PLR2004  # RFC 9110
        return FREE
    once = Range(1, 1)
    if answer.path == COUNT_TOKENS:
        return Due(requests=once)
    if answer.told is not None:
        return _between(answer.told, answer.told, price, once)
    if answer.events:
        # The event of a chat that tells the role counts as one with output.
        low = Told(answer.estimate, answer.words)
        return _between(low, low._replace(completion=answer.words + 1), price, once)
    whole = Told(answer.estimate, _tokens_of_json(answer))
    return _between(whole, whole, price, once)


def _most(answer: Answer) -> Told:
    """All that can have been seen of an answer that broke off."""
    told = answer.told or NOTHING_TOLD
    written = answer.words + WORDLESS_EVENTS_MAX if answer.events else _tokens_of_json(answer)
    return Told(max(answer.estimate, told.prompt), max(written, told.completion))


def _tokens_of_json(answer: Answer) -> int:
    return 0 if answer.path == EMBEDDINGS else -(-answer.body_bytes // BYTES_PER_TOKEN)


def _between(
    least: Told, most: Told, price: Price, requests: Range, *, is_detailed: bool = False
) -> Due:
    """`is_detailed`: nobody knows of which kinds the tokens are that were seen to be told."""
    cheap, dear = (price.cheapest(), price.dearest()) if is_detailed else (price, price)
    if is_detailed:
        least, most = Told(*least[:2]), Told(*most[:2])
    usd = Range(cheap.micro_usd(least), dear.micro_usd(most))
    return Due(Range(least.total, most.total), usd, requests)


def sums(
    endings: Iterable[Ending], answers: Mapping[str, Answer], prices: Mapping[str, Price]
) -> dict[tuple[str, Unit], Range]:
    """What each tenant owes in each unit. `answers` are by step, `prices` by adapter."""
    owed: defaultdict[tuple[str, Unit], Range] = defaultdict(lambda: NOTHING)
    for ending in endings:
        answer = answers.get(ending.call.step)
        price = prices.get(answer.adapter, Price()) if answer is not None else Price()
        due = due_of(ending, answer, price)
        for unit, bounds in zip(UNITS, due, strict=True):
            owed[ending.call.tenant, unit] += bounds
    return dict(owed)


def _or(price: Decimal | None, other: Decimal) -> Decimal:
    return other if price is None else price
