"""Servers behind real Envoys, one for each, all running at once; what a request costs them.

Envoy answers by itself behind the filter: no upstream takes part. CPU is the kernel's count for
the whole process, threads that have ended included.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from bench.load import Answers, drive, pace
from extproc.demo.attachment import Tree, Wiring
from extproc.demo.envoy import ADAPTERS, Gateway, gateway
from extproc.demo.process import Child, child

READY: Final = "listening on "
"""What a server's line begins with that says where it listens."""

_PACED_CONNECTIONS: Final = 64


class Peer(NamedTuple):
    """A server, and an Envoy that asks it; or an Envoy that asks nobody."""

    server: Child | None
    envoy: Gateway


class Round(NamedTuple):
    """What some requests came to. CPU in µs a request."""

    server_us: float | None
    envoy_us: float
    per_second: float
    p50_ms: float
    p99_ms: float


def answer_by_itself(config: Tree) -> Tree:
    """Edit a bootstrap so that Envoy answers every route: what is measured ends there."""
    manager = _manager(config)
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            route.pop("route", None)
            route["direct_response"] = {"status": 200, "body": {"inline_string": "{}"}}
    manager["access_log"] = []
    return config


def answer_and_record(config: Tree) -> Tree:
    """Edit a bootstrap so that Envoy answers every route, and tells the service of it."""
    records = _manager(config)["access_log"]
    _manager(answer_by_itself(config))["access_log"] = records
    return config


def without_filter(config: Tree) -> Tree:
    """Edit a bootstrap so that nobody is asked."""
    manager = _manager(config)
    manager["http_filters"] = [f for f in manager["http_filters"] if f["name"] != "llm.policy"]
    return config


def bare(config: Tree) -> Tree:
    """Edit a bootstrap so that Envoy has no filter but the router and one that waits for the body.

    Without that one it would answer a request that it has not read.
    """
    manager = _manager(answer_by_itself(config))
    kind = "envoy.extensions.filters.http.buffer.v3.Buffer"
    waits = {"@type": f"type.googleapis.com/{kind}", "max_request_bytes": 1 << 23}
    buffer = {"name": "buffer", "typed_config": waits}
    manager["http_filters"] = [buffer, manager["http_filters"][-1]]
    return config


def _manager(config: dict[str, Any]) -> dict[str, Any]:
    (listener,) = config["static_resources"]["listeners"]
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


@contextmanager
def behind_envoy(
    command: Sequence[str | Path] | None,
    *,
    directory: Path,
    edit: Callable[[Tree], Tree] = answer_by_itself,
) -> Iterator[Peer]:
    """Run a server that says where it listens, and an Envoy that asks it; or one that asks nobody.

    Raises:
        StartError: one of them did not start.
    """
    if command is None:
        wiring = Wiring(1, dict.fromkeys(ADAPTERS, 1), trusts_tenant_header=True)
        with gateway(wiring, directory=directory, edit=bare) as envoy:
            yield Peer(None, envoy)
        return
    with child("server", command, directory=directory) as server:
        port = int(server.wait_for_line(READY).rpartition(":")[2])
        wiring = Wiring(port, dict.fromkeys(ADAPTERS, 1), trusts_tenant_header=True)
        with gateway(wiring, directory=directory, edit=edit) as envoy:
            yield Peer(server, envoy)


def cpu_seconds(pid: int) -> float:
    """CPU that a process has had so far, to the nanosecond. Linux only.

    See clock_getcpuclockid(3): the clock of a process is its number, inverted, and two bits.
    """
    return time.clock_gettime((~pid << 3) | 2)


def at_once(peer: Peer, bodies: Sequence[bytes], *, connections: int) -> Round:
    """Send them as fast as they are answered."""

    def send() -> Answers:
        return uvloop.run(drive(peer.envoy.port, bodies, connections=connections))

    return _measured(peer, send)


def at_rate(peer: Peer, bodies: Sequence[bytes], *, per_second: float, seed: int) -> Round:
    """Send them at a rate, whatever comes back."""

    def send() -> Answers:
        return uvloop.run(
            pace(
                peer.envoy.port,
                bodies,
                per_second=per_second,
                connections=_PACED_CONNECTIONS,
                seed=seed,
            )
        )

    return _measured(peer, send)


def _measured(peer: Peer, send: Callable[[], Answers]) -> Round:
    before = _cpu(peer)
    answers = send()
    used = {name: seconds - before[name] for name, seconds in _cpu(peer).items()}
    number = len(answers.latencies_ms)
    if set(answers.statuses) != {200}:
        msg = f"unexpected answers {dict(answers.statuses)}"
        raise SystemExit(msg)
    shares = statistics.quantiles(answers.latencies_ms, n=100, method="inclusive")
    return Round(
        server_us=1e6 * used["server"] / number if "server" in used else None,
        envoy_us=1e6 * used["envoy"] / number,
        per_second=number / answers.seconds,
        p50_ms=shares[49],
        p99_ms=shares[98],
    )


def _cpu(peer: Peer) -> Mapping[str, float]:
    pids = {"envoy": peer.envoy.child.process.pid}
    if peer.server is not None:
        pids["server"] = peer.server.process.pid
    return {name: cpu_seconds(pid) for name, pid in pids.items()}
