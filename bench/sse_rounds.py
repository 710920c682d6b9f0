"""One round of many streams that flow at once, and what came of it."""

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Final, NamedTuple

from bench.sse_client import Heard, Listener, Read, connect
from bench.sse_ways import Way
from bench.through_envoy import cpu_seconds

SPREAD_SECONDS_MIN: Final = 0.5
BEGUN_PER_SECOND: Final = 250
"""Streams of a round begin one after another: else the last to be decided waits for all others."""

FIGURES: Final[Mapping[str, tuple[str, int]]] = {
    "first_p50_ms": ("first event p50 ms", 2),
    "first_p99_ms": ("p99", 1),
    "gap_p50_ms": ("gap p50 ms", 1),
    "gap_p99_ms": ("p99", 1),
    "delay_p50_ms": ("upstream to client p50 ms", 2),
    "delay_p99_ms": ("p99", 1),
    "merged": ("events merged, of 1,000", 2),
    "messages": ("messages to the service an event", 2),
    "Envoy_us": ("Envoy µs an event", 1),
    "service_us": ("service µs an event", 1),
}
"""What a round comes to: the title of each figure, and how many digits of it mean something."""

_SLACK_SECONDS: Final = 0.5


class Load(NamedTuple):
    """So many streams, of so many events a second each."""

    streams: int
    rate: int

    @property
    def name(self) -> str:
        """Say it."""
        return f"{self.streams} streams of {self.rate} events a second"


async def measure(
    way: Way, load: Load, *, seconds: float, bodies: Iterator[bytes]
) -> Mapping[str, float]:
    """Open the streams, one after another; look at what flows, for so many seconds.

    Raises:
        SystemExit: an event is missing.
        OSError, TimeoutError: a stream is.
    """
    lead = max(SPREAD_SECONDS_MIN, load.streams / BEGUN_PER_SECOND)
    number = round((seconds + lead + _SLACK_SECONDS) * load.rate)
    loop = asyncio.get_running_loop()
    listeners: list[Listener] = []
    transports = []
    began = loop.time()
    async with asyncio.timeout(60 + 10 * seconds):
        for i, body in enumerate(islice(bodies, load.streams)):
            await asyncio.sleep(max(0.0, began + i * lead / load.streams - loop.time()))
            transport, listener = await connect(way.port, _request(body, number, load.rate))
            transports.append(transport)
            listeners.append(listener)
        await asyncio.gather(*(listener.begun for listener in listeners))
        before, messages = _cpu(way), way.messages()
        window = time.monotonic_ns(), time.monotonic_ns() + round(seconds * 1e9)
        await asyncio.sleep(seconds)
        after, messages = _cpu(way), way.messages() - messages
        await asyncio.gather(*(listener.ended for listener in listeners))
    for transport in transports:
        transport.close()
    heard = [one.heard() for one in listeners]
    if missing := sum(number - one.events for one in heard):
        msg = f"{missing} events are missing"
        raise SystemExit(msg)
    used = {name: after[name] - before[name] for name in before}
    return _figures(heard, window, messages, used)


async def first_event_ms(way: Way, body: bytes) -> float:
    """Time one stream of two events, from the request to the first."""
    transport, listener = await connect(way.port, _request(body, 2, 500))
    await listener.ended
    transport.close()
    return listener.heard().first_ms


def _cpu(way: Way) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in way.pids.items()}


def _request(body: bytes, number: int, rate: int) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-tenant-id: rich\r\n"
        b"x-events: %d\r\nx-rate: %d\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (number, rate, len(body), body)
    )


def _figures(
    heard: Sequence[Heard], window: tuple[int, int], messages: int, used: Mapping[str, float]
) -> Mapping[str, float]:
    """Put together what the streams came to in the window: all that `FIGURES` names."""
    begin, end = window
    streams = [[read for read in one.reads if begin <= read.read_ns < end] for one in heard]
    reads = [read for stream in streams for read in stream]
    events = sum(len(read.made_ns) for read in reads)
    times = {
        "first": [one.first_ms for one in heard],
        "gap": [gap for stream in streams for gap in _gaps_ms(stream)],
        "delay": [(read.read_ns - made) / 1e6 for read in reads for made in read.made_ns],
    }
    found: dict[str, float] = {}
    for name, values in times.items():
        shares = statistics.quantiles(values, n=100, method="inclusive")
        found |= {f"{name}_p50_ms": shares[49], f"{name}_p99_ms": shares[98]}
    found["merged"] = 1e3 * (events - sum(read.chunks for read in reads)) / events
    found["messages"] = messages / events
    return found | {f"{name}_us": 1e6 * seconds / events for name, seconds in used.items()}


def _gaps_ms(stream: Sequence[Read]) -> Iterator[float]:
    """Between one event and the next: none where they were read together."""
    times = [read.read_ns for read in stream for _ in read.made_ns]
    return ((late - early) / 1e6 for early, late in pairwise(times))
