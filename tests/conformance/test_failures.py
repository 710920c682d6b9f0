"""The service dies, hangs or drains: no call passes undecided."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from extproc.demo import stage
from tests.conformance.harness import DEADLINE_SECONDS, Mesh, chat, mark, running, until
from tests.conformance.test_passing import Upload


@pytest.fixture
def fragile(
    tmp_path_factory: pytest.TempPathFactory, adapters: Mapping[str, int], envoy_version: str
) -> Iterator[Mesh]:
    """A mesh of a test's own, to break. Envoy is patient: what it times out is not the point."""
    folder = tmp_path_factory.mktemp("fragile")
    with running(folder, adapters, envoy_version, wiring={"message_timeout": "20s"}) as mesh:
        yield mesh


@pytest.fixture
def impatient(
    tmp_path_factory: pytest.TempPathFactory, adapters: Mapping[str, int], envoy_version: str
) -> Iterator[Mesh]:
    """The same, where Envoy waits for an answer no longer than a test likes to."""
    folder = tmp_path_factory.mktemp("impatient")
    with running(folder, adapters, envoy_version, wiring={"message_timeout": "0.5s"}) as mesh:
        yield mesh


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
async def test_without_the_service_envoy_refuses_until_it_is_back(
    fragile: Mesh, tmp_path_factory: pytest.TempPathFactory, path: str
) -> None:
    assert (await fragile.send(chat(), path=path)).status == 200
    fragile.service.process.kill()
    fragile.service.process.wait()
    step = mark()

    async def passes() -> bool:
        return (await fragile.send(chat(), path=path)).status == 200

    answer = await fragile.send(chat(), step=step, path=path)

    (record,) = await fragile.log.wait_for(step, count=1)
    assert (answer.status, await fragile.books(step)) == (500, [])
    assert record.details.startswith("ext_proc_error_gRPC_error_14")

    folder = tmp_path_factory.mktemp("restarted")
    with stage.service(fragile.settings, directory=folder, port=fragile.service_port):
        await until(passes)


async def test_a_service_that_hangs_costs_a_timeout_and_nothing_passes(impatient: Mesh) -> None:
    assert (await impatient.send(chat())).status == 200
    step = mark()

    os.kill(impatient.service.process.pid, signal.SIGSTOP)
    answer = await impatient.send(chat(), step=step)
    os.kill(impatient.service.process.pid, signal.SIGCONT)

    (record,) = await impatient.log.wait_for(step, count=1)
    assert (answer.status, await impatient.books(step)) == (504, [])
    assert record.details == "ext_proc_error_per-message_timeout_exceeded"
    assert 400 <= record.duration_ms < 5_000
    assert (await impatient.send(chat())).status == 200


async def test_a_call_that_is_being_decided_outlives_sigterm(fragile: Mesh) -> None:
    """Of a tier without a fallback: that needs the service at every try."""
    step, upload, body = mark(), Upload(), chat()
    process = fragile.service.process

    async def has_been_told_to_wait() -> bool:
        return fragile.messages_heard() > 0

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(fragile.send(aiter(upload), step=step, tenant="initech"))
        upload.send(body[:20])
        await until(has_been_told_to_wait)
        process.terminate()
        await until(fragile.service_is_draining)
        upload.send(body[20:])
        upload.end()

    assert sending.result().served_by == "local-llama"
    assert (await fragile.the_entry(step)).header("x-llm-tier") == "default"
    assert await asyncio.to_thread(process.wait, DEADLINE_SECONDS) == 0


async def test_no_call_passes_undecided_while_the_service_comes_and_goes(
    fragile: Mesh, tmp_path_factory: pytest.TempPathFactory
) -> None:
    step = mark()
    statuses: Counter[int] = Counter()
    stopping = asyncio.Event()

    async def call_again_and_again() -> None:
        while not stopping.is_set():
            statuses[(await fragile.send(chat(), step=step)).status] += 1

    async def answered(status: int, *, more: int) -> None:
        wanted = statuses[status] + more

        async def is_enough() -> bool:
            return statuses[status] >= wanted

        await until(is_enough)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(call_again_and_again())
        await answered(200, more=50)
        fragile.service.process.terminate()
        await answered(500, more=20)
        folder = tmp_path_factory.mktemp("replaced")
        with stage.service(fragile.settings, directory=folder, port=fragile.service_port) as (
            second,
            _,
        ):
            await answered(200, more=50)
            second.process.kill()
            await answered(500, more=20)
            stopping.set()

    entries = await fragile.books(step)
    assert set(statuses) == {200, 500}
    assert len(entries) == statuses[200]
    assert {(entry.adapter, entry.header("x-llm-tier")) for entry in entries} == {
        ("gpt4-adapter", "premium")
    }
