"""The demo from its first line to its exit code."""

import asyncio
import contextlib
import hashlib
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from extproc.demo import clients, envoy, stage
from extproc.demo.accesslog import AccessLog
from extproc.demo.attachment import Wiring
from extproc.demo.backstage import Backstage, holds_soon
from extproc.demo.board import Board
from extproc.demo.ending import open_numbers
from extproc.demo.farewell import say_what_to_try, watch
from extproc.demo.figures import FIGURES_VERDICTS, Figures, verdicts
from extproc.demo.mesh_steps import MESH_VERDICTS, MeshPlay, watchable
from extproc.demo.play import Play
from extproc.demo.process import StartError
from extproc.demo.replica_steps import REPLICA_VERDICTS, ReplicasPlay
from extproc.demo.replicas import Replicas, running
from extproc.demo.replicas import tenants as added_tenants
from extproc.demo.screen import Screen, screen
from extproc.demo.steps import SCENES, STEPS

TENANTS: Final = ("acme", "initech", "globex", "hooli", "wonka", "umbrella")
_VERDICTS: Final = len(STEPS) + len(SCENES) + MESH_VERDICTS + FIGURES_VERDICTS

_SETTINGS: Final = Path(__file__).parent / "settings.yaml"
_PAUSE_SECONDS: Final = 0.25
"""Between two steps on the live screen, so that one can read."""
_LOOK_SECONDS: Final = 0.05
_UNKNOWN_KEY: Final = "sk-nobody"


class Town(NamedTuple):
    """All that runs, and the key of each tenant. `admins` are those of the service's replicas."""

    gateway: envoy.Gateway
    keys: Mapping[str, str]
    control: str
    admins: Callable[[], Sequence[str]]
    replicas: Replicas | None


def run(*, keep: bool, plain: bool, replicas: int) -> int:
    """Set everything up, run every step, say how it went, take everything down."""
    console = Console()
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: take everything down
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="llm-extproc-demo-") as folder, ExitStack() as stack:
        try:
            town = stack.enter_context(set_up(console, Path(folder), replicas))
        except StartError as error:
            console.print(Text(str(error), style="red"), soft_wrap=True)
            return 1
        log = AccessLog(town.gateway.access_log)
        board = Board(_VERDICTS + (REPLICA_VERDICTS if town.replicas else 0))
        versions = f"llm-extproc on Envoy {town.gateway.version}"
        with screen(console, board, versions=versions, plain=plain) as shown:
            pause_seconds = _PAUSE_SECONDS if console.is_terminal and not plain else 0.0
            figures = asyncio.run(_perform(town, log, board, shown, pause_seconds))
        is_plain = plain or not console.is_terminal
        if not is_plain:
            _retell(console, board)
        open_numbers(console, figures, plain=is_plain)
        _summarise(console, board, requests=len(log.records))
        if board.problems and town.replicas is not None:
            _explain(console, town.replicas)
        if keep:
            say_what_to_try(console, town.gateway.url, town.admins(), town.keys)
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(watch(console, log))
        return 1 if board.problems else 0


@contextmanager
def set_up(console: Console, folder: Path, replicas: int) -> Iterator[Town]:
    """Run all of it until the block ends, its files in `folder`; say on the console what starts.

    Raises:
        StartError: a part did not start.
    """
    tenants = TENANTS + (added_tenants() if replicas > 1 else ())
    keys = {tenant: f"sk-{tenant}-{secrets.token_hex(8)}" for tenant in tenants}
    settings = folder / "settings.yaml"
    shutil.copy(_SETTINGS, settings)
    (folder / "keys.yaml").write_text(
        "".join(f"{hashlib.sha256(k.encode()).hexdigest()}: {t}\n" for t, k in keys.items())
    )
    with ExitStack() as stack:
        console.print(
            "starting three model adapters, a cache, a search and a platform service",
            highlight=False,
        )
        ports = stack.enter_context(stage.adapters(folder))
        control = f"http://127.0.0.1:{ports['control']}"
        if replicas > 1:
            text = f"starting a Valkey and {replicas} replicas of the filter's service"
            console.print(text, highlight=False)
            shared = stack.enter_context(running(settings, count=replicas, directory=folder))
            wiring = shared.wired(ports)
            admins = shared.admins
        else:
            text = "starting the filter's service (it loads its vocabularies)"
            console.print(text, highlight=False)
            service, port = stack.enter_context(stage.service(settings, directory=folder))
            shared, wiring = None, Wiring(port, ports, edit=watchable)
            admins = partial(tuple, [stage.admin_url(service)])
        console.print(f"starting Envoy {envoy.NEWEST}", highlight=False)
        gateway = stack.enter_context(envoy.gateway(wiring, directory=folder))
        console.print(f"ready on {gateway.url}", highlight=False)
        yield Town(gateway, keys, control, admins, shared)


