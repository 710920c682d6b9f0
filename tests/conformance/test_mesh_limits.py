"""Rows B3, B4 and B6: pools that overflow as stated, hosts that are out for as long as stated."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from extproc.demo import stage
from extproc.demo.attachment import ROUTER_HOST
from tests.conformance.harness import Answer, Mesh, chat, mark, running, until
from tests.conformance.quick import quicker

ROUTER = {"host": ROUTER_HOST}
STABLE = "cluster.outbound|8080|stable|llm-router.ai-platform.svc.cluster.local;."
GPT4 = "cluster.outbound|8080||gpt4-adapter.ai-platform.svc.cluster.local;."
SLOW = {"x-adapter-delay-ms": "60000"}
STREAM = chat(stream=True, max_tokens=1)
FACTOR = 30


async def hold(
    mesh: Mesh, tasks: asyncio.TaskGroup, count: int, gauge: str, level: int, **more: Any
) -> list[asyncio.Task[Answer]]:
    """Send slow requests and wait until so many are counted."""
    sent = [tasks.create_task(mesh.send(**more)) for _ in range(count)]

    async def is_reached() -> bool:
        return (await asyncio.to_thread(mesh.gateway.stats, gauge))[""] >= level

    await until(is_reached)
    return sent


async def test_the_router_s_pool_overflows_at_100_and_50(mesh: Mesh) -> None:
    slow: dict[str, Any] = {"body": STREAM, "headers": ROUTER | SLOW}
    held: list[asyncio.Task[Answer]] = []

    async with asyncio.TaskGroup() as tasks:
        for wave in range(1, 5):
            held += await hold(mesh, tasks, 25, STABLE + "upstream_rq_active", 25 * wave, **slow)
        held += await hold(mesh, tasks, 50, STABLE + "upstream_rq_pending_active", 50, **slow)
        step = mark()
        beyond = [await mesh.send(step=step, **slow) for _ in range(5)]
        stats = await asyncio.to_thread(mesh.gateway.stats, STABLE)
        for task in held:
            task.cancel()

    assert {answer.status for answer in beyond} == {503}
    assert await mesh.books(step) == []
    assert stats["upstream_cx_active"] == 100
    assert stats["upstream_rq_pending_overflow"] >= 5


async def test_a_connection_to_the_router_serves_ten_requests(
    tmp_path: Path, adapters: Mapping[str, int], envoy_version: str
) -> None:
    with running(tmp_path, adapters, envoy_version) as mesh:
        for _ in range(40):
            assert (await mesh.send(STREAM, headers=ROUTER)).status == 200
        stats = await asyncio.to_thread(mesh.gateway.stats, STABLE)

    assert stats["upstream_cx_max_requests"] == 4
    assert stats["upstream_cx_total"] == 4


async def test_gpt4_has_twenty_waiting_and_no_more(
    tmp_path: Path, adapters: Mapping[str, int], envoy_version: str
) -> None:
    def one_connection(document: dict[str, Any]) -> None:
        if (document["kind"], document["metadata"]["name"]) == ("DestinationRule", "gpt4-adapter"):
            pool = document["spec"]["trafficPolicy"]["connectionPool"]
            pool["tcp"] = {"maxConnections": 1}

    wiring = {"edit": one_connection}
    with running(tmp_path, adapters, envoy_version, wiring=wiring) as mesh:
        slow: dict[str, Any] = {"body": chat(), "headers": SLOW}
        async with asyncio.TaskGroup() as tasks:
            held = await hold(mesh, tasks, 1, GPT4 + "upstream_rq_active", 1, **slow)
            pending = GPT4 + "upstream_rq_pending_active"
            held += await hold(mesh, tasks, 20, pending, 20, **slow)
            beyond = await mesh.send(**slow)
            for task in held:
                task.cancel()

    assert beyond.status == 503


@pytest.fixture
def four(
    tmp_path_factory: pytest.TempPathFactory, adapters: Mapping[str, int], envoy_version: str
) -> Iterator[Mesh]:
    """A mesh with four stable routers: three more adapters' worth of them."""
    folder = tmp_path_factory.mktemp("three")
    with ExitStack() as stack:
        more = {}
        for number in ("2", "3", "4"):
            (folder / number).mkdir()
            ports = stack.enter_context(stage.adapters(folder / number))
            more[f"router-stable-{number}"] = ports["router-stable"]
        edit = {"edit": quicker(FACTOR)}
        known = {**adapters, **more}
        yield stack.enter_context(running(folder, known, envoy_version, wiring=edit))


async def out(mesh: Mesh) -> int:
    """How many stable routers are out."""
    return (await asyncio.to_thread(mesh.gateway.stats, STABLE))[
        "outlier_detection.ejections_active"
    ]


async def test_three_errors_in_a_row_take_a_router_out_and_never_more_than_half(
    four: Mesh,
) -> None:
    async def fails() -> int:
        headers = ROUTER | {"x-adapter-status": "500"}
        return (await four.send(STREAM, headers=headers)).status

    assert [await fails() for _ in range(2)] == [500, 500]
    assert await out(four) == 0
    began = time.monotonic()
    seen = set()
    for _ in range(40):
        assert await fails() == 500
        seen.add(await out(four))

    async def are_all_in() -> bool:
        return await out(four) == 0

    await until(are_all_in)
    # Two of four, and whoever was out first was out for 60 s, by a factor.
    assert max(seen) == 2
    assert time.monotonic() - began >= 60 / FACTOR
