"""One run: clients call without end while the service is killed, stopped and asked to end."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from chaos.client import Ending
from chaos.disruptions import Disruption, disrupt
from chaos.findings import Findings, Seen, compare
from chaos.holding import Inquiry, settled
from chaos.ledger_file import Contents, read
from chaos.load import Load, is_away
from chaos.stand import Models, OverdueError, Proxy, Service
from chaos.traffic import STAYS, Call


class Plan(NamedTuple):
    """How much of what. Calls go on until there were enough and all disruptions are over."""

    answers: int
    calls_max: int
    clients: int
    disruptions: Sequence[Disruption]
    seed: int
    held_seconds: float
    """How long a reservation may be held that nobody settles, and a little more."""


class Report(NamedTuple):
    """What came of it."""

    seen: Seen
    ledger: Contents
    findings: Findings
    away: int
    """Calls that Envoy refused since nobody could decide about them."""
    cut: int
    """Answers that Envoy broke off though their clients stayed and their models did not err: the
    service was killed after it had decided, and before it had ended its stream."""
    held: int
    """What is still held, of all tenants."""
    dropped: int
    repeated: int
    """Calls of Envoy to the service that it made again."""


class Scene(NamedTuple):
    """Who takes part."""

    service: Service
    proxy: Proxy
    models: Models
    say: Callable[[str], None]


async def undergo(plan: Plan, calls: Iterator[Call], scene: Scene) -> Report:
    """Let it all happen, wait until the dust has settled, and compare. The service is then gone.

    Raises:
        OverdueError: calls do not go on.
    """
    service, proxy, models, say = scene
    dice = random.Random(plan.seed)  # noqa: S311  # nothing is kept secret by it
    load = Load(proxy.gateway.port, calls, clients=plan.clients)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run(calls_max=plan.calls_max))
        await disrupt(service, plan.disruptions, dice, lambda: len(load.endings), say)
        await load.has_made(plan.answers)
        load.end()
    say(f"{len(load.endings)} calls made; waiting for their records")
    try:
        await settled(proxy, service, load.endings)
    except OverdueError as error:  # the comparison will tell which
        say(f"NOT WELL: {error}")
    inquiry = Inquiry(proxy, service, sorted({ending.call.tenant for ending in load.endings}))
    try:
        await inquiry.nothing_is_held(seconds=plan.held_seconds)
    except OverdueError as error:  # and how much
        say(f"NOT WELL: {error}")
    stats, repeated = proxy.stats(), proxy.repeated()
    await service.terminate()
    endings = [*chain(load.endings, inquiry.endings)]
    seen = Seen(endings, models.answers(), proxy.reservations(), models.prices)
    ledger = read(service.ledger)
    return Report(
        seen,
        ledger,
        compare(seen, ledger),
        away=sum(map(is_away, load.endings)),
        cut=sum(map(_is_cut, load.endings)),
        held=sum(max(0, held) for held in inquiry.held.values()),
        dropped=stats["logs_dropped"],
        repeated=repeated,
    )


def _is_cut(ending: Ending) -> bool:
    call = ending.call
    is_left = call.leaves_after != STAYS or "x-adapter-reset" in call.headers
    return ending.status != 0 and not ending.is_whole and not is_left
