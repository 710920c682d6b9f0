"""The same ordeal for records that nobody acknowledges: it must show what is lost then.

It proves that this harness can see losses. The service that decides is left in peace; only who
gets the records is killed, stopped and ended.
"""

import asyncio
import random
from pathlib import Path
from typing import Final

from chaos.cases import Numbers, Say
from chaos.disruptions import Disruption, disrupt, drawn
from chaos.editing import records_the_old_way
from chaos.findings import Seen, compare
from chaos.ledger_file import read
from chaos.load import Load
from chaos.stand import Models, Service, proxy, settings_in, until
from chaos.traffic import STEADY, calls

DISRUPTIONS: Final[dict[Disruption, int]] = {"killed": 6, "stopped": 4, "terminated": 2}
CLIENTS: Final = 32
PAUSE_SECONDS: Final = 0.05
"""Budgets fill up, since nothing is settled, and refusals are so fast that they would be all."""

QUIET_LOOKS: Final = 40
"""When so many looks in a row show nothing new, nothing comes any more: two seconds."""

_PROGRAM: Final = ("-m", "chaos.als_receiver")


async def old_way(folder: Path, models: Models, say: Say, *, seed: int) -> Numbers:
    """Return what was lost."""
    receiver = Service(settings_in(folder / "receiver"), program=_PROGRAM)
    dice = random.Random(seed)  # noqa: S311  # nothing is kept secret by it
    async with Service(settings_in(folder / "service")).running() as service, receiver.running():
        edit = records_the_old_way(receiver.port)
        with proxy(folder / "envoy", service.port, models, edit=edit) as envoy:
            load = Load(
                envoy.gateway.port,
                calls(seed, tenants=STEADY, prefix="w"),
                clients=CLIENTS,
                pause_seconds=PAUSE_SECONDS,
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.run(calls_max=20_000))
                order = drawn(dice, DISRUPTIONS)
                await disrupt(receiver, order, dice, lambda: len(load.endings), say)
                load.end()
            await _comes_to_rest(receiver)
            reservations = envoy.reservations()
        await receiver.terminate()
    seen = Seen(load.endings, models.answers(), reservations, models.prices)
    findings = compare(seen, read(receiver.ledger))
    say(f"the old way lost {findings.lost} of {findings.completed}")
    return {"reached": findings.reached, "lost": findings.lost}


async def _comes_to_rest(receiver: Service) -> None:
    """Return once nothing new has come for a while."""
    last, looks = -1, 0

    def is_quiet() -> bool:
        nonlocal last, looks
        found = len(read(receiver.ledger).settled)
        looks = looks + 1 if found == last else 0
        last = found
        return looks >= QUIET_LOOKS

    await until(is_quiet, "no more records come")
