"""Time to the first event of a stream, with the filter and without, side by side.

    .venv/bin/python -m bench.first_event

The upstream sends its first event at once and the last when it has been told to, so what is
measured is the way there and back. Requests alternate between the two Envoys.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from bench.corpus import chats
from bench.through_envoy import without_filter
from extproc.demo.attachment import Wiring
from extproc.demo.envoy import ADAPTERS, Gateway, gateway, unchanged
from extproc.demo.stage import service
from tests.scenarios.table import SETTINGS

REQUESTS = 400
BODY_BYTES = 2048
TIMEOUT_SECONDS = 120

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = b'f\r\ndata: {"n": 1}\n\n\r\n'.replace(b"f\r\n", b"11\r\n", 1)


async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with two events, the second a moment after the first."""
    # Cancelled at the end, when the loop closes under the connections that Envoy keeps.
    with contextlib.suppress(asyncio.CancelledError), contextlib.closing(writer):
        while head := await _head(reader):
            length = head.lower().index(b"content-length:") + 15
            await reader.readexactly(int(head[length : head.index(b"\r\n", length)]))
            writer.write(_HEAD + _EVENT)
            await asyncio.sleep(0.002)
            writer.write(_EVENT + b"0\r\n\r\n")


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def first_event_ms(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: bytes
) -> float:
    """Send one request; return when its first event was there."""
    reader, writer = streams
    begin = time.perf_counter()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-tenant-id: rich\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    await reader.readuntil(b"data: ")
    elapsed = time.perf_counter() - begin
    await reader.readuntil(b"0\r\n\r\n")
    return elapsed * 1e3


async def compare(envoys: dict[str, Gateway], bodies: Iterator[bytes]) -> dict[str, list[float]]:
    """Ask each Envoy in turn."""
    found: dict[str, list[float]] = {name: [] for name in envoys}
    streams = {
        name: await asyncio.open_connection("127.0.0.1", envoy.port)
        for name, envoy in envoys.items()
    }
    for body in bodies:
        for name, pair in streams.items():
            found[name].append(await first_event_ms(pair, body))
    for _, writer in streams.values():
        writer.close()
    return found


async def run() -> dict[str, list[float]]:
    """Start an upstream, the service and two Envoys; compare them."""
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        _, service_port = stack.enter_context(service(SETTINGS, directory=directory))
        wiring = Wiring(service_port, dict.fromkeys(ADAPTERS, port), trusts_tenant_header=True)
        envoys = {}
        for variant, edit in (("with the filter", unchanged), ("without", without_filter)):
            home = directory / variant.partition(" ")[0]
            home.mkdir()
            envoys[variant] = stack.enter_context(gateway(wiring, directory=home, edit=edit))
        async with asyncio.timeout(TIMEOUT_SECONDS), server:
            await compare(envoys, islice(chats(BODY_BYTES, seed=1, stream=True), 20))
            return await compare(envoys, islice(chats(BODY_BYTES, stream=True), REQUESTS))


def main() -> None:
    """Print the table."""
    found = asyncio.run(run())
    print(f"\nTime to the first event of a stream, {REQUESTS} alternating requests, ms")
    for name, times in found.items():
        p99 = statistics.quantiles(times, n=100)[98]
        print(f"  {name:<18} median {statistics.median(times):6.2f}   p99 {p99:6.2f}")
    added = [one - other for one, other in zip(*found.values(), strict=True)]
    print(f"  {'added':<18} median {statistics.median(added):6.2f}")


if __name__ == "__main__":
    main()
