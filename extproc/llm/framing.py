"""What stands around a prompt's texts, by the model's chat template.

Known exactly only for the models of OpenAI's cookbook ("How to count tokens with tiktoken").
For the others `hidden` is what the template may add unasked: a date, a default instruction.
"""

import functools
from typing import Final, NamedTuple

from extproc.llm.ranges import Range, exactly


class Framing(NamedTuple):
    """Tokens that a chat template adds."""

    message: int
    """To each message, its role apart."""
    reply: int
    """After the last message, for the answer to begin."""
    name: int = 1
    """To each name of a speaker, apart from the name's own."""
    start: int = 0
    """Before the first message."""
    hidden: int = 0
    """Only sometimes."""
    is_exact: bool = False
    is_stripped: bool = False
    """White space around a text is taken off."""
    function: int = 0
    """To begin a tool as TypeScript; 0 where the template puts tools as JSON."""
    tools: int = 0
    """Before the first tool."""
    json_growth: float = 1.5
    """Tokens that tools and calls may cost per token of their JSON."""

    def around(self, *, messages: int, roles: int) -> Range:
        """Return what stands around so many messages, `roles` of which have a role of one token."""
        tokens = self.start + self.message * messages + roles + self.reply
        if self.is_exact:
            return exactly(tokens)
        return Range(tokens, 0, 2 * tokens + self.hidden)


ROLES: Final = frozenset({"system", "user", "assistant", "tool", "developer", "function"})
"""One token each, in every encoding."""

CALL: Final = 8
"""Around the name and arguments of a tool call, about; up to twice as many."""

OPENAI: Final = Framing(message=3, reply=3, function=7)
COOKBOOK: Final = OPENAI._replace(is_exact=True)
GPT_3_5_0301: Final = COOKBOOK._replace(message=4, name=-1)
"""Its name stands in place of the role."""
CL100K_FUNCTION: Final = 10

HARMONY: Final = Framing(message=3, reply=2, start=70, hidden=40, function=7)
"""With its own system message: who it is, what it knows, the date, the channels."""

LLAMA_3: Final = Framing(message=4, reply=4, start=1, hidden=30, is_stripped=True, tools=60, name=0)
"""`start_header_id`, `end_header_id`, an empty line and `eot_id`; from 3.1 on also the date."""

CHATML: Final = Framing(message=4, reply=3, hidden=25, tools=130, name=0)
"""Qwen's: `im_start`, `im_end` and a line's end after the role and the text."""

ANTHROPIC: Final = Framing(message=3, reply=3, hidden=10, tools=346, json_growth=2)
"""Unpublished; a message of one word is 8 tokens. The tools' prompt is in Anthropic's docs."""

_COOKBOOK_MODELS: Final = ("gpt-3.5-turbo", "gpt-4")
_BY_ENCODING: Final = {"llama3": LLAMA_3, "qwen3": CHATML, "o200k_harmony": HARMONY}


@functools.lru_cache(maxsize=1024)
def framing_of(model: str, encoding: str, *, is_anthropic: bool) -> Framing:
    """Return the template of `model`, told by its name; of an API or an encoding otherwise."""
    name = model.lower().rpartition("/")[2]
    if "claude" in name:
        return ANTHROPIC
    if encoding in _BY_ENCODING:
        return _BY_ENCODING[encoding]
    if name.startswith("gpt-3.5-turbo-0301"):
        framing = GPT_3_5_0301
    elif name.startswith(_COOKBOOK_MODELS):
        framing = COOKBOOK
    elif is_anthropic:
        return ANTHROPIC
    else:
        framing = OPENAI
    return framing._replace(function=CL100K_FUNCTION) if encoding == "cl100k_base" else framing
