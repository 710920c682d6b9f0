"""A bare Envoy starts with what `mesh render --output envoy` prints, and serves."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extproc.demo.envoy import find_binary
from extproc.demo.process import child
from extproc.mesh.bootstrap import bootstrap
from extproc.mesh.manifests import read
from extproc.mesh.render import Rendered, render
from extproc.mesh.world import world_of
from tests.unit.test_mesh_render import CASES, PROXIES

ADDRESS = "127.0.0.1"
SECONDS = 2.0


def rendered(case: Path, kind: str) -> Rendered:
    return render(world_of(read([case / "input.yaml"])), PROXIES[kind])


def get(port: int, path: str, host: str = ADDRESS) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=SECONDS)
    try:
        connection.request("GET", path, headers={"host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def serving(found: Rendered, version: str, folder: Path) -> Iterator[dict[str, int]]:
    """An Envoy that serves; its listeners' ports by name."""
    file, admin = folder / "envoy.json", folder / "admin"
    file.write_text(json.dumps(bootstrap(found, address=ADDRESS, port=0)))
    arguments: list[str | Path] = [find_binary(version), "-c", file]
    arguments += [
        "--admin-address-path",
        admin,
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--log-level",
        "warning",
    ]

    def ports() -> dict[str, int] | None:
        said = admin.read_text() if admin.exists() else ""
        port = int(said.rpartition(":")[2] or 0)
        try:
            if not port or get(port, "/ready")[0] != http.HTTPStatus.OK:
                return None
            listeners = json.loads(get(port, "/listeners?format=json")[1])
        except OSError:
            return None
        return {
            each["name"]: each["local_address"]["socket_address"]["port_value"]
            for each in listeners.get("listener_statuses", ())
        }

    with child("envoy", arguments, directory=folder) as running:
        yield running.wait_for(ports)


@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_a_bare_envoy_starts_with_it_and_serves(
    case: Path, kind: str, envoy_version: str, tmp_path: Path
) -> None:
    found = rendered(case, kind)

    with serving(found, envoy_version, tmp_path) as ports:
        assert set(ports) == {each["name"] for each in found.listeners}
        answers = {get(port, "/", "nobody.example")[0] for port in ports.values()}
    # A gateway knows no such host; a sidecar sends it where it was going, which is nowhere. The
    # filter's service is not there, and its filter, where there is one, fails closed.
    is_filtered = "ExternalProcessor" in json.dumps(found.listeners)
    expected = 500 if is_filtered else 404 if kind == "gateway" else 503
    assert answers == ({expected} if found.listeners else set())


def test_routes_are_those_of_the_manifests(envoy_version: str, tmp_path: Path) -> None:
    (case,) = (each for each in CASES if each.name == "3-route-features")

    with serving(rendered(case, "gateway"), envoy_version, tmp_path) as ports:
        answers = [get(port, "/hello", "router.example.com") for port in ports.values()]

    assert answers == [(418, b"teapot")]
