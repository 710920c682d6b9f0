"""CPU of the transport alone: our own beside grpc.aio, both serving an ext_proc that does nothing.

    .venv/bin/python -m bench.transport [--rounds 7] [--requests 4000]

One real Envoy for each server, all running at once; rounds alternate between them, so that the
machine's moods hit both. A request is one gRPC stream with two messages each way and a body of
2 KB. Envoy answers by itself behind the filter: no upstream takes part. CPU is what the kernel
counted for the server's process. Both decode and encode the same protobufs, which is in their
figures; what a server costs that does not even look at its messages stands beside them.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from bench.corpus import chats
from bench.load import drive
from bench.through_envoy import BODY_BYTES, answer_by_itself
from extproc.demo.attachment import Wiring
from extproc.demo.envoy import ADAPTERS, Gateway, gateway
from extproc.demo.process import Child, child

SERVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "ours": ("bench.transport_server",),
    "ours, messages unread": ("bench.transport_server", "unread"),
    "grpc.aio": ("bench.noop_server",),
}
CONNECTIONS: Final = (1, 16, 64)
BODIES: Final = 200


class Peer(NamedTuple):
    """A server, and an Envoy that asks it."""

    server: Child
    envoy: Gateway


@contextmanager
def peers(directory: Path) -> Iterator[dict[str, Peer]]:
    """Run every server behind an Envoy of its own."""
    with ExitStack() as stack:
        found = {}
        for name, module in SERVERS.items():
            home = directory / "-".join(module)
            home.mkdir()
            arguments = [sys.executable, "-m", *module]
            server = stack.enter_context(child("server", arguments, directory=home))
            port = int(server.wait_for_line("listening on ").rpartition(":")[2])
            wiring = Wiring(port, dict.fromkeys(ADAPTERS, 1), trusts_tenant_header=True)
            envoy = stack.enter_context(gateway(wiring, directory=home, edit=answer_by_itself))
            found[name] = Peer(server, envoy)
        yield found


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have run so far; to the nanosecond, unlike its `stat`."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measure(peer: Peer, *, connections: int, requests: int) -> tuple[float, float]:
    """Return µs of CPU per request: of the server, and of Envoy."""
    known = list(islice(chats(BODY_BYTES), BODIES))
    bodies = (known[number % BODIES] for number in range(requests))
    pids = (peer.server.process.pid, peer.envoy.child.process.pid)
    before = [cpu_seconds(pid) for pid in pids]
    statuses = asyncio.run(drive(peer.envoy.port, bodies, connections=connections))
    server, envoy = (
        1e6 * (cpu_seconds(pid) - began) / requests for pid, began in zip(pids, before, strict=True)
    )
    if statuses != {200: requests}:
        msg = f"unexpected answers {statuses}"
        raise SystemExit(msg)
    return server, envoy


def table(found: Mapping[str, Peer], *, connections: int, rounds: int, requests: int) -> None:
    """Print one block."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    names = list(found)
    for _ in range(rounds):
        names = [*names[1:], names[0]]
        for name in names:
            one = measure(found[name], connections=connections, requests=requests)
            figures[name].append(one)
    print(f"  {connections} connections")
    for name, measured in figures.items():
        server, envoy = zip(*measured, strict=True)
        print(
            f"    {name:<22}{statistics.median(server):7.1f} ({min(server):.1f}..{max(server):.1f})"
            f"   Envoy {statistics.median(envoy):6.1f}"
        )
    for name in list(figures)[1:]:
        ratios = [
            one[0] / ours[0] for one, ours in zip(figures[name], figures["ours"], strict=True)
        ]
        print(
            f"    {name} / ours: {statistics.median(ratios):.2f}"
            f" ({min(ratios):.2f}..{max(ratios):.2f})"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=4000)
    wanted = parser.parse_args()
    print("Through Envoy, an ext_proc that does nothing: µs of server CPU per request,")
    print(f"median (min..max) of {wanted.rounds} interleaved rounds of {wanted.requests}")
    with tempfile.TemporaryDirectory() as directory, peers(Path(directory)) as found:
        for peer in found.values():
            measure(peer, connections=16, requests=500)
        for connections in CONNECTIONS:
            table(found, connections=connections, rounds=wanted.rounds, requests=wanted.requests)


if __name__ == "__main__":
    main()
