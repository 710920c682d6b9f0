"""What the definitions of tools add to a prompt, which no provider says exactly.

1. OpenAI's models read tools as TypeScript. For schemas without nesting its cookbook has a
   formula ("How to count tokens with tiktoken", `num_tokens_for_tools`), used as it is.
2. Whatever doesn't fit that formula is counted as its JSON, times `JSON_SHARE` where the model
   reads TypeScript: reports have it shorter than JSON, never by more than half.
3. A tool is any JSON value: nothing in it raises.

Nothing is counted here: the texts are, by the caller, along with the constants.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

JSON_SHARE: Final = 0.6
"""TypeScript's tokens per token of JSON, about."""

PROPERTIES: Final = 3
PROPERTY: Final = 3
ENUM: Final = -3
ENUM_ITEM: Final = 3
END: Final = 12

CHOICE_NONE: Final = 1
CHOICE_NAMED: Final = 7


class ToolTexts(NamedTuple):
    """What of the tools is to be counted: lines of the formula, and JSON for want of one."""

    lines: tuple[str, ...]
    framing: int
    """Tokens between the lines."""
    json: tuple[str, ...]


def tool_texts(tools: Sequence[str], choice: str, *, function: int) -> ToolTexts:
    """Take tools apart into what is counted, with `function` tokens to begin each.

    A `function` of 0 says that the model reads JSON, so that the tools stay whole.
    """
    lines: list[str] = []
    json: list[str] = []
    framing = 0
    for tool in tools:
        found = _flat(tool) if function else None
        if found is None:
            json.append(tool)
        else:
            framing += function + _add(found, lines)
    if lines:
        framing += END
    framing += _add_choice(choice, lines)
    return ToolTexts(tuple(lines), framing, tuple(json))


# --- what the formula knows; anything else is refused, and counted as JSON ---------------------

_Scalar = str | int | float | bool | None


class _Property(msgspec.Struct, forbid_unknown_fields=True):
    type: str = ""
    description: str = ""
    enum: list[_Scalar] = []


class _Parameters(msgspec.Struct, forbid_unknown_fields=True):
    type: str = ""
    properties: dict[str, _Property] = {}
    required: list[str] = []
    additional_properties: bool = msgspec.field(name="additionalProperties", default=False)


class _Function(msgspec.Struct, forbid_unknown_fields=True):
    """As the Responses API has it; in chat it is the `function` of a tool."""

    name: str
    description: str | None = None
    parameters: _Parameters | None = None
    type: str = ""
    strict: bool | None = None


class _Tool(msgspec.Struct, forbid_unknown_fields=True):
    function: _Function
    type: str = ""


class _Choice(msgspec.Struct):
    """The tool that must be called: OpenAI names it twice deep, Anthropic once."""

    name: str = ""
    function: "_Choice | None" = None


_TOOL: Final = msgspec.json.Decoder(_Tool)
_FUNCTION: Final = msgspec.json.Decoder(_Function)
_CHOICE: Final = msgspec.json.Decoder(_Choice)


def _flat(tool: str) -> _Function | None:
    """Read a tool whose parameters aren't nested, or None."""
    decoder: msgspec.json.Decoder[_Tool] | msgspec.json.Decoder[_Function]
    for decoder in (_TOOL, _FUNCTION):
        try:
            found = decoder.decode(tool)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            continue
        return found.function if isinstance(found, _Tool) else found
    return None


def _add(function: _Function, lines: list[str]) -> int:
    """Add the lines of a function; return the tokens between them."""
    lines.append(f"{function.name}:{_sentence(function.description)}")
    properties = function.parameters.properties if function.parameters is not None else {}
    framing = PROPERTIES if properties else 0
    for name, schema in properties.items():
        framing += PROPERTY
        if schema.enum:
            framing += ENUM + ENUM_ITEM * len(schema.enum)
            lines.extend(map(str, schema.enum))
        lines.append(f"{name}:{schema.type}:{_sentence(schema.description)}")
    return framing


def _sentence(description: str | None) -> str:
    return (description or "").removesuffix(".")


def _add_choice(choice: str, lines: list[str]) -> int:
    """Add the name of a tool that must be called; return the tokens around it."""
    if choice == '"none"':
        return CHOICE_NONE
    if not choice.startswith("{"):
        return 0
    try:
        found = _CHOICE.decode(choice)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        found = _Choice(choice)
    lines.append(found.function.name if found.function is not None else found.name)
    return CHOICE_NAMED
