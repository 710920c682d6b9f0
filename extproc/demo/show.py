"""The demo from its first line to its exit code."""

import asyncio
import contextlib
import datetime as dt
import hashlib
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from extproc.demo import clients, envoy, stage
from extproc.demo.accesslog import AccessLog
from extproc.demo.board import Board, Verdict, seen_of
from extproc.demo.farewell import say_what_to_try, watch
from extproc.demo.process import StartError
from extproc.demo.screen import Screen, screen
from extproc.demo.steps import CROWD, STEPS, Step, problems

TENANTS: Final = ("acme", "initech", "globex", "hooli", "wonka", "umbrella")
_SETTINGS: Final = Path(__file__).parent / "settings.yaml"
_PAUSE_SECONDS: Final = 0.25
"""Between two steps on the live screen, so that one can read."""
_LOOK_SECONDS: Final = 0.05
_MINUTE_SECONDS_NEEDED: Final = 5
_UNKNOWN_KEY: Final = "sk-nobody"


class Town(NamedTuple):
    """All that runs, and the key of each tenant."""

    gateway: envoy.Gateway
    keys: Mapping[str, str]


def run(*, keep: bool, plain: bool) -> int:
    """Set everything up, run every step, say how it went, take everything down."""
    console = Console()
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: take everything down
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="llm-extproc-demo-") as folder, ExitStack() as stack:
        try:
            town = stack.enter_context(_set_up(console, Path(folder)))
        except StartError as error:
            console.print(Text(str(error), style="red"), soft_wrap=True)
            return 1
        log = AccessLog(town.gateway.access_log)
        board = Board(len(STEPS) + 1)
        versions = f"llm-extproc on Envoy {town.gateway.version}"
        with screen(console, board, versions=versions, plain=plain) as shown:
            pause_seconds = _PAUSE_SECONDS if console.is_terminal and not plain else 0.0
            asyncio.run(_perform(town, log, board, shown, pause_seconds))
        _summarise(console, board, plain=plain)
        if keep:
            say_what_to_try(console, town.gateway.url, town.keys)
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(watch(console, log))
        return 1 if board.problems else 0


@contextmanager
def _set_up(console: Console, folder: Path) -> Iterator[Town]:
    keys = {tenant: f"sk-{tenant}-{secrets.token_hex(8)}" for tenant in TENANTS}
    settings = folder / "settings.yaml"
    shutil.copy(_SETTINGS, settings)
    (folder / "keys.yaml").write_text(
        "".join(f"{hashlib.sha256(k.encode()).hexdigest()}: {t}\n" for t, k in keys.items())
    )
    with ExitStack() as stack:
        console.print("starting three model adapters and a platform service", highlight=False)
        ports = stack.enter_context(stage.adapters(folder))
        console.print("starting the filter's service (it loads its vocabularies)", highlight=False)
        _, service_port = stack.enter_context(stage.service(settings, directory=folder))
        console.print(f"starting Envoy {envoy.NEWEST}", highlight=False)
        wiring = envoy.Wiring(service_port, ports)
        gateway = stack.enter_context(envoy.gateway(wiring, directory=folder))
        console.print(f"ready on {gateway.url}", highlight=False)
        yield Town(gateway, keys)


async def _perform(
    town: Town, log: AccessLog, board: Board, shown: Screen, pause_seconds: float
) -> None:
    """Run every step in order, then the crowd, while the board follows the access log."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        callers: dict[str, clients.Sdks] = {}
        for tenant, key in [*town.keys.items(), ("", _UNKNOWN_KEY)]:
            callers[tenant] = clients.sdks(town.gateway.url, key)
            stack.push_async_callback(callers[tenant].openai.close)
            stack.push_async_callback(callers[tenant].anthropic.close)
        following = tasks.create_task(_follow(log, board, shown))
        play = _Play(callers, log, board, shown)
        for number, step in enumerate(STEPS):
            board.title = f"{step.tenant or 'somebody'}: {step.title}"
            if step.begins_minute:
                await play.wait_for_minute()
            board.verdicts.append(await play.step(step, str(number)))
            shown.judged(board.verdicts[-1])
            await asyncio.sleep(pause_seconds)
        board.title = CROWD[0].title
        board.verdicts.append(await play.crowd())
        shown.judged(board.verdicts[-1])
        await asyncio.sleep(pause_seconds * 3)
        following.cancel()


async def _follow(log: AccessLog, board: Board, shown: Screen) -> None:
    """Carry what Envoy logs to the board, until cancelled."""
    seen = 0
    while True:
        log.read()
        board.take(log.records[seen:])
        seen = len(log.records)
        shown.changed()
        await asyncio.sleep(_LOOK_SECONDS)


class _Play:
    def __init__(
        self, callers: Mapping[str, clients.Sdks], log: AccessLog, board: Board, shown: Screen
    ) -> None:
        self._callers = callers
        self._log = log
        self._board = board
        self._shown = shown

    async def step(self, step: Step, mark: str) -> Verdict:
        """Make the call; compare what came of it with what must."""

        def listen(piece: str, seconds: float) -> None:
            self._board.hear(step.title, piece, seconds)
            self._shown.changed()

        outcome = await clients.call(self._callers[step.tenant], step.ask, mark, listen)
        records = await self._log.wait_for(mark, count=len(step.expected.codes))
        found = problems(step, outcome, records)
        if found and outcome.said:
            found.append(f"the SDK said: {outcome.said[:200]}")
        who = step.tenant or "somebody"
        return Verdict(step.title, who, seen_of(step, outcome, records), tuple(found))

    async def crowd(self) -> Verdict:
        """Run many calls at once: one verdict for all of them."""
        began = asyncio.get_running_loop().time()
        marks = [f"crowd-{number}" for number in range(len(CROWD))]
        verdicts = await asyncio.gather(*map(self.step, CROWD, marks))
        seconds = asyncio.get_running_loop().time() - began
        well = sum(1 for verdict in verdicts if not verdict.problems)
        seen = f"{well} of {len(CROWD)} calls as expected, in {seconds:.1f} s"
        found = tuple(problem for verdict in verdicts for problem in verdict.problems)
        return Verdict(CROWD[0].title, "several", seen, found)

    async def wait_for_minute(self) -> None:
        """If the minute is nearly over, wait for the next: a budget of a minute starts with it."""
        left = 60 - dt.datetime.now(dt.UTC).timestamp() % 60
        if left < _MINUTE_SECONDS_NEEDED:
            self._board.title = "waiting for the minute to turn"
            await asyncio.sleep(left + 0.1)


def _summarise(console: Console, board: Board, *, plain: bool) -> None:
    if console.is_terminal and not plain:
        table = Table(title="What was asked, and what came of it", pad_edge=False)
        for name in ("", "step", "tenant", "seen"):
            table.add_column(name)
        for verdict in board.verdicts:
            mark = Text("no", "red") if verdict.problems else Text("ok", "green")
            table.add_row(mark, Text(verdict.title), Text(verdict.tenant), Text(verdict.seen))
        console.print(table)
    for problem in board.problems:
        console.print(Text("not as expected: " + problem, style="red"), soft_wrap=True)
    failed = sum(1 for verdict in board.verdicts if verdict.problems)
    count = len(board.verdicts)
    end = f"{count - failed} of {count} steps as expected, {len(board.records)} requests"
    console.print(Text(end, style="bold red" if failed else "bold green"))
