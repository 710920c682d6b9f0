"""Bodies of every dialect, read into one `LlmRequest`."""

from collections.abc import Sequence
from typing import Final

import msgspec

from extproc.llm.body import JsonObject, Malformed, Splice, malformed, read_object
from extproc.llm.dialects import Dialect
from extproc.llm.request import Image, LlmRequest, Message
from extproc.llm.shapes import (
    ABSENT,
    Anthropic,
    Block,
    Chat,
    ChatMessage,
    Completions,
    Embeddings,
    ImageUrl,
    Item,
    Prompts,
    Responses,
    Source,
)

BATCH_MAX: Final = 16_384
"""Prompts in one embeddings or completions call."""


def parse_request(dialect: Dialect, data: bytes) -> LlmRequest | Malformed:
    """Read a body as `dialect` has it."""
    body = read_object(data)
    if isinstance(body, Malformed):
        return body
    try:
        return _PARSERS[dialect](dialect, body)
    except msgspec.ValidationError as error:
        return malformed(error)
    except msgspec.DecodeError as error:  # a lone surrogate, for one: checked when decoded
        return Malformed("$", f"not JSON: {error}")


class _Content:
    """Collects what the blocks of one message hold."""

    __slots__ = ("images", "texts", "tool_calls")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.tool_calls: list[str] = []
        self.images: list[Image] = []

    def add(self, content: str | Sequence[Block] | None) -> None:
        if content is None:
            return
        if isinstance(content, str):
            self.texts.append(content)
            return
        for block in content:
            self._add_block(block)

    def _add_block(self, block: Block) -> None:
        for text in (block.text, block.refusal, block.thinking, block.title, block.context):
            if text:
                self.texts.append(text)
        if block.image_url is not None:
            self.images.append(_image(block.image_url, block.detail))
        if block.source is not None:
            self._add_source(block.type, block.source)
        if block.type.endswith("tool_use"):
            self.tool_calls.append((block.name or "") + bytes(block.input).decode())
        self.add(block.content)

    def _add_source(self, kind: str, source: Source | str) -> None:
        if kind == "image":
            inline = isinstance(source, Source) and source.type == "base64"
            self.images.append(Image(base64=source.data if inline else ""))  # type: ignore[union-attr]
        elif isinstance(source, Source) and source.type == "text":
            self.texts.append(source.data)


def _image(image: ImageUrl | str, detail: str | None) -> Image:
    url = image if isinstance(image, str) else image.url
    detail = detail if isinstance(image, str) else image.detail
    _, comma, data = url.partition(",") if url.startswith("data:") else ("", "", "")
    return Image(base64=data if comma else "", detail=detail or "auto")


def _message(message: ChatMessage) -> Message:
    content = message.content
    if isinstance(content, str) and not message.tool_calls and not message.function_call:
        return Message(message.role, (content,), message.name or "")
    found = _Content()
    found.add(content)
    if message.refusal:
        found.texts.append(message.refusal)
    calls = [call.function for call in message.tool_calls or () if call.function is not None]
    if message.function_call is not None:
        calls.append(message.function_call)
    found.tool_calls.extend(call.name + (call.arguments or "") for call in calls)
    return _collected(message.role, found, message.name or "")


def _collected(role: str, found: _Content, name: str = "") -> Message:
    return Message(role, tuple(found.texts), name, tuple(found.tool_calls), tuple(found.images))


def _parse_chat(dialect: Dialect, body: JsonObject) -> LlmRequest | Malformed:
    chat = _CHAT.decode(body.data)
    usage_splice = _usage_splice(body, chat)
    if isinstance(usage_splice, Malformed):
        return usage_splice
    tools = chat.tools or chat.functions
    # A JSON schema for the answer is put into the prompt, as a tool is.
    return LlmRequest(
        dialect=dialect,
        model=chat.model,
        model_span=body.spans["model"],
        messages=tuple([_message(message) for message in chat.messages]),
        tools=_json_texts(tools) + _schema(chat.response_format),
        tool_choice=_json_text(chat.tool_choice),
        output_tokens_max=_larger(chat.max_tokens, chat.max_completion_tokens),
        choices=chat.n or 1,
        is_streamed=chat.stream or False,
        usage_splice=usage_splice,
        temperature=chat.temperature,
    )


def _parse_completions(dialect: Dialect, body: JsonObject) -> LlmRequest | Malformed:
    call = _COMPLETIONS.decode(body.data)
    prompts = _prompts("$.prompt", call.prompt if call.prompt is not None else "")
    if isinstance(prompts, Malformed):
        return prompts
    usage_splice = _usage_splice(body, call)
    if isinstance(usage_splice, Malformed):
        return usage_splice
    texts, token_ids, batch = prompts
    return LlmRequest(
        dialect=dialect,
        model=call.model,
        model_span=body.spans["model"],
        texts=(*texts, call.suffix) if call.suffix else texts,
        token_ids=token_ids,
        output_tokens_max=call.max_tokens,
        choices=max(call.n or 1, call.best_of or 1) * batch,
        is_streamed=call.stream or False,
        usage_splice=usage_splice,
        temperature=call.temperature,
    )


