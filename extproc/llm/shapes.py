"""The bodies of each API as they are on the wire: only what is read of them.

Unknown fields and unknown kinds of content block are let through: APIs grow faster than
filters. A known field of the wrong type is refused by the decoder, with its path.
"""

from typing import Annotated, Final

import msgspec

MODEL_CHARS_MAX: Final = 256
OUTPUT_TOKENS_MAX: Final = 1 << 31
CHOICES_MAX: Final = 1024

ABSENT: Final = msgspec.Raw()
"""What stands for a member that is not there."""

Count = Annotated[int, msgspec.Meta(ge=0, le=OUTPUT_TOKENS_MAX)]
Choices = Annotated[int, msgspec.Meta(ge=1, le=CHOICES_MAX)]
Model = Annotated[str, msgspec.Meta(min_length=1, max_length=MODEL_CHARS_MAX)]
Number = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


class ImageUrl(msgspec.Struct, gc=False):
    """A picture of OpenAI's: an address, often with the data in it."""

    url: str = ""
    detail: str | None = None


class Source(msgspec.Struct, gc=False):
    """Anthropic's picture or document: inline data, or somewhere else."""

    type: str = ""
    data: str = ""


class Block(msgspec.Struct):
    """A content block of any API. Fields of several kinds, none of which clash."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    thinking: str | None = None
    title: str | None = None
    context: str | None = None
    image_url: "ImageUrl | str | None" = None
    detail: str | None = None
    source: "Source | str | None" = None
    name: str | None = None
    input: msgspec.Raw = ABSENT
    content: "str | list[Block] | None" = None


class Function(msgspec.Struct, gc=False):
    """What a tool call calls; `arguments` is JSON in a string."""

    name: str = ""
    arguments: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    """A call that the model asked for."""

    function: Function | None = None


class ChatMessage(msgspec.Struct):
    """One message of OpenAI's chat and of Anthropic's."""

    role: str = ""
    content: str | list[Block] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None


class StreamOptions(msgspec.Struct, gc=False):
    """OpenAI: what a stream holds besides the answer."""

    include_usage: bool | None = None


class Chat(msgspec.Struct):
    """OpenAI: POST /v1/chat/completions."""

    model: Model
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Number | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Choices | None = None
    tools: list[msgspec.Raw] | None = None
    functions: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = ABSENT
    response_format: msgspec.Raw = ABSENT


TokenId = Annotated[int, msgspec.Meta(ge=0)]
Prompts = str | list[str | TokenId | list[TokenId]]


class Completions(msgspec.Struct):
    """OpenAI: POST /v1/completions."""

    model: Model
    prompt: Prompts | None = None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Number | None = None
    max_tokens: Count | None = None
    n: Choices | None = None
    best_of: Choices | None = None


class Embeddings(msgspec.Struct):
    """OpenAI: POST /v1/embeddings."""

    model: Model
    input: Prompts


class Item(msgspec.Struct):
    """One item of a Responses call: a message, a tool call, or a tool's result."""

    type: str = "message"
    role: str | None = None
    content: str | list[Block] | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Block] | None = None
    id: str | None = None


class Responses(msgspec.Struct):
    """OpenAI: POST /v1/responses."""

    model: Model
    input: str | list[Item] | None = None
    instructions: str | None = None
    stream: bool | None = None
    temperature: Number | None = None
    max_output_tokens: Count | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = ABSENT
    previous_response_id: str | None = None
    conversation: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT


class Anthropic(msgspec.Struct):
    """Anthropic: POST /v1/messages, and /v1/messages/count_tokens."""

    model: Model
    messages: list[ChatMessage]
    system: str | list[Block] | None = None
    stream: bool | None = None
    temperature: Number | None = None
    max_tokens: Count | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = ABSENT
