"""Several services on one Valkey: together they admit what fits, and no more."""

import asyncio
import json
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import pytest
import yaml
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse

from extproc.demo import stage
from tests.conformance.harness import settings_in
from tests.scenarios.table import Call, chat
from tests.shell.harness import Client
from tests.valkeys import Server, running, wait_until

pytestmark = pytest.mark.usefixtures("transport")

REPLICAS = 3
LIMIT = 300
TENANT = "three-hundred-a-year"
ONE = Call(chat(), tenant=None, headers={"authorization": f"Bearer sk-{TENANT}"})


@pytest.fixture
def valkey() -> Iterator[Server]:
    with running() as server:
        yield server


class Services(NamedTuple):
    """Three that share their budgets."""

    ports: list[int]
    admin: list[str]
    settings: list[Path]

    def limit(self, limit: int) -> None:
        """Have it in force everywhere."""
        for path in self.settings:
            tree = yaml.safe_load(path.read_text())
            tree["tenants"][TENANT]["budgets"][0]["limit"] = limit
            new = path.with_suffix(".new")
            new.write_text(yaml.safe_dump(tree))
            new.rename(path)
        wait_until(lambda: all(self._limit_at(which) == limit for which in range(REPLICAS)))

    def get(self, which: int, path: str) -> str:
        """What an admin page says."""
        with urllib.request.urlopen(f"http://{self.admin[which]}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def _limit_at(self, which: int) -> int:
        found = json.loads(self.get(which, "/settings"))["settings"]["tenants"][TENANT]
        return int(found["budgets"][0]["limit"])


@pytest.fixture
def services(tmp_path: Path, valkey: Server) -> Iterator[Services]:
    ledger = {"kind": "valkey", "url": valkey.url, "replicas": REPLICAS}
    with ExitStack() as stack:
        found = Services([], [], [])
        for number in range(REPLICAS):
            folder = tmp_path / str(number)
            folder.mkdir()
            settings = settings_in(folder, ledger=ledger)
            child, port = stack.enter_context(stage.service(settings, directory=folder))
            found.ports.append(port)
            found.admin.append(stage.admin_url(child).removeprefix("http://"))
            found.settings.append(settings)
        yield found


@pytest.fixture
def ports(services: Services) -> list[int]:
    """Where they listen."""
    return services.ports


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


async def one_answer(port: int) -> ProcessingResponse:
    """The last that one service says of one call."""
    async with clients_of([port]) as (client,):
        return (await client.send(ONE))[-1]


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


def test_a_limit_that_a_reload_changes_counts_at_every_service(services: Services) -> None:
    before = asyncio.run(asked(services.ports, 144))
    services.limit(100)
    above = asyncio.run(asked(services.ports, 36))
    services.limit(200)
    raised = asyncio.run(asked(services.ports, 84))

    assert before == {"routed": 144}
    assert above == {"refused": 36}
    assert raised == {"routed": 200 - 144, "refused": 84 - (200 - 144)}


def test_a_store_that_is_away_costs_no_more_than_its_share(
    services: Services, valkey: Server
) -> None:
    before = asyncio.run(asked(services.ports, 12))
    valkey.kill()

    after = asyncio.run(asked(services.ports, LIMIT + 60))

    assert before == {"routed": 12}
    # Each has a third of what was left as far as it knew: it may not have heard of the last twelve.
    assert 0 < after["routed"] <= LIMIT

    answer = asyncio.run(one_answer(services.ports[0]))
    headers = answer.immediate_response.headers.set_headers
    told = {one.header.key: one.header.raw_value for one in headers}
    assert told["x-llm-budget-state"] == b"local_share"
    metrics = services.get(0, "/metrics").splitlines()
    assert "llm_extproc_ledger_up 0.0" in metrics
    (counted,) = [line for line in metrics if 'without_ledger_total{state="local_share"}' in line]
    ledger = json.loads(services.get(0, "/budgets.json"))["ledger"]
    assert ledger["problem"]
    assert ledger["without_store"]["local_share"] == float(counted.rpartition(" ")[2]) > 0
