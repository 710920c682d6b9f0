"""Ways for the events of a stream to come back, each through an Envoy of its own."""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from extproc.demo.attachment import Tree, Wiring
from extproc.demo.envoy import ADAPTERS, MANAGER_STATS, SERVICE_CLUSTER, Gateway, gateway, unchanged
from extproc.demo.process import child
from extproc.demo.stage import service
from tests.scenarios.table import SETTINGS

NO_ENVOY: Final = "no Envoy"
NONE: Final = "none"
LUA: Final = "Lua meter"
OBSERVE: Final = "observe"
STREAMED: Final = "STREAMED"
NAMES: Final = (NO_ENVOY, NONE, LUA, OBSERVE, STREAMED)

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


def unlimited(config: Tree) -> Tree:
    """Edit a bootstrap: as many connections and requests as come; the routes have limits."""
    names = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    for cluster in config["static_resources"]["clusters"]:
        cluster["circuit_breakers"] = {"thresholds": [dict.fromkeys(names, 2**32 - 1)]}
    return config


def plain(config: Tree) -> Tree:
    """Edit a bootstrap: neither filter nor meter nor records."""
    manager = _manager(config)
    manager["http_filters"] = manager["http_filters"][-1:]
    manager["access_log"] = []
    return config


def processed(port: int) -> Callable[[Tree], Tree]:
    """Edit a bootstrap: a processor that every chunk waits for, in place of the meter."""

    def edit(config: Tree) -> Tree:
        filters = _manager(config)["http_filters"]
        (place,) = (i for i, one in enumerate(filters) if one["name"] == "llm.meter")
        filters[place] = {"name": "chunks", "typed_config": _processor()}
        clusters = config["static_resources"]["clusters"]
        (own,) = (cluster for cluster in clusters if cluster["name"] == SERVICE_CLUSTER)
        other = copy.deepcopy(own) | {"name": "chunks", "alt_stat_name": ""}
        endpoint = other["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["address"]["socket_address"]["port_value"] = port
        clusters.append(other)
        return config

    return edit


def _processor() -> dict[str, Any]:
    kind = "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
    return {
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


def _manager(config: dict[str, Any]) -> dict[str, Any]:
    (listener,) = config["static_resources"]["listeners"]
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


@contextmanager
def ways(directory: Path) -> Iterator[list[Way]]:
    """Run an upstream, two services, a processor of chunks, and an Envoy for each way.

    Raises:
        StartError: one of them did not start.
    """
    with ExitStack() as stack:

        def program(name: str) -> tuple[int, int]:
            command = [sys.executable, "-m", f"bench.{name}"]
            running = stack.enter_context(child(name, command, directory=directory))
            port = running.wait_for_line("listening on ").rpartition(":")[2]
            return running.process.pid, int(port)

        _, upstream_port = program("sse_upstream")
        found = [Way(NO_ENVOY, upstream_port, {})]

        def add(name: str, to: int, edit: Callable[[Tree], Tree], **servers: int) -> None:
            home = directory / f"way-{len(found)}"
            home.mkdir()
            wiring = Wiring(
                to,
                dict.fromkeys(ADAPTERS, upstream_port),
                trusts_tenant_header=True,
                meter="observe" if name == OBSERVE else "lua",
            )
            envoy = stack.enter_context(
                gateway(wiring, directory=home, edit=lambda config: edit(unlimited(config)))
            )
            pids = {"Envoy": envoy.child.process.pid, **servers}
            found.append(Way(name, envoy.port, pids, envoy))

        running, port = stack.enter_context(service(SETTINGS, directory=directory))
        add(NONE, port, plain)
        add(LUA, port, unchanged, service=running.process.pid)
        home = directory / "observing"
        home.mkdir()
        running, observing = stack.enter_context(service(_observing(home), directory=home))
        add(OBSERVE, observing, unchanged, service=running.process.pid)
        pid, chunks = program("chunk_server")
        add(STREAMED, port, processed(chunks), service=pid)
        yield found


def _observing(directory: Path) -> Path:
    """Write settings by which the service is shown answers."""
    tree = yaml.safe_load(SETTINGS.read_text())
    tree["meter"] = "observe"
    tree["identity"] = [{"header": "x-tenant-id"}]
    path = directory / "observing.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path
