"""The scenario table through real Envoys: what the client gets, and what the upstream saw."""

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping

import pytest

from tests.conformance.harness import DEADLINE_SECONDS, Answer, Mesh, running
from tests.scenarios.table import SCENARIOS, SETTINGS, Call, Scenario

ADAPTERS_OF = {
    "premium": ("gpt4-adapter",),
    "standard": ("gpt35-adapter", "local-llama"),
    "default": ("local-llama",),
}
WIRING = {"request_body_bytes": 1_048_576, "trusts_tenant_header": True}


@pytest.fixture(scope="module")
def scenario_mesh(
    tmp_path_factory: pytest.TempPathFactory, adapters: Mapping[str, int], envoy_version: str
) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("scenarios")
    with running(folder, adapters, envoy_version, source=SETTINGS, wiring=WIRING) as mesh:
        yield mesh


def send(mesh: Mesh, call: Call, *, step: str) -> Answer:
    """Send a request as it is written: other clients tidy paths up."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", mesh.gateway.port, timeout=DEADLINE_SECONDS
    )
    try:
        # A body that is too large is refused while it is still being sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            headers = call.all_headers() | {"x-demo-step": step}
            connection.request(call.method, call.path, call.body, headers)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_scenario(scenario_mesh: Mesh, scenario: Scenario) -> None:
    step = f"scenario-{scenario_mesh.gateway.version}-{SCENARIOS.index(scenario)}"
    for call in scenario.before:
        assert send(scenario_mesh, call, step="before").status == 200

    answer = send(scenario_mesh, scenario.call, step=step)

    assert answer.status == scenario.status, answer.body
    if scenario.reason:
        assert await scenario_mesh.books(step) == []
        assert scenario.says in answer.body.decode()
        assert json.loads(answer.body)["error"]["message"]
        return
    entry = await scenario_mesh.the_entry(step)
    assert entry.adapter in ADAPTERS_OF.get(scenario.tier or "", ("platform",))
    asked_for_usage = b'"stream":true' in scenario.call.body.replace(b" ", b"")
    assert (entry.body_bytes != len(scenario.call.body)) == asked_for_usage
    assert entry.header("x-llm-tier") == scenario.tier
    seen = {name: entry.header(name) for name in scenario.upstream}
    assert seen == dict(scenario.upstream)
