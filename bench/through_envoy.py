"""CPU per request of the service, through a real Envoy, beside a server that does nothing.

    .venv/bin/python -m bench.through_envoy

One Envoy for each server, both running at once; rounds alternate between them, so that the
machine's moods hit both. Bodies are 2 KB chats that were never seen before. Envoy answers by
itself behind the filter: no upstream takes part.
"""

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bench.corpus import chats
from bench.load import drive
from extproc.demo.attachment import Tree, Wiring
from extproc.demo.envoy import ADAPTERS, Gateway, gateway
from extproc.demo.process import Child, child
from extproc.demo.stage import service
from tests.scenarios.table import SETTINGS

BODY_BYTES = 2048
REQUESTS = 1500
ROUNDS = 5
CONNECTIONS = (16, 64)
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Peer(NamedTuple):
    """A server, and an Envoy that asks it."""

    name: str
    server: Child
    envoy: Gateway


def answer_by_itself(config: Tree) -> Tree:
    """Edit a bootstrap so that Envoy answers every route: what is measured ends there."""
    manager = _manager(config)
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            route.pop("route", None)
            route["direct_response"] = {"status": 200, "body": {"inline_string": "{}"}}
    manager["access_log"] = []
    return config


def without_filter(config: Tree) -> Tree:
    """Edit a bootstrap so that nobody is asked."""
    manager = _manager(config)
    manager["http_filters"] = [f for f in manager["http_filters"] if f["name"] != "llm.policy"]
    return config


def _manager(config: dict[str, Any]) -> dict[str, Any]:
    (listener,) = config["static_resources"]["listeners"]
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


@contextmanager
def peers(directory: Path) -> Iterator[list[Peer]]:
    """Run ours and the one that does nothing."""
    with ExitStack() as stack:
        found = []
        for name in ("ours", "grpc.aio doing nothing"):
            home = directory / name.partition(" ")[0]
            home.mkdir()
            if name == "ours":
                server, port = stack.enter_context(service(SETTINGS, directory=home))
            else:
                arguments = [sys.executable, "-m", "bench.noop_server"]
                server = stack.enter_context(child("noop", arguments, directory=home))
                port = int(server.wait_for_line("listening on ").rpartition(":")[2])
            wiring = Wiring(port, dict.fromkeys(ADAPTERS, 1), trusts_tenant_header=True)
            envoy = stack.enter_context(gateway(wiring, directory=home, edit=answer_by_itself))
            found.append(Peer(name, server, envoy))
        yield found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def measure(peer: Peer, *, connections: int, seed: int) -> tuple[float, float]:
    """Return µs of CPU per request: of the server, and of Envoy."""
    bodies = list(islice(chats(BODY_BYTES, seed=seed), REQUESTS))
    before = [cpu_seconds(pid) for pid in _pids(peer)]
    statuses = asyncio.run(drive(peer.envoy.port, iter(bodies), connections=connections))
    after = [cpu_seconds(pid) for pid in _pids(peer)]
    if statuses != {200: REQUESTS}:
        msg = f"{peer.name}: unexpected answers {statuses}"
        raise SystemExit(msg)
    server, envoy = (
        1e6 * (end - begin) / REQUESTS for begin, end in zip(before, after, strict=True)
    )
    return server, envoy


def _pids(peer: Peer) -> tuple[int, int]:
    return peer.server.process.pid, peer.envoy.child.process.pid


def main() -> None:
    """Print the table."""
    print(f"\nThrough Envoy, {BODY_BYTES} B chats never seen before,")
    print(f"median (min..max) of {ROUNDS} interleaved rounds of {REQUESTS}, µs CPU per request")
    with tempfile.TemporaryDirectory() as directory, peers(Path(directory)) as found:
        for peer in found:
            measure(peer, connections=CONNECTIONS[0], seed=-1)
        for connections in CONNECTIONS:
            _table(found, connections)


def _table(found: list[Peer], connections: int) -> None:
    figures: dict[str, list[tuple[float, float]]] = {peer.name: [] for peer in found}
    for number in range(ROUNDS):
        for peer in found:
            figures[peer.name].append(measure(peer, connections=connections, seed=number))
    print(f"  {connections} connections")
    for name, rounds in figures.items():
        server, envoy = zip(*rounds, strict=True)
        spread = f"({min(server):.0f}..{max(server):.0f})"
        print(
            f"    {name:<24}{statistics.median(server):7.0f} {spread:<14}"
            f" Envoy {statistics.median(envoy):5.0f}"
        )
    ours, nothing = (figures[peer.name] for peer in found)
    ratios = [one[0] / other[0] for one, other in zip(ours, nothing, strict=True)]
    print(
        f"    ours / doing nothing      {statistics.median(ratios):.2f}"
        f" ({min(ratios):.2f}..{max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
