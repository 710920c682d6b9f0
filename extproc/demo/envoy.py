"""A real Envoy, run from `envoy.yaml`."""

import http.client
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any, Final, Literal, NamedTuple

from extproc.demo.envoy_tracing import tracing, tracing_cluster
from extproc.demo.process import Child, StartError, child
from extproc.wire.records import ATTRIBUTES

NEWEST: Final = "1.40.0"
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

BODY_BYTES_ABOVE: Final = 262_144
"""How much more than the settings' `request_body_bytes` Envoy buffers; see `envoy.yaml`."""

_TEMPLATE: Final = Path(__file__).parent / "envoy.yaml"
_ROOT: Final = Path(__file__).parents[2]
METER: Final = _ROOT / "istio" / "meter.lua"
_ADMIN_SECONDS: Final = 2.0


class Wiring(NamedTuple):
    """What `envoy.yaml` leaves open."""

    service_port: int
    adapter_ports: Mapping[str, int]
    request_body_bytes: int = 8_388_608
    message_timeout: str = "2s"
    listener_port: int = 0
    trusts_tenant_header: bool = False
    """Whether the settings have `identity: - header: x-tenant-id`; it is then not stripped."""
    authentication: str = ""
    """An HTTP filter in front of ours, as one line of YAML."""
    flush_interval: str = "0.1s"
    """How long Envoy gathers records of finished requests before it sends them."""
    collector_port: int = 0
    """Where Envoy's spans go, by OTLP over gRPC; 0: nowhere."""
    meter: Literal["lua", "observe"] = "lua"
    """As in the settings: which of the two filters is there."""


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


def bootstrap(wiring: Wiring, *, access_log: Path, version: str = NEWEST) -> str:
    """Fill in `envoy.yaml`."""
    text = _TEMPLATE.read_text()
    if wiring.trusts_tenant_header:
        text = re.sub(r" *- remove: x-tenant-id\n", "", text)
    text = _without_filter(text, "llm.observe" if wiring.meter == "lua" else "llm.meter")
    ports = {name.replace("-", "_") + "_port": str(wiring.adapter_ports[name]) for name in ADAPTERS}
    return Template(text).substitute(
        ports,
        listener_port=str(wiring.listener_port),
        service_port=str(wiring.service_port),
        access_log=json.dumps(str(access_log)),
        message_timeout=wiring.message_timeout,
        authentication=wiring.authentication,
        flush_interval=wiring.flush_interval,
        tracing=tracing(wiring.collector_port, version=version),
        collector=tracing_cluster(wiring.collector_port),
        record_attributes=json.dumps(_record_attributes()),
        meter=json.dumps(str(METER)),
        request_body_buffer_limit=str(wiring.request_body_bytes + BODY_BYTES_ABOVE),
    )


def _without_filter(text: str, name: str) -> str:
    """Leave out one HTTP filter and the comment above it."""
    pattern = rf"(?:^ *#.*\n)*^( *)- name: {re.escape(name)}\n(?:\1 .*\n|\n)*"
    return re.sub(pattern, "", text, flags=re.MULTILINE)


def _record_attributes() -> list[dict[str, Any]]:
    return [{"key": key, "value": {"string_value": value}} for key, value in ATTRIBUTES.items()]


@contextmanager
def gateway(
    wiring: Wiring,
    *,
    directory: Path,
    version: str = NEWEST,
    edit: Callable[[str], str] = str,
) -> Iterator[Gateway]:
    """Run an Envoy that is ready, until the block ends. Its files go into `directory`.

    `edit` may change the configuration, for those who compare one with another.

    Raises:
        StartError: there is no Envoy, or it did not start.
    """
    binary = find_binary(version)
    access_log = directory / "access.jsonl"
    access_log.touch()
    admin_address = directory / "envoy.admin"
    admin_address.unlink(missing_ok=True)
    config = directory / "envoy.yaml"
    config.write_text(edit(bootstrap(wiring, access_log=access_log, version=version)))
    arguments: list[str | Path] = [binary, "-c", config, "--admin-address-path", admin_address]
    # No shared memory: any number of them can run side by side.
    arguments += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
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
