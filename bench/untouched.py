"""Streams through Envoy: what the filter and its meter do to their events, beside other ways.

    .venv/bin/python -m bench.untouched [--seconds 3] [--rounds 3]

Upstream and client are bare protocols in processes of their own (this one is the client), and
every event carries the instant of its making. Rounds alternate between Envoys that all run. CPU
is what the kernel counted while all streams were flowing: after the last one's first event, and
before any ended. On a machine that does other things as well, run it under `nice -n -10`.
"""

import argparse
import asyncio
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from bench.corpus import chats
from bench.sse_client import Heard, Listener, Read, connect
from extproc.demo.attachment import Tree, Wiring
from extproc.demo.envoy import ADAPTERS, MANAGER_STATS, SERVICE_CLUSTER, Gateway, gateway, unchanged
from extproc.demo.process import child
from extproc.demo.stage import service
from tests.scenarios.table import SETTINGS

RATE: Final = 50
MANY: Final = 200
FEW: Final = 40
"""What Envoy and a Python processor can do on two cores when every event goes to it."""

SPREAD_SECONDS: Final = 2.0
"""Over which the streams of a round begin: else the last to be decided waits for all others."""

BODY_BYTES: Final = 2048
_SLACK_SECONDS: Final = 1.0
_MESSAGES: Final = "stream_msgs_sent"


class Way(NamedTuple):
    """How answers come back. `pids` are those whose CPU is counted, by what they are."""

    name: str
    port: int
    pids: Mapping[str, int]
    envoy: Gateway | None = None

    def messages(self) -> int:
        """How many messages Envoy has sent to any processor."""
        if self.envoy is None:
            return 0
        stats = self.envoy.stats(MANAGER_STATS + "ext_proc.")
        return sum(number for name, number in stats.items() if name.endswith(_MESSAGES))


class Round(NamedTuple):
    """What came of one round while all streams were flowing. CPU in µs an event."""

    first_ms: list[float]
    gap_ms: list[float]
    delay_ms: list[float]
    events: int
    together: int
    """Events that were read together with one before them."""
    merged: int
    """Events that did not have a chunk to themselves."""
    messages: int
    """Sent to processors."""
    cpu: Mapping[str, float]


def plain(config: Tree) -> Tree:
    """Edit a bootstrap: neither filter nor meter nor records."""
    manager = _manager(config)
    manager["http_filters"] = manager["http_filters"][-1:]
    manager["access_log"] = []
    return config


