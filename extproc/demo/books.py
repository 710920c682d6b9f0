"""What the adapters remember, and what holds them back: how a test sees and steers them."""

import asyncio
import hashlib
from collections import deque
from typing import Any, Final

import msgspec

from extproc.demo.asked import Told

ENTRIES_MAX: Final = 5_000
ANSWERS_MAX: Final = 50_000
GATE_SECONDS_MAX: Final = 30.0
"""A test that forgot to open a gate fails; it does not hang."""


class Entry:
    """One request as an adapter got it. Grows while its body arrives."""

    def __init__(
        self, adapter: str, method: str, path: str, headers: list[tuple[str, str]]
    ) -> None:
        self._head = {"adapter": adapter, "method": method, "path": path, "headers": headers}
        self._sum = hashlib.sha256()
        self._bytes = 0
        self.is_complete = False

    def take(self, data: bytes) -> None:
        """Note a piece of the body."""
        self._sum.update(data)
        self._bytes += len(data)

    def as_json(self) -> dict[str, Any]:
        """Say what is known so far."""
        return {
            **self._head,
            "body_bytes": self._bytes,
            "body_sha256": self._sum.hexdigest(),
            "is_complete": self.is_complete,
        }


class Answer(msgspec.Struct, kw_only=True):
    """What a model did about one request, in its own words. Grows while it answers."""

    step: str
    """The request's header `x-demo-step`."""
    adapter: str
    path: str
    tenant: str
    """Header `x-tenant-id`, as it arrived."""
    model: str
    """The one that was served: see `Adapter`."""
    estimate: int
    """Header `x-llm-prompt-tokens`, as it arrived."""
    status: int = 0
    """0 before an answer has begun."""
    told: Told | None = None
    """The tokens that it said it took. Nothing is told by an error."""
    events: int = 0
    words: int = 0
    """Of a stream, so many were written."""
    body_bytes: int = 0
    is_whole: bool = False
    """Whether all of it was written, to a connection that still stood."""


class Served(msgspec.Struct):
    """What a model did for a tenant: answers that were given whole, and what they told."""

    tenant: str
    model: str
    answers: int = 0
    prompt: int = 0
    completion: int = 0


class Books:
    """The last requests that the adapters got, and what they answered; oldest first."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=ENTRIES_MAX)
        self._answers: deque[Answer] = deque(maxlen=ANSWERS_MAX)
        self._served: dict[tuple[str, str], Served] = {}

    def open(self, adapter: str, method: str, path: str, headers: list[tuple[str, str]]) -> Entry:
        """Begin an entry, before the body is there."""
        entry = Entry(adapter, method, path, headers)
        self._entries.append(entry)
        return entry

    def begin(self, answer: Answer) -> None:
        """Remember an answer, before it is given."""
        self._answers.append(answer)

    def end(self, answer: Answer) -> None:
        """Note that all of it was written. What no tenant asked for is nobody's."""
        answer.is_whole = True
        if answer.told is None or not answer.tenant:
            return
        key = answer.tenant, answer.model
        served = self._served.setdefault(key, Served(*key))
        served.answers += 1
        served.prompt += answer.told.prompt
        served.completion += answer.told.completion

    def as_json(self, step: str | None) -> list[dict[str, Any]]:
        """All entries, or those whose header `x-demo-step` is `step`."""
        entries = (entry.as_json() for entry in self._entries)
        return [e for e in entries if step is None or ["x-demo-step", step] in _lists(e)]

    def answers(self) -> bytes:
        """All answers, as JSON."""
        return msgspec.json.encode(list(self._answers))

    def served(self) -> bytes:
        """The sums of what was served, as JSON."""
        return msgspec.json.encode(list(self._served.values()))


class Gates:
    """Named gates; each event of an answer that names one waits until it is let through."""

    def __init__(self) -> None:
        self._gates: dict[str, asyncio.Semaphore] = {}

    async def pass_through(self, name: str) -> None:
        """Wait until `let_through` was called once more for this gate.

        Raises:
            TimeoutError: nobody did.
        """
        async with asyncio.timeout(GATE_SECONDS_MAX):
            await self._gate(name).acquire()

    def let_through(self, name: str) -> None:
        """Let one more event pass."""
        self._gate(name).release()

    def _gate(self, name: str) -> asyncio.Semaphore:
        return self._gates.setdefault(name, asyncio.Semaphore(0))


def _lists(entry: dict[str, Any]) -> list[list[str]]:
    return [list(pair) for pair in entry["headers"]]
