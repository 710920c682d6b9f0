"""What a provider says an answer used: its own JSON, read into one `Usage`.

OpenAI counts cached tokens among those of the prompt, Anthropic beside them; both count thoughts
among those of the answer. Here the parts are always within their whole. Where usage comes in two
pieces (Anthropic's `message_start`, and `message_delta`, which is cumulative) a later value
replaces an earlier one; nothing is ever added up.
"""

from typing import Annotated, Final, NamedTuple

import msgspec

TOKENS_MAX: Final = 1 << 31
"""Of one answer. A provider that claims more is not believed."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)] | None


class Usage(NamedTuple):
    """Tokens of one request and its answer, in the provider's own count.

    `cached` and `cache_write` are parts of `prompt`, `reasoning` is part of `completion`.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """Every token."""
        return self.prompt + self.completion


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Count = None
    cache_write_tokens: _Count = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: _Count = None


class _Usage(msgspec.Struct):
    """The fields of all APIs; no two of them mean different things by one name."""

    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    input_tokens: _Count = None
    output_tokens: _Count = None
    input_tokens_details: _PromptDetails | None = None
    output_tokens_details: _CompletionDetails | None = None
    cache_read_input_tokens: _Count = None
    cache_creation_input_tokens: _Count = None


_DECODER: Final = msgspec.json.Decoder(_Usage)


def usage_of(text: str, start: str = "") -> Usage | None:
    """Read the usage object `text`; `start` is what an earlier event said.

    None where there is none, or where it is no usage that can be believed: not JSON, negative,
    beyond `TOKENS_MAX`, without any count.
    """
    last = _read(text)
    first = _read(start)
    if last is None and (first is None or text):
        return None
    told = _merged(first or _Usage(), last or _Usage())
    if told.input_tokens is None and told.output_tokens is None:
        return _openai(told)
    return _input_and_output(told)


def _read(text: str) -> _Usage | None:
    try:
        return _DECODER.decode(text) if text else None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _merged(first: _Usage, last: _Usage) -> _Usage:
    told = {
        name: value
        for usage in (first, last)
        for name, value in msgspec.structs.asdict(usage).items()
        if value is not None
    }
    return _Usage(**told)


def _openai(told: _Usage) -> Usage | None:
    """Chat, completions and embeddings; the last have no `completion_tokens`."""
    if told.prompt_tokens is None and told.completion_tokens is None:
        return None
    details = told.prompt_tokens_details or _PromptDetails()
    answer = told.completion_tokens_details or _CompletionDetails()
    return _within(
        told.prompt_tokens or 0,
        told.completion_tokens or 0,
        details.cached_tokens or 0,
        details.cache_write_tokens or 0,
        answer.reasoning_tokens or 0,
    )


def _input_and_output(told: _Usage) -> Usage:
    """The Responses API, and Anthropic's, which alone counts the cache beside the input."""
    details = told.input_tokens_details or _PromptDetails()
    answer = told.output_tokens_details or _CompletionDetails()
    read = told.cache_read_input_tokens or 0
    written = told.cache_creation_input_tokens or 0
    return _within(
        (told.input_tokens or 0) + read + written,
        told.output_tokens or 0,
        read or details.cached_tokens or 0,
        written or details.cache_write_tokens or 0,
        answer.reasoning_tokens or 0,
    )


def _within(prompt: int, completion: int, cached: int, cache_write: int, reasoning: int) -> Usage:
    cached = min(cached, prompt)
    return Usage(
        prompt, completion, cached, min(cache_write, prompt - cached), min(reasoning, completion)
    )
