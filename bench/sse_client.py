"""Reads many streams at once and notes when what came. Nothing is understood until it is over."""

import asyncio
import time
from typing import NamedTuple, cast

from bench.sse_events import END, found_in


class Read(NamedTuple):
    """What the socket gave at once, if there was an event in it."""

    read_ns: int
    made_ns: tuple[int, ...]
    chunks: int
    """Chunks that held exactly one event."""


class Heard(NamedTuple):
    """One stream, from the request on."""

    asked_ns: int
    reads: tuple[Read, ...]

    @property
    def first_ms(self) -> float:
        """From the request to the first event."""
        return (self.reads[0].read_ns - self.asked_ns) / 1e6

    @property
    def events(self) -> int:
        """How many there were."""
        return sum(len(read.made_ns) for read in self.reads)


class Listener(asyncio.Protocol):
    """One connection, one stream. `begun` and `ended` are done when it is."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._asked_ns = 0
        self._pieces: list[tuple[int, bytes]] = []
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._asked_ns = time.monotonic_ns()
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note it with its time."""
        self._pieces.append((time.monotonic_ns(), data))
        if not self.begun.done():
            if not self._pieces[0][1].startswith(b"HTTP/1.1 200 "):
                self._fail(ConnectionError(self._pieces[0][1]))
            elif b"data: " in data:
                self.begun.set_result(None)
        self._tail = (self._tail + data)[-len(END) :]
        if self._tail == END and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whoever waits for more."""
        self._fail(exc or ConnectionError(self._pieces[-1:]))

    def _fail(self, error: Exception) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_exception(error)
                future.exception()  # one that nobody waits for is no news

    def heard(self) -> Heard:
        """What came, once it is over."""
        reads: list[Read] = []
        rest = b""
        for read_ns, data in self._pieces:
            # An event counts when its last byte is there.
            whole, end, rest = (rest + data).rpartition(b"\n\n\r\n")
            found = found_in(whole + end)
            if found.made_ns:
                reads.append(Read(read_ns, found.made_ns, found.chunks))
        return Heard(self._asked_ns, tuple(reads))


async def connect(port: int, request: bytes) -> tuple[asyncio.BaseTransport, Listener]:
    """Open a stream."""
    loop = asyncio.get_running_loop()
    return await loop.create_connection(lambda: Listener(request), "127.0.0.1", port)
