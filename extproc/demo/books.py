"""What the adapters remember, and what holds them back: how a test sees and steers them."""

import asyncio
import hashlib
from collections import deque
from typing import Any, Final

ENTRIES_MAX: Final = 5_000
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


class Books:
    """The last requests that the adapters got, oldest first."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=ENTRIES_MAX)

    def open(self, adapter: str, method: str, path: str, headers: list[tuple[str, str]]) -> Entry:
        """Begin an entry, before the body is there."""
        entry = Entry(adapter, method, path, headers)
        self._entries.append(entry)
        return entry

    def as_json(self, step: str | None) -> list[dict[str, Any]]:
        """All entries, or those whose header `x-demo-step` is `step`."""
        entries = (entry.as_json() for entry in self._entries)
        return [e for e in entries if step is None or ["x-demo-step", step] in _lists(e)]


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
