"""What is done to replicas and to the store they share, each for a bounded time."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from chaos.stand import Service, until
from chaos.store import Store

Act = Literal[
    "replica_killed",
    "another_killed",
    "store_killed",
    "store_emptied",
    "store_aged",
    "store_paused",
    "store_cut",
]

PAUSED_SECONDS: Final = 5.0
CUT_SECONDS: Final = 4.0
AWAY_SECONDS: Final = (0.0, 1.0, 2.5)
"""From the death of the store until its next life begins."""

_UP: Final = "llm_extproc_ledger_up 1.0"


class Stage(NamedTuple):
    """Who it is done to."""

    replicas: Sequence[Service]
    store: Store
    dice: random.Random


async def replica_killed(stage: Stage, _: Path) -> None:
    """End a replica in the middle of its streams, and begin another in its place."""
    victim = stage.dice.choice(stage.replicas)
    await victim.kill()
    await victim.start()


async def store_killed(stage: Stage, _: Path) -> None:
    """End the store, and begin it anew with its files."""
    await stage.store.kill()
    await asyncio.sleep(stage.dice.choice(AWAY_SECONDS))
    await stage.store.start()


async def store_emptied(stage: Stage, _: Path) -> None:
    """The same without files."""
    await stage.store.kill()
    await asyncio.sleep(stage.dice.choice(AWAY_SECONDS))
    stage.store.replace(None)
    await stage.store.start()


async def store_aged(stage: Stage, copy: Path) -> None:
    """The same with files that were copied some calls ago."""
    await stage.store.kill()
    await asyncio.sleep(stage.dice.choice(AWAY_SECONDS))
    stage.store.replace(copy)
    await stage.store.start()


async def store_paused(stage: Stage, _: Path) -> None:
    """Stop the store for a while, connections and all."""
    stage.store.signal(signal.SIGSTOP)
    await asyncio.sleep(PAUSED_SECONDS)
    stage.store.signal(signal.SIGCONT)


async def store_cut(stage: Stage, _: Path) -> None:
    """Let no packet through to the store or from it."""
    if stage.store.space is None:
        return
    stage.store.space.cut()
    await asyncio.sleep(CUT_SECONDS)
    stage.store.space.mend()


ACTS: Final[Mapping[Act, Callable[[Stage, Path], Awaitable[None]]]] = {
    "replica_killed": replica_killed,
    "another_killed": replica_killed,
    "store_killed": store_killed,
    "store_emptied": store_emptied,
    "store_aged": store_aged,
    "store_paused": store_paused,
    "store_cut": store_cut,
}

FORGETTING: Final[frozenset[Act]] = frozenset(("store_emptied", "store_aged"))
"""After these the audit lines are replayed."""


async def is_over(stage: Stage) -> None:
    """Return once every replica has its store.

    Raises:
        OverdueError: one has not.
    """

    async def are_up() -> bool:
        told = [await asyncio.to_thread(one.admin, "/metrics") for one in stage.replicas]
        return all(_UP in text for text in told)

    await until(are_up, "every replica has its store")
