"""How Envoy's connections divide requests among workers, and what divides them better.

    .venv/bin/python -m bench.workers

One service with four workers, and Envoys of 1, 2 and 4 threads in front of it, one after the other.
The kernel gives each *connection* to a worker; an Envoy thread has one connection to the service,
with all its requests on it, for as long as both live. So few threads use few workers. Two settings
of a DestinationRule's `connectionPool.http` change that: `maxRequestsPerConnection` has connections
replaced after so many requests, so that in time all workers have their part; `maxConcurrentStreams`
has another one opened while so many requests wait, so that several workers decide at a time.

Envoy answers by itself behind the filter. Prints each worker's share of the requests, and how many
connections there were at most when Envoy was looked at; then a line of JSON.
"""

import asyncio
import json
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from bench.corpus import chats
from bench.load import drive
from bench.through_envoy import answer_by_itself
from extproc.demo.attachment import Tree, Wiring
from extproc.demo.envoy import ADAPTERS, SERVICE_CLUSTER, SERVICE_STATS, Gateway, gateway
from extproc.demo.process import child
from tests.conformance.harness import settings_in
from tests.scenarios.table import SETTINGS as TENANTS
from tests.valkeys import running

WORKERS: Final = 4
THREADS: Final = (1, 2, 4)
CONNECTIONS: Final = 32
REQUESTS: Final = 1600
BODY_BYTES: Final = 500
START_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.1
SETTINGS: Final[Mapping[str, Mapping[str, int]]] = {
    "Istio's defaults": {},
    "maxRequestsPerConnection: 50": {"requests": 50},
    "maxConcurrentStreams: 4": {"streams": 4},
    "both": {"requests": 50, "streams": 4},
}
OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class Row(NamedTuple):
    """One Envoy. `shares` are those of the workers, the largest first."""

    setting: str
    threads: int
    shares: list[float]
    connections: int
    """At most, at a time."""
    connected: int
    """All together."""


class Service(NamedTuple):
    """Where several workers listen, and where they are shown."""

    port: int
    admin: str

    def decisions(self) -> list[float]:
        """How many exchanges each worker has seen."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        name = "llm_extproc_worker_decisions_total{"
        return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)]


@contextmanager
def service(directory: Path) -> Iterator[Service]:
    """Run it on a Valkey of its own."""
    with running() as valkey:
        ledger = {"kind": "valkey", "url": valkey.url}
        settings = settings_in(directory, source=TENANTS, ledger=ledger)
        words = ["-m", "extproc", "serve", "--settings", str(settings), "--port", "0"]
        words += ["--workers", str(WORKERS)]
        with child("service", [sys.executable, *words], directory=directory) as running_service:

            def look() -> bool | None:
                return "\nlistening on " in running_service.log.read_text() or None

            running_service.wait_for(look, seconds=START_SECONDS)
            port = int(running_service.wait_for_line("listening on ").rpartition(":")[2])
            yield Service(port, running_service.wait_for_line("admin on "))


def with_pool(wanted: Mapping[str, int]) -> Callable[[Tree], Tree]:
    """Edit a bootstrap as istiod would for such a connection pool."""

    def edit(config: Tree) -> Tree:
        clusters: list[dict[str, Any]] = config["static_resources"]["clusters"]
        (own,) = (cluster for cluster in clusters if cluster["name"] == SERVICE_CLUSTER)
        options = own["typed_extension_protocol_options"][OPTIONS]
        if "requests" in wanted:
            common = options.setdefault("common_http_protocol_options", {})
            common["max_requests_per_connection"] = wanted["requests"]
        if "streams" in wanted:
            http2 = options["explicit_http_config"]["http2_protocol_options"]
            http2["max_concurrent_streams"] = wanted["streams"]
        return answer_by_itself(config)

    return edit


async def driven(envoy: Gateway, seed: int) -> tuple[dict[int, int], int]:
    """Send all requests; return the statuses, and how many connections were seen at a time."""
    bodies = islice(chats(BODY_BYTES, seed=seed), REQUESTS)
    driving = asyncio.ensure_future(drive(envoy.port, bodies, connections=CONNECTIONS))
    most = 0
    while not driving.done():
        await asyncio.wait([driving], timeout=LOOK_SECONDS)
        stats = await asyncio.to_thread(envoy.stats, SERVICE_STATS)
        most = max(most, stats["upstream_cx_active"])
    return driving.result().statuses, most


def measured(served: Service, name: str, threads: int, seed: int, directory: Path) -> Row:
    """Put an Envoy in front of the service, and see where its requests go."""
    wiring = Wiring(
        served.port,
        dict.fromkeys(ADAPTERS, 1),
        message_timeout="10s",  # a busy machine is slow, and that is not what is looked at
        trusts_tenant_header=True,
    )
    edit = with_pool(SETTINGS[name])
    with gateway(wiring, directory=directory, edit=edit, concurrency=threads) as envoy:
        before = served.decisions()
        statuses, most = uvloop.run(driven(envoy, seed))
        after = served.decisions()
        connected = envoy.stats(SERVICE_STATS)["upstream_cx_total"]
    if statuses != {200: REQUESTS}:
        msg = f"{name}: unexpected answers {statuses}"
        raise SystemExit(msg)
    counts = [end - begin for begin, end in zip(before, after, strict=True)]
    shares = sorted((round(100 * count / sum(counts), 1) for count in counts), reverse=True)
    return Row(name, threads, shares, most, connected)


def main() -> None:
    """Print the table, and the last line."""
    print(f"{REQUESTS} requests by {CONNECTIONS} clients, {WORKERS} workers; % of the requests")
    print(f"{'':30}{'threads':>8}  {'share of each worker':30}{'connections':>12}{'in all':>8}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as served:
        for name in SETTINGS:
            for threads in THREADS:
                row = measured(served, name, threads, len(rows), Path(folder))
                rows.append(row)
                shares = "".join(f"{share:7.1f}" for share in row.shares)
                told = f"{name:30}{threads:8}  {shares:30}{row.connections:12}{row.connected:8}"
                print(told, flush=True)
    print(json.dumps({"workers": WORKERS, "rows": [row._asdict() for row in rows]}))


if __name__ == "__main__":
    main()
