"""Rows B1, B2, B4, B5, B8 and B10 of the mission, on `istio/` as it is.

Where a test must wait for a time, all times are shorter by a factor. Shares are tested against
exact binomial bounds.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from extproc.demo.attachment import ROUTER_HOST
from extproc.demo.shares import binomial
from tests.conformance.harness import Answer, Mesh, chat, mark, running, until
from tests.conformance.quick import quicker
from tests.conformance.test_routing import COMPLEX

FACTOR = 60
AT_ONCE = 20
ROUTER = {"host": ROUTER_HOST}


@pytest.fixture(scope="module")
def quick(
    tmp_path_factory: pytest.TempPathFactory, adapters: Mapping[str, int], envoy_version: str
) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("quick")
    with running(folder, adapters, envoy_version, wiring={"edit": quicker(FACTOR)}) as mesh:
        yield mesh


async def many(mesh: Mesh, count: int, body: bytes, **more: Any) -> list[Answer]:
    """Send so many requests, some at once."""
    answers: list[Answer] = []
    left = iter(range(count))

    async def lane() -> None:
        answers.extend([await mesh.send(body, **more) for _ in left])

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(lane())
    return answers


async def timeout_of(mesh: Mesh, **more: Any) -> tuple[str, int]:
    """The route that was taken, and how long the upstream has, as Envoy tells it, in ms."""
    step = mark()
    assert (await mesh.send(step=step, **more)).status == 200
    (record,) = await mesh.log.wait_for(step, count=1)
    entry = (await mesh.books(step))[0]
    return record.route, int(entry.header("x-envoy-expected-rq-timeout-ms") or 0)


# --- B1: streams


STREAMS: list[tuple[bytes, dict[str, str]]] = [
    (chat(stream=True), {}),
    (chat(stream=True), {"accept": "application/json"}),
    (chat(stream=True), {"accept": "text/event-stream"}),
]


@pytest.mark.parametrize(("body", "headers"), STREAMS, ids=["unsaid", "as the SDK", "said"])
async def test_a_stream_has_five_minutes_however_it_is_asked_for(
    mesh: Mesh, body: bytes, headers: dict[str, str]
) -> None:
    route, milliseconds = await timeout_of(mesh, body=body, headers=ROUTER | headers)

    assert (route, milliseconds) == ("streaming", 300_000)


async def test_streams_go_to_stable_pods_and_to_nobody_else(mesh: Mesh) -> None:
    step = mark()
    headers = ROUTER | {"x-adapter-pause-ms": "0"}
    body = chat(stream=True, max_tokens=1)

    answers = await many(mesh, 100, body, headers=headers, step=step)

    assert {answer.status for answer in answers} == {200}
    entries = await mesh.books(step)
    assert Counter(entry.adapter for entry in entries) == {"router-stable": 100}


@pytest.mark.parametrize("manner", [{"x-adapter-status": "503"}, {"x-adapter-reset": "start"}])
async def test_a_stream_is_never_tried_again(quick: Mesh, manner: dict[str, str]) -> None:
    step = mark()

    answer = await quick.send(chat(stream=True), step=step, headers=ROUTER | manner)

    assert answer.status == 503
    assert len(await quick.books(step)) == 1
    await heal(quick)


# --- B2: the ordinary route


async def test_a_tenth_goes_to_the_canary(mesh: Mesh) -> None:
    answers = await many(mesh, 600, chat(), headers=ROUTER)

    served = Counter(answer.served_by for answer in answers)
    assert set(served) == {"router-stable", "router-canary"}
    assert served["router-canary"] in binomial(600, 0.10)


async def test_an_ordinary_call_has_two_minutes_and_a_minute_for_each_try(mesh: Mesh) -> None:
    route, milliseconds = await timeout_of(mesh, body=chat(), headers=ROUTER)

    # Envoy tells what the try has: the shorter of both.
    assert (route, milliseconds) == ("ordinary", 60_000)


@pytest.mark.parametrize(
    ("status", "tries"), [(502, 3), (503, 3), (504, 3), (409, 3), (500, 1), (529, 1), (429, 1)]
)
async def test_two_retries_for_what_a_retry_mends(quick: Mesh, status: int, tries: int) -> None:
    await heal(quick)
    step = mark()

    answer = await quick.send(chat(), step=step, headers=ROUTER | {"x-adapter-status": str(status)})

    assert answer.status == status
    entries = [e for e in await quick.books(step) if e.adapter != "router-shadow"]
    assert len(entries) == tries
    await heal(quick)


async def test_a_slow_try_is_given_up(quick: Mesh) -> None:
    await heal(quick)
    began = time.monotonic()

    answer = await quick.send(chat(), headers=ROUTER | {"x-adapter-delay-ms": "60000"})

    # 60 s for a try, 120 s in all.
    assert answer.status == 504
    assert 120 / FACTOR <= time.monotonic() - began < 180 / FACTOR + 5
    await heal(quick)


async def heal(mesh: Mesh) -> None:
    """Wait until both versions serve again: an error takes a Pod out for a while."""

    async def is_whole() -> bool:
        answers = [await mesh.send(chat(), headers=ROUTER) for _ in range(3)]
        return all(answer.status == 200 for answer in answers)

    await until(is_whole)


# --- B5 and B8: tiers


async def test_four_fifths_of_standard_go_to_gpt35(mesh: Mesh) -> None:
    hard = chat(COMPLEX, max_tokens=1)

    answers = await many(mesh, 400, hard, tenant="initech")

    assert {answer.headers["x-llm-tier"] for answer in answers} == {"standard"}
    served = Counter(answer.served_by for answer in answers)
    assert set(served) == {"gpt35-adapter", "local-llama"}
    assert served["gpt35-adapter"] in binomial(400, 0.80)


@pytest.mark.parametrize(
    ("tenant", "adapter", "milliseconds"),
    [("acme", "gpt4-adapter", 90_000), ("initech", "local-llama", 300_000)],
    ids=["premium", "default"],
)
async def test_a_tier_has_its_model_and_its_time(
    mesh: Mesh, tenant: str, adapter: str, milliseconds: int
) -> None:
    step = mark()
    answer = await mesh.send(chat("Hi."), step=step, tenant=tenant)

    entry = await mesh.the_entry(step)
    assert (answer.status, entry.adapter) == (200, adapter)
    assert entry.header("x-envoy-expected-rq-timeout-ms") == str(milliseconds)


@pytest.mark.parametrize(("tenant", "seconds"), [("acme", 120), ("initech", 300)])
async def test_the_mesh_holds_a_tier_to_its_time(quick: Mesh, tenant: str, seconds: int) -> None:
    began = time.monotonic()

    answer = await quick.send(chat("Hi."), tenant=tenant, headers={"x-adapter-delay-ms": "60000"})

    assert answer.status == 504
    assert seconds / FACTOR <= time.monotonic() - began < seconds / FACTOR + 5


# --- B10: mirrors


async def test_a_tenth_is_mirrored_seen_by_nobody_and_charged_to_nobody(
    tmp_path: Path, adapters: Mapping[str, int], envoy_version: str
) -> None:
    step = mark()
    with running(tmp_path, adapters, envoy_version) as mesh:
        # The shadow fails: users see nothing of it.
        headers = ROUTER | {"x-adapter-only": "router-shadow", "x-adapter-status": "500"}
        answers = await many(mesh, 400, chat(), headers=headers, step=step)
        assert {answer.status for answer in answers} == {200}
        assert "router-shadow" not in {answer.served_by for answer in answers}
        mirrored = binomial(400, 0.10)

        async def is_mirrored() -> bool:
            served = Counter(entry.adapter for entry in await mesh.books(step))
            return served["router-shadow"] in mirrored

        await until(is_mirrored)
        records = await mesh.log.wait_for(step, count=400)
        assert len(records) == 400
        # One record, one reservation each: the copies have none.
        assert len({record.llm["reservation"] for record in records}) == 400