def _usage_splice(body: JsonObject, call: Chat | Completions) -> Splice | Malformed | None:
    """What to change so that the stream ends with its usage; None where nothing needs to be.

    OpenAI takes `stream_options` only beside `"stream": true`.
    """
    options = call.stream_options
    if not call.stream or (options is not None and options.include_usage):
        return None
    at = body.spans.get("stream_options")
    if at is None:
        start = body.data.index(b"{") + 1
        return Splice((start, start), b'"stream_options":{"include_usage":true},')
    if options is None:
        return Splice(at, b'{"include_usage":true}')
    start, end = at
    inner = read_object(body.data[start:end])
    if isinstance(inner, Malformed):
        return inner._replace(path="$.stream_options" + inner.path.removeprefix("$"))
    value = inner.spans.get("include_usage")
    if value is not None:
        return Splice((start + value[0], start + value[1]), b"true")
    comma = b"," if inner.spans else b""
    return Splice((start + 1, start + 1), b'"include_usage":true' + comma)


def _parse_embeddings(dialect: Dialect, body: JsonObject) -> LlmRequest | Malformed:
    call = _EMBEDDINGS.decode(body.data)
    prompts = _prompts("$.input", call.input)
    if isinstance(prompts, Malformed):
        return prompts
    texts, token_ids, _ = prompts
    return LlmRequest(
        dialect=dialect,
        model=call.model,
        model_span=body.spans["model"],
        texts=texts,
        token_ids=token_ids,
        output_tokens_max=0,
    )


def _parse_responses(dialect: Dialect, body: JsonObject) -> LlmRequest:
    call = _RESPONSES.decode(body.data)
    messages = [Message("system", (call.instructions,))] if call.instructions else []
    if isinstance(call.input, str):
        messages.append(Message("user", (call.input,)))
    else:
        messages.extend(map(_item, call.input or ()))
    hidden = call.previous_response_id or _is_given(call.conversation) or _is_given(call.prompt)
    return LlmRequest(
        dialect=dialect,
        model=call.model,
        model_span=body.spans["model"],
        messages=tuple(messages),
        tools=_json_texts(call.tools),
        tool_choice=_json_text(call.tool_choice),
        output_tokens_max=call.max_output_tokens,
        is_streamed=call.stream or False,
        temperature=call.temperature,
        has_hidden_context=bool(hidden) or _refers(call.input),
    )


def _item(item: Item) -> Message:
    found = _Content()
    found.add(item.content)
    found.add(item.output)
    if item.arguments is not None:
        found.tool_calls.append((item.name or "") + item.arguments)
    role = item.role or ("tool" if item.output is not None else "assistant")
    return _collected(role, found)


def _refers(items: str | list[Item] | None) -> bool:
    """Whether an item is only named here and kept on the server."""
    return isinstance(items, list) and any(item.type == "item_reference" for item in items)


def _parse_anthropic(dialect: Dialect, body: JsonObject) -> LlmRequest:
    call = _ANTHROPIC.decode(body.data)
    messages = [_message(message) for message in call.messages]
    if call.system:
        found = _Content()
        found.add(call.system)
        messages.insert(0, _collected("system", found))
    return LlmRequest(
        dialect=dialect,
        model=call.model,
        model_span=body.spans["model"],
        messages=tuple(messages),
        tools=_json_texts(call.tools),
        tool_choice=_json_text(call.tool_choice),
        output_tokens_max=call.max_tokens if dialect.has_output else 0,
        is_streamed=call.stream or False,
        temperature=call.temperature,
    )


def _prompts(path: str, value: Prompts) -> tuple[tuple[str, ...], int, int] | Malformed:
    """Split prompts into texts, tokens that came as numbers, and how many prompts there are."""
    if isinstance(value, str):
        return (value,), 0, 1
    texts = tuple(entry for entry in value if isinstance(entry, str))
    arrays = [entry for entry in value if isinstance(entry, list)]
    numbers = len(value) - len(texts) - len(arrays)
    if numbers and numbers != len(value):
        return Malformed(path, "mixes token numbers with other prompts")
    batch = 1 if numbers else len(value)
    if batch > BATCH_MAX:
        return Malformed(path, f"more than {BATCH_MAX} prompts")
    return texts, numbers + sum(map(len, arrays)), max(batch, 1)


def _json_texts(values: Sequence[msgspec.Raw] | None) -> tuple[str, ...]:
    return tuple([_json_text(value) for value in values]) if values else ()


def _json_text(value: msgspec.Raw) -> str:
    return "" if value is ABSENT else bytes(value).decode()


def _is_given(value: msgspec.Raw) -> bool:
    return value is not ABSENT and bytes(value) != b"null"


def _schema(response_format: msgspec.Raw) -> tuple[str, ...]:
    text = _json_text(response_format)
    return (text,) if "json_schema" in text else ()


def _larger(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


_CHAT: Final = msgspec.json.Decoder(Chat)
_COMPLETIONS: Final = msgspec.json.Decoder(Completions)
_EMBEDDINGS: Final = msgspec.json.Decoder(Embeddings)
_RESPONSES: Final = msgspec.json.Decoder(Responses)
_ANTHROPIC: Final = msgspec.json.Decoder(Anthropic)

_PARSERS: Final = {
    Dialect.OPENAI_CHAT: _parse_chat,
    Dialect.OPENAI_COMPLETIONS: _parse_completions,
    Dialect.OPENAI_EMBEDDINGS: _parse_embeddings,
    Dialect.OPENAI_RESPONSES: _parse_responses,
    Dialect.ANTHROPIC_MESSAGES: _parse_anthropic,
    Dialect.ANTHROPIC_COUNT_TOKENS: _parse_anthropic,
}
