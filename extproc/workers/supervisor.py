"""Starts workers, starts them again when they end, and ends with them."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from extproc.admin.server import administering
from extproc.config.settings import Settings
from extproc.telemetry.turns import new_turn
from extproc.workers.answers import JointAnswers
from extproc.workers.channel import Begin
from extproc.workers.crew import Crew
from extproc.workers.member import Member
from extproc.workers.reserved import reserved

START_SECONDS_MAX: Final = 120.0
"""A worker that is not ready by then is ended. 100,000 tenants take some 15 s."""

RESTART_SECONDS_MIN: Final = 0.2
RESTART_SECONDS_MAX: Final = 30.0
"""Between the end of a worker that has not been steady and the next: twice as long each time."""

STEADY_SECONDS: Final = 10.0
"""Whoever served for so long ended for a reason of its own, and is started again at once."""

ENDS_IN_A_ROW_MAX: Final = 5
"""Where every worker has ended so often without having been steady, and none serves, we end."""

POLL_SECONDS: Final = 2.0
"""How often each is asked: what one that is killed has counted since then is lost."""

SILENT_SECONDS_MAX: Final = 30.0
"""Whoever serves and has not answered for so long is ended: connections still come to it."""

LEAVE_SECONDS: Final = 10.0
"""How much longer than the drain workers may take to end."""

EXIT_HOPELESS: Final = 1

_log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What is to be run. `command` starts a worker, but for what tells it which."""

    settings: Settings
    workers: int
    port: int
    command: Sequence[str]
    drain_seconds: float


def worker_command(settings: Path, transport: str) -> Sequence[str]:
    """How a worker is started."""
    words = ("serve", "--settings", str(settings), "--transport", transport)
    return (sys.executable, "-P", "-m", "extproc", *words)


async def supervise(plan: Plan, *, on_ready: Callable[[str], None], now: float) -> int:
    """Serve by workers until SIGTERM or SIGINT, then let all of them drain. Returns an exit code.

    It is that of a worker which could not begin; `EXIT_HOPELESS` where none stays alive.

    Raises:
        OSError: the admin's address can't be bound, or no process be started.
        RuntimeError: the filter's address can't be bound.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    admin = plan.settings.admin
    async with AsyncExitStack() as stack:
        port = stack.enter_context(reserved(plan.settings.listen.address, plan.port))
        crew = Crew(plan.workers, version("llm-extproc"))
        loop.add_signal_handler(signal.SIGHUP, crew.signal, signal.SIGHUP)
        shown = await stack.enter_async_context(
            administering(JointAnswers(crew), admin.address, admin.port)
        )
        on_ready(f"admin on {admin.address}:{shown}")
        turn = new_turn()
        stack.callback(os.close, turn)
        begin = Begin(0, plan.workers, port, None, turn, now, _without_tenants(plan.settings))
        keeper = _Keeper(plan, begin, crew, stopping, on_ready)
        return await keeper.run()


def _without_tenants(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, tenants={})


class _Keeper:
    """Keeps so many workers alive."""

    def __init__(
        self,
        plan: Plan,
        begin: Begin,
        crew: Crew,
        stopping: asyncio.Event,
        on_ready: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._begin = begin
        self._crew = crew
        self._stopping = stopping
        self._on_ready = on_ready
        self._loop = asyncio.get_running_loop()
        self._code = 0
        self._ends = dict.fromkeys(range(plan.workers), 0)
        """In a row, of each number, without having been steady."""
        self._budgets_port = plan.settings.budget_api.port if plan.settings.budget_api else 0

    async def run(self) -> int:
        """Keep them until it is time to stop; then let them end. Returns the exit code."""
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(work) for work in (self._start(tasks), self._watch())]
            await self._stopping.wait()
            _log.info("draining for up to %g s", self._plan.drain_seconds)
            self._crew.leave()
            for task in beside:
                task.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._plan.drain_seconds + LEAVE_SECONDS):
                    await self._crew.until(lambda: not self._crew.members)
            for member in self._crew.members.values():
                member.signal(signal.SIGKILL)
        return self._code

    async def _start(self, tasks: asyncio.TaskGroup) -> None:
        """Start the first alone, so that what keeps all of them from starting is told once."""
        crew, workers = self._crew, self._plan.workers
        tasks.create_task(self._keep(0))
        await crew.until(lambda: bool(crew.serving()))
        for number in range(1, workers):
            tasks.create_task(self._keep(number))
        await crew.until(lambda: len(crew.serving()) == workers)
        crew.is_up = True
        for line in self._crew.members[0].lines:
            self._on_ready(line)

    async def _keep(self, number: int) -> None:
        """Have a worker of this number until it is time to stop."""
        while not self._stopping.is_set():
            code = await self._live(number)
            if self._stopping.is_set():
                return
            if not self._crew.is_up:
                self._end(code if code > 0 else EXIT_HOPELESS, f"worker {number} {_how(code)}")
            elif self._is_hopeless():
                self._end(EXIT_HOPELESS, f"no worker stays alive; the last one {_how(code)}")
            else:
                await self._pause(number, code)

    async def _live(self, number: int) -> int:
        """Have one life of it; return how it ended."""
        budgets_port = None if number else self._budgets_port
        begin = msgspec.structs.replace(self._begin, number=number, budgets_port=budgets_port)
        try:
            member = await Member.start(self._plan.command, begin, self._crew.look)
        except OSError as error:
            _log.error("worker.unstarted %d: %s", number, error.strerror)
            self._ends[number] += 1
            return EXIT_HOPELESS
        self._crew.join(member)
        code = await member.listen()
        self._crew.part(member)
        lived = self._loop.time() - member.began
        is_steady = bool(member.lines) and lived >= STEADY_SECONDS
        self._ends[number] = 0 if is_steady else self._ends[number] + 1
        if not number and member.lines:
            self._budgets_port = _port_of("budgets on ", member.lines)
        return code

    async def _pause(self, number: int, code: int) -> None:
        ends = self._ends[number]
        pause = min(RESTART_SECONDS_MIN * 2 ** (ends - 1), RESTART_SECONDS_MAX) if ends else 0.0
        _log.warning("worker.ended %d %s; the next in %g s", number, _how(code), pause)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stopping.wait()

    def _is_hopeless(self) -> bool:
        return not self._crew.members and all(
            ends >= ENDS_IN_A_ROW_MAX for ends in self._ends.values()
        )

    def _end(self, code: int, why: str) -> None:
        _log.error("giving up: %s", why)
        self._code = code
        self._stopping.set()

    async def _watch(self) -> None:
        """Ask them how they are, for ever; who has nothing to say is ended."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._crew.refresh("counts")
            now = self._loop.time()
            for member in list(self._crew.members.values()):
                is_ready = member.ready.is_set()
                since, seconds_max = (
                    (member.heard, SILENT_SECONDS_MAX)
                    if is_ready
                    else (member.began, START_SECONDS_MAX)
                )
                if now - since > seconds_max:
                    _log.error("worker.silent %d for %g s: it is ended", member.number, now - since)
                    member.signal(signal.SIGKILL)


def _how(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with {code}"


def _port_of(prefix: str, lines: Sequence[str]) -> int:
    found = (line for line in lines if line.startswith(prefix))
    return int(next(found, ":0").rpartition(":")[2])