def processed(port: int, mode: str) -> Callable[[Tree], Tree]:
    """Edit a bootstrap: a processor that is sent every chunk, in place of the meter."""

    def edit(config: Tree) -> Tree:
        filters = _manager(config)["http_filters"]
        (place,) = (i for i, one in enumerate(filters) if one["name"] == "llm.meter")
        filters[place] = {"name": "chunks", "typed_config": _processor(mode)}
        clusters = config["static_resources"]["clusters"]
        (own,) = (cluster for cluster in clusters if cluster["name"] == SERVICE_CLUSTER)
        other = copy.deepcopy(own) | {"name": "chunks", "alt_stat_name": ""}
        endpoint = other["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["address"]["socket_address"]["port_value"] = port
        clusters.append(other)
        return config

    return edit


def _processor(mode: str) -> dict[str, Any]:
    kind = "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
    found: dict[str, Any] = {
        "@type": f"type.googleapis.com/{kind}",
        "stat_prefix": "chunks.",
        "grpc_service": {"envoy_grpc": {"cluster_name": "chunks"}},
        "failure_mode_allow": True,
        "message_timeout": "10s",
        "processing_mode": {
            "request_header_mode": "SKIP",
            "response_header_mode": "SKIP",
            "response_body_mode": "STREAMED",
        },
    }
    if mode == "observed":
        found["observability_mode"] = True
    return found


def _manager(config: dict[str, Any]) -> dict[str, Any]:
    (listener,) = config["static_resources"]["listeners"]
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


@contextmanager
def ways(directory: Path) -> Iterator[list[Way]]:
    """Run an upstream, the service, two processors, and an Envoy for each way."""
    with ExitStack() as stack:

        def program(name: str, *arguments: str) -> tuple[int, int]:
            command = [sys.executable, "-m", f"bench.{name}", *arguments]
            label = "-".join((name, *arguments))
            running = stack.enter_context(child(label, command, directory=directory))
            port = running.wait_for_line("listening on ").rpartition(":")[2]
            return running.process.pid, int(port)

        _, upstream_port = program("sse_upstream")
        running, service_port = stack.enter_context(service(SETTINGS, directory=directory))
        found = [Way("no Envoy", upstream_port, {})]
        wiring = Wiring(
            service_port, dict.fromkeys(ADAPTERS, upstream_port), trusts_tenant_header=True
        )

        def add(name: str, edit: Callable[[Tree], Tree], **servers: int) -> None:
            home = directory / f"way-{len(found)}"
            home.mkdir()
            envoy = stack.enter_context(gateway(wiring, directory=home, edit=edit))
            pids = {"Envoy": envoy.child.process.pid, **servers}
            found.append(Way(name, envoy.port, pids, envoy))

        add("plain Envoy", plain)
        add("filter and Lua meter", unchanged, service=running.process.pid)
        for name, mode in (("ext_proc, observed", "observed"), ("ext_proc, STREAMED", "streamed")):
            pid, port = program("chunk_server", mode)
            add(name, processed(port, mode), service=pid)
        yield found


def cpu_seconds(pid: int) -> float:
    """CPU that all threads of a process have had, as the scheduler counts it."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


async def measure(way: Way, *, streams: int, seconds: float, bodies: Iterator[bytes]) -> Round:
    """Open so many streams, one after another; look at what flows, for so many seconds."""
    number = round((seconds + SPREAD_SECONDS + _SLACK_SECONDS) * RATE)
    listeners: list[Listener] = []
    transports = []
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(60 + 10 * seconds):
        for i, body in enumerate(islice(bodies, streams)):
            ahead = began + i * SPREAD_SECONDS / streams - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, ahead))
            transport, listener = await connect(way.port, _request(body, number))
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
    cpu = {name: after[name] - before[name] for name in before}
    return _round([one.heard() for one in listeners], window, messages, cpu, number)


def _cpu(way: Way) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in way.pids.items()}


def _request(body: bytes, number: int) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-tenant-id: rich\r\n"
        b"x-events: %d\r\nx-rate: %d\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (number, RATE, len(body), body)
    )


def _round(
    heard: Sequence[Heard],
    window: tuple[int, int],
    messages: int,
    cpu: Mapping[str, float],
    number: int,
) -> Round:
    """Put together what the streams of a round came to.

    Raises:
        SystemExit: an event is missing.
    """
    if missing := sum(number - one.events for one in heard):
        msg = f"{missing} events are missing"
        raise SystemExit(msg)
    begin, end = window
    streams = [[read for read in one.reads if begin <= read.read_ns < end] for one in heard]
    reads = [read for stream in streams for read in stream]
    events = sum(len(read.made_ns) for read in reads)
    return Round(
        first_ms=[one.first_ms for one in heard],
        gap_ms=[gap for stream in streams for gap in _gaps_ms(stream)],
        delay_ms=[(read.read_ns - made) / 1e6 for read in reads for made in read.made_ns],
        events=events,
        together=events - len(reads),
        merged=events - sum(read.chunks for read in reads),
        messages=messages,
        cpu={name: 1e6 * used / events for name, used in cpu.items()},
    )


def _gaps_ms(stream: Sequence[Read]) -> Iterator[float]:
    """Between one event and the next: none where they were read together."""
    times = [read.read_ns for read in stream for _ in read.made_ns]
    return ((late - early) / 1e6 for early, late in pairwise(times))


async def compare(
    found: Sequence[Way], *, streams: int, seconds: float, rounds: int
) -> dict[str, list[Round]]:
    """Measure every way in turn, and again; the first turn warms up and is not counted."""
    bodies = chats(BODY_BYTES, seed=streams, stream=True)
    told: dict[str, list[Round]] = {way.name: [] for way in found}
    for turn in range(rounds + 1):
        for way in found:
            length = seconds if turn else 0.5
            one = await measure(way, streams=streams, seconds=length, bodies=bodies)
            if turn:
                told[way.name].append(one)
    return told


def show(title: str, told: Mapping[str, Sequence[Round]]) -> None:
    """Print one table: the median over the rounds of each figure."""
    print(f"\n{title}")
    print(
        f"  {'':<22}{'first event':>16}{'gap':>16}{'delay':>16}"
        f"{'read':>10}{'merged':>8}{'messages':>10}{'Envoy':>8}{'service':>9}"
    )
    print(
        f"  {'':<22}" + f"{'median':>8}{'p99':>8}" * 3 + f"{'together':>10}{'':>8}"
        f"{'an event':>10}{'µs':>8}{'µs':>9}"
    )
    for name, rounds in told.items():
        cells = "".join(
            f"{_over(rounds, field, 50):>8.2f}{_over(rounds, field, 99):>8.2f}"
            for field in ("first_ms", "gap_ms", "delay_ms")
        )
        events = sum(one.events for one in rounds)
        messages = sum(one.messages for one in rounds) / events
        cells += f"{sum(one.together for one in rounds):>10}{sum(r.merged for r in rounds):>8}"
        cells += f"{messages:>10.2f}"
        for server, width in (("Envoy", 8), ("service", 9)):
            used = [one.cpu[server] for one in rounds if server in one.cpu]
            cells += f"{statistics.median(used):>{width}.1f}" if used else " " * width
        print(f"  {name:<22}{cells}   of {events}")


def _over(rounds: Sequence[Round], field: str, percent: int) -> float:
    """Return the median over the rounds of a percentile."""
    times: list[list[float]] = [getattr(one, field) for one in rounds]
    return statistics.median(statistics.quantiles(one, n=100)[percent - 1] for one in times)


async def idle(way: Way, seconds: float) -> float:
    """µs of CPU that the service takes in a second in which nothing happens."""
    before = _cpu(way)["service"]
    await asyncio.sleep(seconds)
    return 1e6 * (_cpu(way)["service"] - before) / seconds


async def run(found: Sequence[Way], *, seconds: float, rounds: int) -> None:
    """Measure and print."""
    _, without, ours, *_ = found
    many = await compare(found[:3], streams=MANY, seconds=seconds, rounds=rounds)
    show(f"{MANY} streams of {RATE} events a second, {rounds} rounds of {seconds:g} s, ms", many)
    resting = await idle(ours, seconds)
    per_second = MANY * RATE
    print(
        f"  the service at rest takes {resting:.0f} µs a second,"
        f" which is {resting / per_second:.2f} µs an event of {per_second} a second"
    )
    ratios = [
        one.cpu["Envoy"] / other.cpu["Envoy"]
        for one, other in zip(many[ours.name], many[without.name], strict=True)
    ]
    print(f"  Envoy, with filter and meter / plain: {statistics.median(ratios):.2f}", end="")
    print(f" ({min(ratios):.2f}..{max(ratios):.2f})")
    few = await compare(found[1:], streams=FEW, seconds=seconds, rounds=rounds)
    show(f"{FEW} streams, other ways to meter (each does nothing with what it gets), ms", few)


def main(*arguments: str) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="bench.untouched")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory, ways(Path(directory)) as found:
        uvloop.run(run(found, seconds=options.seconds, rounds=options.rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
