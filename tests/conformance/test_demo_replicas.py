"""extproc/demo: what `make demo ARGS="--replicas 3"` shows, beside the steps of one replica."""

import asyncio
from io import StringIO
from pathlib import Path

import aiohttp
from rich.console import Console

from extproc.demo.accesslog import AccessLog
from extproc.demo.backstage import Backstage, holds_soon
from extproc.demo.board import Verdict
from extproc.demo.replica_steps import REPLICA_VERDICTS, ReplicasPlay
from extproc.demo.show import Town, callers_of, set_up

REPLICAS = 3


async def played(town: Town) -> tuple[list[Verdict], list[str]]:
    """What the steps come to, and in what the books differ at the end."""
    assert town.replicas is not None
    async with aiohttp.ClientSession() as http, callers_of(town) as callers:
        backstage = Backstage(http, town.control, town.admins)
        log = AccessLog(town.gateway.access_log)
        play = ReplicasPlay(callers, backstage, log, town.replicas)
        verdicts = [verdict async for verdict in play.verdicts()]
        await holds_soon(backstage.agrees)
        return verdicts, (await backstage.figures()).differences()


def test_replicas_keep_one_budget_through_a_death_and_an_outage(tmp_path: Path) -> None:
    with set_up(Console(file=StringIO()), tmp_path, REPLICAS) as town:
        verdicts, differences = asyncio.run(played(town))

    assert {verdict.title: verdict.problems for verdict in verdicts if verdict.problems} == {}
    assert len(verdicts) == REPLICA_VERDICTS
    assert differences == []
