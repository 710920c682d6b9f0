"""Row A1: the same filter on a sidecar, for what a workload sends to the models."""

from collections.abc import Iterator, Mapping

import pytest

from extproc.demo.attachment import MODELS_HOST
from tests.conformance.harness import Mesh, chat, mark, running

HOST = {"host": MODELS_HOST}


@pytest.fixture(scope="module", params=["lua", "observe"])
def sidecar(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    adapters: Mapping[str, int],
    envoy_version: str,
) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("sidecar")
    wiring = {"is_sidecar": True, "meter": request.param}
    with running(folder, adapters, envoy_version, wiring=wiring, meter=request.param) as mesh:
        yield mesh


@pytest.mark.parametrize(
    ("tenant", "tier", "adapter"),
    [("acme", "premium", "gpt4-adapter"), ("initech", "default", "local-llama")],
)
async def test_a_workload_s_call_is_decided_at_its_own_proxy(
    sidecar: Mesh, tenant: str, tier: str, adapter: str
) -> None:
    step = mark()

    answer = await sidecar.send(
        chat(), step=step, tenant=tenant, headers=HOST | {"x-llm-tier": "standard"}
    )

    (record,) = await sidecar.log.wait_for(step, count=1)
    entry = await sidecar.the_entry(step)
    assert (answer.status, entry.adapter, entry.header("x-llm-tier")) == (200, adapter, tier)
    assert record.llm["tenant"] == tenant


async def test_a_spent_budget_is_refused_there(sidecar: Mesh) -> None:
    step = mark()

    answer = await sidecar.send(chat(), step=step, tenant="suspended", headers=HOST)

    assert (answer.status, await sidecar.books(step)) == (429, [])


async def test_a_fallback_works_there(sidecar: Mesh) -> None:
    failing = {"x-adapter-only": "gpt4-adapter", "x-adapter-status": "429"}

    answer = await sidecar.send(chat(), headers=HOST | failing)

    assert (answer.status, answer.served_by) == (200, "gpt35-adapter")
