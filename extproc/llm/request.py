"""What a client asks of a model, whatever API it speaks.

How a body becomes one is said in `parse.py`, how its parts are counted in `prompt.py`.
"""

import msgspec

from extproc.llm.body import Span, Splice
from extproc.llm.dialects import Dialect


class Image(msgspec.Struct, frozen=True, gc=False):
    """A picture in a prompt. `base64` is its data where it came inline, else empty."""

    base64: str = ""
    detail: str = "auto"


class Message(msgspec.Struct, frozen=True):
    """One turn: who speaks, and everything in it that is counted."""

    role: str
    texts: tuple[str, ...] = ()
    name: str = ""
    tool_calls: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()


class LlmRequest(msgspec.Struct, frozen=True):
    """What a client asks of a model, whatever API it speaks."""

    dialect: Dialect
    model: str
    model_span: Span
    """Where the model's name stands in the body, quotes included."""
    messages: tuple[Message, ...] = ()
    texts: tuple[str, ...] = ()
    """Prompts without roles: completions and embeddings."""
    token_ids: int = 0
    """Tokens that came as numbers instead of text."""
    tools: tuple[str, ...] = ()
    """Each tool as the JSON text it came as."""
    tool_choice: str = ""
    output_tokens_max: int | None = None
    choices: int = 1
    """Answers generated and paid for: the larger of `n` and `best_of`, times the prompts."""
    is_streamed: bool = False
    usage_splice: Splice | None = None
    """What makes a stream end with its usage, where the client did not ask for that."""
    temperature: float | None = None
    has_hidden_context: bool = False
    """The server adds context that is not in the body, so that a count is a lower bound."""

    @property
    def images(self) -> int:
        """Pictures in the whole prompt."""
        return sum([len(message.images) for message in self.messages])
