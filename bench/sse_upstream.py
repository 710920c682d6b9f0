"""A model that only streams: events of one size at a steady pace, each with the time it was sent.

    .venv/bin/python -m bench.sse_upstream

Prints `listening on ...`. The request says how: `x-events` at `x-rate` a second. Every event is
written by itself, and streams have phases of their own, so that no two are due at once. A bare
protocol: it shares two cores with what is measured.
"""

import asyncio
import time
from itertools import count
from typing import Final, cast

import uvloop

from bench.sse_events import LAST, USAGE, event

TICK_SECONDS: Final = 0.001
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Pace:
    """Wakes streams when their next event is due: one timer for all of them."""

    def __init__(self) -> None:
        self._due: dict[int, list[Stream]] = {}
        self._tick = 0
        self._began = time.monotonic()

    def wake(self, stream: "Stream", ticks: int) -> None:
        """Wake it so many ticks from now."""
        self._due.setdefault(self._tick + ticks, []).append(stream)

    async def run(self) -> None:
        """Run until cancelled. A tick that comes late is made up for at once."""
        for tick in count(1):
            ahead = self._began + tick * TICK_SECONDS - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            self._tick = tick
            for stream in self._due.pop(tick, ()):
                stream.send()


class Stream(asyncio.Protocol):
    """One connection, one stream at a time."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._request = b""
        self._transport: asyncio.WriteTransport | None = None
        self._left = 0
        self._ticks = 0
        self._wants_usage = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the way back."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Send no more."""
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Begin to stream once the request is whole."""
        self._request += data
        head, found, body = self._request.partition(b"\r\n\r\n")
        if not found or len(body) < int(_header(head, b"content-length")):
            return
        self._request = b""
        self._left = int(_header(head, b"x-events"))
        self._ticks = round(1 / TICK_SECONDS / int(_header(head, b"x-rate")))
        self._wants_usage = b'"include_usage"' in body
        if self._transport is not None:
            self._transport.write(_HEAD)
        self.send()

    def send(self) -> None:
        """Write one event or, when its time comes after the last one, what ends an answer."""
        if self._transport is None:
            return
        if self._left:
            self._left -= 1
            self._transport.write(event(time.monotonic_ns()))
            self._pace.wake(self, self._ticks)
        else:
            self._transport.write((USAGE if self._wants_usage else b"") + LAST)


def _header(head: bytes, name: bytes) -> bytes:
    return head.lower().partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


async def main() -> None:
    """Serve until killed."""
    pace = Pace()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stream(pace), "127.0.0.1", 0, backlog=1024)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await pace.run()


if __name__ == "__main__":
    uvloop.run(main())
