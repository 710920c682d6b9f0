"""The scenario table through real Envoys: what the client gets, and what the upstream saw."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from extproc.demo.envoy import Gateway, Wiring, gateway
from extproc.demo.stage import adapters, service
from tests.scenarios.table import SCENARIOS, SETTINGS, Call, Scenario

VERSIONS = ("1.36.4", "1.40.0")
ADAPTER_OF = {"premium": "gpt4-adapter", "standard": "gpt35-adapter", "default": "local-llama"}
BODY_BYTES_MAX = 1_048_576
TIMEOUT_SECONDS = 30


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


class Mesh(NamedTuple):
    """Envoy, and the port where the adapters show their books."""

    envoy: Gateway
    books_port: int

    def send(self, call: Call, *, step: str = "-") -> Answer:
        headers = call.all_headers() | {"x-demo-step": step}
        return ask(self.envoy.port, call.method, call.path, call.body, headers)

    def seen(self, step: str) -> list[dict[str, Any]]:
        """What the adapters got of one step."""
        found: list[dict[str, Any]] = json.loads(
            ask(self.books_port, "GET", f"/books?step={step}", b"", {}).body
        )
        return found


def ask(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        # A body that is too large is refused while it is still being sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read().decode())
    finally:
        connection.close()


@pytest.fixture(scope="module", params=VERSIONS)
def mesh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mesh]:
    directory: Path = tmp_path_factory.mktemp("mesh")
    with (
        adapters(directory) as ports,
        service(SETTINGS, directory=directory) as (_, port),
        gateway(
            Wiring(port, ports, BODY_BYTES_MAX, trusts_tenant_header=True),
            directory=directory,
            version=request.param,
        ) as envoy,
    ):
        yield Mesh(envoy, ports["control"])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(mesh: Mesh, scenario: Scenario) -> None:
    step = str(SCENARIOS.index(scenario))
    for call in scenario.before:
        assert mesh.send(call).status == 200

    answer = mesh.send(scenario.call, step=step)

    assert answer.status == scenario.status, answer.body
    seen = mesh.seen(step)
    if scenario.reason:
        assert seen == []
        assert scenario.says in answer.body
        assert json.loads(answer.body)["error"]["message"]
        return
    (entry,) = seen
    assert entry["adapter"] == ADAPTER_OF.get(scenario.tier or "", "platform")
    assert entry["body_bytes"] == len(scenario.call.body)
    headers = dict(entry["headers"])
    assert headers.get("x-llm-tier") == scenario.tier
    assert {name: headers.get(name) for name in scenario.upstream} == dict(scenario.upstream)
