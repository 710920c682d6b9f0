"""What is to be counted in a request, and the port that counts it.

How sure a count is, part by part:

- texts, names and token ids are exact as far as the counter is, for a `scale` of 1;
- framing is exact for the models of OpenAI's cookbook, otherwise between nothing and double;
- calls to tools are at least their text, at most `json_growth` times it and double the framing;
- tools are half to one and a half of the cookbook's formula; where it doesn't know them, at
  least 0.3 times their JSON and at most `json_growth` times it;
- pictures are by the family's formula, see `images.py`.

`scale` turns tokens of `encoding` into the model's. Pictures and token ids are the model's own
already, so they are added after it. Where there is a scale, `tokens_min` or `tokens_max`,
whichever it would move inwards, stays unscaled.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from extproc.llm.framing import CALL, ROLES, Framing, framing_of
from extproc.llm.images import image_tokens
from extproc.llm.ranges import NOTHING, Range, exactly
from extproc.llm.request import LlmRequest, Message
from extproc.llm.tools import JSON_SHARE, tool_texts


class TextCounter(Protocol):
    """Counts texts in an encoding, in bounded time, whatever they hold."""

    def count(self, encoding: str, texts: Sequence[str]) -> Range:
        """Count the tokens of `texts`, each for itself, special tokens as plain text."""


PARTS: Final = ("messages", "framing", "names", "tool_calls", "tools", "images", "token_ids")


class PromptCount(NamedTuple):
    """The tokens of a whole prompt.

    A provider will count between `tokens_min` and `tokens_max`, as far as is known.
    """

    tokens: int
    tokens_min: int
    tokens_max: int
    found: Mapping[str, Range]
    """What it is made of, before `scale`, without what there is none of."""

    @property
    def parts(self) -> dict[str, int]:
        """Tokens of messages, framing, names, tool_calls, tools, images and token_ids."""
        return {name: self.found.get(name, NOTHING).tokens for name in PARTS}


def count_prompt(
    request: LlmRequest, counter: TextCounter, *, model: str, encoding: str, scale: float
) -> PromptCount:
    """Count what `model`, with its `encoding`, will be given to read."""
    framing = framing_of(model, encoding, is_anthropic=request.dialect.is_anthropic)
    count = functools.partial(_count, counter, encoding)
    found = {"messages": count(_texts(request, framing))}
    if request.messages:
        found["framing"] = _framing(request.messages, framing, count)
    extras = [one for one in request.messages if one.name or one.tool_calls or one.images]
    if extras:
        found["names"] = _names(extras, framing, count)
        found["tool_calls"] = _tool_calls(extras, framing, count)
    if request.tools:
        found["tools"] = _tools(request, framing, count)
    total = _scaled(_sum(found.values()), scale)
    if extras:
        found["images"] = image_tokens(
            [image for message in extras for image in message.images], model
        )
        total = total.plus(found["images"])
    if request.token_ids:
        found["token_ids"] = exactly(request.token_ids)
        total = total.plus(found["token_ids"])
    return PromptCount(*total, found)


_Count = Callable[[Sequence[str]], Range]


def _count(counter: TextCounter, encoding: str, texts: Sequence[str]) -> Range:
    return counter.count(encoding, texts) if texts else NOTHING


def _texts(request: LlmRequest, framing: Framing) -> list[str]:
    texts = [text for message in request.messages for text in message.texts]
    if framing.is_stripped:
        texts = [text.strip() for text in texts]
    texts.extend(request.texts)
    return texts


def _framing(messages: Sequence[Message], framing: Framing, count: _Count) -> Range:
    """Count roles and what stands around them. Most roles are words of one token."""
    unknown = [message.role for message in messages if message.role not in ROLES]
    around = framing.around(messages=len(messages), roles=len(messages) - len(unknown))
    return around.plus(count(unknown)) if unknown else around


def _names(messages: Sequence[Message], framing: Framing, count: _Count) -> Range:
    names = [message.name for message in messages if message.name]
    return count(names).plus(exactly(len(names) * framing.name))


def _tool_calls(messages: Sequence[Message], framing: Framing, count: _Count) -> Range:
    calls = [call for message in messages for call in message.tool_calls]
    found = count(calls)
    around = CALL * len(calls)
    most = math.ceil(found.tokens_max * framing.json_growth) + 2 * around
    return Range(found.tokens + around, found.tokens_min, most)


def _tools(request: LlmRequest, framing: Framing, count: _Count) -> Range:
    texts = tool_texts(request.tools, request.tool_choice, function=framing.function)
    lines = count(texts.lines).plus(exactly(texts.framing + framing.tools))
    json = count(texts.json)
    share = JSON_SHARE if framing.function else 1
    return Range(
        lines.tokens + math.ceil(json.tokens * share),
        math.floor(lines.tokens_min / 2 + json.tokens_min * JSON_SHARE / 2),
        math.ceil(lines.tokens_max * 1.5 + json.tokens_max * framing.json_growth),
    )


def _sum(ranges: Iterable[Range]) -> Range:
    return functools.reduce(Range.plus, ranges)


def _scaled(count: Range, scale: float) -> Range:
    if scale == 1:
        return count
    return Range(
        math.ceil(count.tokens * scale),
        math.floor(count.tokens_min * min(scale, 1)),
        math.ceil(count.tokens_max * max(scale, 1)),
    )
