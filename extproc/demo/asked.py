"""What an adapter makes of a request: enough of it to answer as a model would."""

import itertools
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from extproc.demo.manners import Usage

WORDS_QUOTED_MAX: Final = 10

Json = dict[str, Any]


class Told(NamedTuple):
    """The tokens that an answer says it took.

    `cached` and `cache_write` are parts of `prompt`, `reasoning` of `completion`.
    """

    prompt: int
    completion: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """Every token."""
        return self.prompt + self.completion


class Event(NamedTuple):
    """One Server-Sent Event. `name` is empty where an API names none.

    `words` is how many words of the answer are in it, `told` what it says of tokens; a later
    one replaces an earlier one.
    """

    name: str
    data: Json
    words: int = 0
    told: Told | None = None


class Asked(NamedTuple):
    """One request to a model. A word stands for a token: adapters count in their own way."""

    adapter: str
    number: int
    created: int
    model: str
    prompt: str
    words_max: int | None
    is_streamed: bool
    body: Json
    usage: Usage

    def words(self) -> list[str]:
        """Write the answer, which says who wrote it, and cut it where the request says so."""
        quoted = " ".join(self.prompt.split()[-WORDS_QUOTED_MAX:])
        words = (
            f"This is {self.adapter}, asked for {self.model}."
            f" Your last words were: {quoted!r}. They came through a real Envoy,"
            " and every word of this answer is an event of its own."
        ).split()
        return words[: self.words_max]

    def text(self) -> str:
        """Write the answer in one piece."""
        return " ".join(self.words())

    def pieces(self) -> list[str]:
        """Write the answer word by word; joined, they are the text."""
        words = self.words()
        return [word if i == 0 else " " + word for i, word in enumerate(words)]

    def prompt_words(self) -> int:
        """Count the prompt, at least one."""
        return max(1, len(self.prompt.split()))

    def told(self) -> Told | None:
        """Say what the whole answer took; None where that is not to be told."""
        prompt, completion = self.prompt_words(), len(self.words())
        match self.usage:
            case "missing":
                return None
            case "plain":
                return Told(prompt, completion)
            case "details":
                return Told(prompt, completion, prompt // 2, prompt // 4, completion // 3)

    def is_cut(self) -> bool:
        """Whether the answer ends because the request allowed no more of it."""
        return self.words_max is not None and len(self.words()) >= self.words_max


class Asking:
    """Numbers the requests of one adapter."""

    def __init__(self, adapter: str) -> None:
        self._adapter = adapter
        self._numbers = itertools.count(1)

    def read(self, body: Json, usage: Usage, *, created: int) -> Asked:
        """Take from a body of any API what an answer needs."""
        limits = ("max_completion_tokens", "max_output_tokens", "max_tokens")
        found = (body.get(name) for name in limits)
        return Asked(
            adapter=self._adapter,
            number=next(self._numbers),
            created=created,
            model=str(body.get("model", "")),
            prompt=_prompt_of(body),
            words_max=next((limit for limit in found if isinstance(limit, int)), None),
            is_streamed=body.get("stream") is True,
            body=body,
            usage=usage,
        )


def _prompt_of(body: Mapping[str, Any]) -> str:
    for key in ("messages", "input", "prompt"):
        if key in body:
            return _text_of(body[key])
    return ""


def _text_of(value: object) -> str:
    """All text in a prompt of whichever shape, in order."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(filter(None, map(_text_of, value)))
    if isinstance(value, Mapping):
        return _text_of(value.get("content") or value.get("text") or "")
    return ""
