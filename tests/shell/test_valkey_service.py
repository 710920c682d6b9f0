"""Several services on one Valkey: together they admit what fits, and no more."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from extproc.demo import stage
from tests.conformance.harness import settings_in
from tests.scenarios.table import Call, chat
from tests.shell.harness import Client
from tests.valkeys import Server, running

pytestmark = pytest.mark.usefixtures("transport")

REPLICAS = 3
LIMIT = 300
ONE = Call(chat(), tenant=None, headers={"authorization": "Bearer sk-three-hundred-a-year"})


@pytest.fixture
def valkey() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def ports(tmp_path: Path, valkey: Server) -> Iterator[list[int]]:
    """Where three services listen that share their budgets."""
    ledger = {"kind": "valkey", "url": valkey.url, "replicas": REPLICAS}
    with ExitStack() as stack:
        found = []
        for number in range(REPLICAS):
            folder = tmp_path / str(number)
            folder.mkdir()
            settings = settings_in(folder, ledger=ledger)
            found.append(stack.enter_context(stage.service(settings, directory=folder))[1])
        yield found


async def asked(ports: list[int], count: int) -> Counter[str]:
    """Ask all services at once, so many times in all; count what they say."""
    said: Counter[str] = Counter()

    async def lane(client: Client, calls: int) -> None:
        for _ in range(calls):
            answer = (await client.send(ONE))[-1]
            said["refused" if answer.HasField("immediate_response") else "routed"] += 1

    async with clients_of(ports) as clients, asyncio.TaskGroup() as tasks:
        for client in clients:
            for _ in range(4):
                tasks.create_task(lane(client, count // (4 * len(ports))))
    return said


@asynccontextmanager
async def clients_of(ports: list[int]) -> AsyncIterator[list[Client]]:
    """A client for each port, for as long as the block lasts."""
    async with AsyncExitStack() as stack:
        yield [
            Client(await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}")))
            for port in ports
        ]


def test_three_services_admit_exactly_what_fits(ports: list[int]) -> None:
    said = asyncio.run(asked(ports, LIMIT + 60))

    assert said == {"routed": LIMIT, "refused": 60}


def test_what_one_admits_another_knows(ports: list[int]) -> None:
    first = asyncio.run(asked(ports[:1], LIMIT - 12))
    others = asyncio.run(asked(ports[1:], 48))

    assert first == {"routed": LIMIT - 12}
    assert others == {"routed": 12, "refused": 36}


def test_a_store_that_is_away_costs_no_more_than_its_share(
    ports: list[int], valkey: Server
) -> None:
    before = asyncio.run(asked(ports, 12))
    valkey.kill()

    after = asyncio.run(asked(ports, LIMIT + 60))

    assert before == {"routed": 12}
    # Each has a third of what was left as far as it knew: it may not have heard of the last twelve.
    assert 0 < after["routed"] <= LIMIT
