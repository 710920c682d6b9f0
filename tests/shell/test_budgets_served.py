"""A service that is told to lets its budgets be looked after, from the command line."""

import asyncio
import json
from pathlib import Path

import pytest

from extproc.demo import stage
from tests.conformance.harness import settings_in
from tests.scenarios.table import Call, chat
from tests.shell.harness import Client
from tests.shell.test_budget_cli import ran
from tests.shell.test_valkey_service import clients_of

pytestmark = pytest.mark.usefixtures("transport")

TENANT = "small"
ONE = Call(chat(), tenant=None, headers={"authorization": f"Bearer sk-{TENANT}"})


async def is_admitted(client: Client) -> bool:
    return not (await client.send(ONE))[-1].HasField("immediate_response")


async def look_after(port: int, address: str) -> None:
    async with clients_of([port]) as (client,):
        assert not await is_admitted(client)

        words = ("--amount=100000", "--until=1h", "--reason=a trial")
        adjusted = await ran("adjust", TENANT, "day", *words, f"--server={address}")
        assert adjusted.code == 0, adjusted
        assert await is_admitted(client)

        shown = await ran("get", TENANT, "day", "--json", f"--server={address}")
        assert "100050" in json.dumps(json.loads(shown.out))


def test_a_grant_lets_a_tenant_in_at_once(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, budget_api={"port": 0})
    with stage.service(settings, directory=tmp_path) as (service, port):
        address = service.wait_for_line("budgets on ")
        asyncio.run(look_after(port, address))
