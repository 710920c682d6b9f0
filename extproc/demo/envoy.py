"""A real Envoy, run from the manifests of `istio/` as `mesh render` translates them."""

import http.client
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from extproc.demo.attachment import GATEWAY, SIDECAR, Tree, Wiring, manifests
from extproc.demo.process import Child, StartError, child
from extproc.mesh.bootstrap import bootstrap
from extproc.mesh.render import render
from extproc.mesh.world import world_of

NEWEST: Final = "1.40.0"
ADDRESS: Final = "127.0.0.1"
BINARY_VARIABLE: Final = "LLM_EXTPROC_ENVOY"
ADAPTERS: Final = (
    "gpt4-adapter",
    "gpt35-adapter",
    "local-llama",
    "platform",
    "cache",
    "retrieval",
    "router-stable",
    "router-canary",
    "router-shadow",
)
"""Those who serve requests."""

MANAGER_STATS: Final = "http.outbound_0.0.0.0_80;."
"""What Envoy's counters of requests begin with, as istiod names them."""

SERVICE_CLUSTER: Final = "outbound|50051||llm-extproc.llm-system.svc.cluster.local"
"""The cluster of the filter's service."""

SERVICE_STATS: Final = f"cluster.{SERVICE_CLUSTER};."
"""And those of its calls to the filter's service."""

_MODELS_LISTENER: Final = "0.0.0.0_8080"
_ROOT: Final = Path(__file__).parents[2]
METER: Final = _ROOT / "istio" / "meter.lua"
_ADMIN_SECONDS: Final = 2.0


class Gateway(NamedTuple):
    """A running Envoy. `port` takes HTTP/1.1 and HTTP/2 on 127.0.0.1."""

    version: str
    port: int
    admin_port: int
    access_log: Path
    child: Child

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def stats(self, prefix: str) -> dict[str, int]:
        """Counters and gauges whose name begins with `prefix`, by the rest of their name."""
        found = _admin(self.admin_port, "/stats?format=json")["stats"]
        return {
            stat["name"].removeprefix(prefix): stat["value"]
            for stat in found
            if stat.get("name", "").startswith(prefix)
        }


def find_binary(version: str) -> Path:
    """Name the Envoy to run.

    Raises:
        StartError: there is none.
    """
    chosen = os.environ.get(BINARY_VARIABLE)
    binary = Path(chosen) if chosen else _ROOT / ".envoy" / version / "envoy" / "_bin" / "envoy"
    if not os.access(binary, os.X_OK):
        where = BINARY_VARIABLE if chosen else f"Envoy {version}"
        msg = f"{where}: there is no program {binary}; `make demo` fetches one"
        raise StartError(msg)
    return binary


def config(wiring: Wiring, *, access_log: Path) -> Tree:
    """What an Envoy is started with: the manifests, rendered.

    Raises:
        MeshError: they can't be.
    """
    known = world_of(manifests(wiring, access_log=access_log))
    rendered = render(known, SIDECAR if wiring.is_sidecar else GATEWAY)
    if wiring.is_sidecar:
        # What goes to other ports is not caught here.
        listeners = [each for each in rendered.listeners if each["name"] == _MODELS_LISTENER]
        rendered = rendered._replace(listeners=listeners)
    return bootstrap(rendered, address=ADDRESS, port=wiring.listener_port)


def unchanged(tree: Tree) -> Tree:
    """What the manifests make of it, for those who compare that with something else."""
    return tree


@contextmanager
def gateway(
    wiring: Wiring,
    *,
    directory: Path,
    version: str = NEWEST,
    edit: Callable[[Tree], Tree] = unchanged,
    concurrency: int = 1,
) -> Iterator[Gateway]:
    """Run an Envoy that is ready, until the block ends. Its files go into `directory`.

    `edit` may change the configuration, for those who compare one with another. Each of
    `concurrency` worker threads has connections of its own to every upstream.

    Raises:
        StartError: there is no Envoy, or it did not start.
    """
    binary = find_binary(version)
    access_log = directory / "access.jsonl"
    access_log.touch()
    admin_address = directory / "envoy.admin"
    admin_address.unlink(missing_ok=True)
    file = directory / "envoy.json"
    file.write_text(json.dumps(edit(config(wiring, access_log=access_log))))
    arguments: list[str | Path] = [binary, "-c", file, "--admin-address-path", admin_address]
    # No shared memory: any number of them can run side by side.
    arguments += [
        "--disable-hot-restart",
        "--concurrency",
        str(concurrency),
        "--log-level",
        "warning",
    ]
    # Lines of the access log are shown and tested as they come; the default is 10 s.
    arguments += ["--file-flush-interval-msec", "20"]
    with child("envoy", arguments, directory=directory) as running:
        admin_port = running.wait_for(lambda: _admin_port(admin_address))
        port = running.wait_for(lambda: _listener_port(admin_port))
        yield Gateway(version, port, admin_port, access_log, running)


def _admin_port(file: Path) -> int | None:
    if not file.exists():
        return None
    port = file.read_text().rpartition(":")[2]
    return int(port) if port else None


def _listener_port(admin_port: int) -> int | None:
    """The port of the listener, once Envoy serves on it."""
    try:
        if _get(admin_port, "/ready")[0] != http.HTTPStatus.OK:
            return None
        listeners = _admin(admin_port, "/listeners?format=json").get("listener_statuses", [])
    except OSError:
        return None
    for listener in listeners:
        port = listener["local_address"]["socket_address"]["port_value"]
        return int(port)
    return None


def _admin(port: int, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_get(port, path)[1])
    return found


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ADMIN_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
