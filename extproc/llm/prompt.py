"""What is to be counted in a request, and the port that counts it."""

from typing import NamedTuple, Protocol

from extproc.llm.request import LlmRequest


class TextCount(NamedTuple):
    """Tokens of some texts. The true number lies between `tokens_min` and `tokens_max`."""

    tokens: int
    tokens_min: int
    tokens_max: int

    @property
    def is_exact(self) -> bool:
        """Whether every text was counted, none estimated."""
        return self.tokens_min == self.tokens_max


class TextCounter(Protocol):
    """Counts texts in an encoding, in bounded time, whatever they hold."""

    def count(self, encoding: str, texts: tuple[str, ...]) -> TextCount:
        """Count the tokens of `texts`, each for itself, special tokens as plain text."""


class PromptCount(NamedTuple):
    """The tokens of a whole prompt.

    `parts` maps messages, framing, names, tool_calls, tools, images, token_ids to tokens (before
    `scale`). A provider will count between `tokens_min` and `tokens_max`, as far as is known.
    """

    tokens: int
    tokens_min: int
    tokens_max: int
    parts: dict[str, int]


def count_prompt(
    request: LlmRequest, counter: TextCounter, *, model: str, encoding: str, scale: float
) -> PromptCount:
    """Count what `model`, with its `encoding`, will be given to read."""
    texts = tuple(text for message in request.messages for text in message.texts) + request.texts
    found = counter.count(encoding, texts)
    return PromptCount(found.tokens, found.tokens_min, found.tokens_max, {"messages": found.tokens})