async def _perform(
    town: Town, log: AccessLog, board: Board, shown: Screen, pause_seconds: float
) -> Figures:
    """Run every step, every scene; return the numbers, judged, once all is settled."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        callers = await stack.enter_async_context(callers_of(town))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        backstage = Backstage(http, town.control, town.admins)
        following = tasks.create_task(_follow(log, board, shown))
        play = Play(callers, backstage, log, board, shown, pause_seconds=pause_seconds)
        await play.steps(STEPS)
        for number, scene in enumerate(SCENES):
            await play.scene(scene, f"scene-{number}")
        board.title = "the mesh: shares, mirrors, an outage, and recovery"
        mesh = MeshPlay(http, town.gateway.url, town.control, town.keys["acme"])
        for verdict in await mesh.verdicts():
            await play.judge(verdict)
        seen = None
        if town.replicas is not None:
            await holds_soon(backstage.agrees)
            seen = await backstage.figures()
            board.title = f"{len(town.replicas.members)} replicas: one budget, a death, an outage"
            together = ReplicasPlay(callers, backstage, log, town.replicas)
            async for verdict in together.verdicts():
                await play.judge(verdict)
        board.title = "opening the numbers"
        await holds_soon(backstage.agrees)
        figures = await backstage.figures()
        if seen is not None:
            # How long things took is known to whoever saw it, and one of those was killed.
            figures = figures._replace(hops=seen.hops, paces=seen.paces)
        for verdict in verdicts(figures):
            await play.judge(verdict)
        following.cancel()
        return figures


@asynccontextmanager
async def callers_of(town: Town) -> AsyncIterator[Mapping[str, clients.Sdks]]:
    """The SDKs of each tenant, and of somebody whom nobody knows, until the block ends."""
    async with AsyncExitStack() as stack:
        callers: dict[str, clients.Sdks] = {}
        for tenant, key in [*town.keys.items(), ("", _UNKNOWN_KEY)]:
            callers[tenant] = clients.sdks(town.gateway.url, key)
            stack.push_async_callback(callers[tenant].aclose)
        yield callers


async def _follow(log: AccessLog, board: Board, shown: Screen) -> None:
    """Carry what Envoy logs to the board, until cancelled."""
    seen = 0
    while True:
        log.read()
        board.take(log.records[seen:])
        seen = len(log.records)
        shown.changed()
        await asyncio.sleep(_LOOK_SECONDS)


def _retell(console: Console, board: Board) -> None:
    """Print every step: the picture that showed them is gone."""
    table = Table(title="What was asked, and what came of it")
    for name in ("", "step", "tenant", "seen"):
        table.add_column(name)
    for verdict in board.verdicts:
        mark = Text("no", "red") if verdict.problems else Text("ok", "green")
        table.add_row(mark, Text(verdict.title), Text(verdict.tenant), Text(verdict.seen))
    console.print(table)
    console.print()


def _summarise(console: Console, board: Board, *, requests: int) -> None:
    for problem in board.problems:
        console.print(Text("not as expected: " + problem, style="red"), soft_wrap=True)
    failed = sum(1 for verdict in board.verdicts if verdict.problems)
    count = len(board.verdicts)
    end = f"{count - failed} of {count} steps as expected, {requests} requests"
    console.print(Text(end, style="bold red" if failed else "bold green"))


def _explain(console: Console, replicas: Replicas) -> None:
    times = sum(each.waits_in_vain() for each in replicas.members)
    if times:
        text = (
            f"{times} times Valkey took longer than 50 ms, as on a busy machine: then a replica"
            " lets in its share of what was left (docs/operations.md, Several replicas)"
        )
        console.print(Text(text, style="yellow"), soft_wrap=True)
