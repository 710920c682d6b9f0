"""Real Envoys against our transport, and nothing behind it but answers that are made before."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path

import pytest
import uvloop

from bench.corpus import chats
from bench.load import drive
from bench.through_envoy import answer_by_itself
from bench.transport_server import Nothing
from extproc.demo.attachment import Wiring
from extproc.demo.envoy import ADAPTERS, SERVICE_STATS, Gateway, gateway
from extproc.server.h2.call import Call
from extproc.server.h2.inbound import Handler
from extproc.server.h2.limits import Limits
from extproc.server.h2.shell import serve
from tests.h2.peer import Silent

PROCESS = b"/envoy.service.ext_proc.v3.ExternalProcessor/Process"
MEBI = 1 << 20

Look = Callable[[Gateway], object]


@pytest.fixture
def version(envoy_version: str) -> str:
    return envoy_version


@contextmanager
def envoy(port: int, folder: Path, version: str) -> Iterator[Gateway]:
    wiring = Wiring(port, dict.fromkeys(ADAPTERS, 1), trusts_tenant_header=True)
    with gateway(wiring, directory=folder, version=version, edit=answer_by_itself) as running:
        yield running


@asynccontextmanager
async def served(
    folder: Path,
    version: str,
    *,
    limits: Limits | None = None,
    method: Callable[[Call], Handler] = Nothing,
    drain_seconds: float = 5,
) -> AsyncIterator[Gateway]:
    """An Envoy, whose service ends before it."""
    ready: asyncio.Queue[Gateway] = asyncio.Queue()
    done = asyncio.Event()

    async def hold(port: int) -> None:
        # In a thread of its own, since its start waits; ended here, after the server.
        manager = envoy(port, folder, version)
        try:
            await ready.put(await asyncio.to_thread(manager.__enter__))
            await done.wait()
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)

    async with asyncio.TaskGroup() as tasks:
        async with serve(
            "127.0.0.1:0", {PROCESS: method}, limits=limits, drain_seconds=drain_seconds
        ) as port:
            tasks.create_task(hold(port))
            yield await ready.get()
        done.set()


def cluster(found: Gateway) -> Mapping[str, int]:
    return found.stats(SERVICE_STATS)


def test_every_request_is_answered_and_envoy_finds_no_fault(tmp_path: Path, version: str) -> None:
    bodies = [body for size in (300, 20_000, MEBI) for body in islice(chats(size), 30)]

    async def run() -> tuple[dict[int, int], Mapping[str, int]]:
        async with served(tmp_path, version) as found:
            answers = await drive(found.port, bodies, connections=16)
            return answers.statuses, await asyncio.to_thread(cluster, found)

    statuses, stats = uvloop.run(run())

    assert statuses == {200: len(bodies)}
    assert stats["upstream_rq_200"] == len(bodies)
    faults = (
        "protocol_error",
        "rx_messaging_error",
        "rq_rx_reset",
        "cx_destroy_remote",
        "cx_connect_fail",
    )
    found = {name: count for name, count in stats.items() if name.endswith(faults) and count}
    assert found == {}


def test_connections_that_age_cost_no_request(tmp_path: Path, version: str) -> None:
    limits = Limits(age_seconds=0.3, leave_seconds=5)
    bodies = list(islice(chats(2_000), 100))

    async def run() -> tuple[Counter[int], Mapping[str, int]]:
        statuses: Counter[int] = Counter()
        async with served(tmp_path, version, limits=limits) as found, asyncio.timeout(30):
            while (await asyncio.to_thread(cluster, found))["upstream_cx_total"] < 4:
                answers = await drive(found.port, bodies, connections=8)
                statuses.update(answers.statuses)
            return statuses, await asyncio.to_thread(cluster, found)

    statuses, stats = uvloop.run(run())

    assert set(statuses) == {200}
    assert stats["upstream_cx_close_notify"] >= 3
    assert stats["upstream_rq_200"] == statuses.total()


def test_an_exchange_that_is_cut_off_does_not_pass(tmp_path: Path, version: str) -> None:
    async def run() -> dict[int, int]:
        silent: list[Silent] = []
        opened = asyncio.Event()

        def method(call: Call) -> Silent:
            silent.append(Silent(call))
            opened.set()
            return silent[-1]

        async with (
            asyncio.TaskGroup() as tasks,
            served(tmp_path, version, method=method, drain_seconds=0.1) as found,
        ):
            client = tasks.create_task(drive(found.port, [b"{}"], connections=1))
            await opened.wait()
        return client.result().statuses

    assert uvloop.run(run()) == {500: 1}
