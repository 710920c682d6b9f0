"""Takes the steps, one after the other or many at once, and judges each."""

import asyncio
import datetime as dt
import functools
from collections.abc import Mapping
from typing import Final

from extproc.demo import clients
from extproc.demo.accesslog import AccessLog
from extproc.demo.backstage import Backstage, holds_soon
from extproc.demo.board import Board, Verdict, seen_of
from extproc.demo.screen import Screen
from extproc.demo.steps import Scene, Step, problems

GATE_HEADER: Final = "x-adapter-gate"
_MINUTE_SECONDS_NEEDED: Final = 10


class Play:
    """The demo's calls. `callers` are the SDKs of each tenant; verdicts go on the board."""

    def __init__(  # noqa: PLR0913  # it is where all of them meet
        self,
        callers: Mapping[str, clients.Sdks],
        backstage: Backstage,
        log: AccessLog,
        board: Board,
        shown: Screen,
        *,
        pause_seconds: float,
    ) -> None:
        self._callers = callers
        self._backstage = backstage
        self._log = log
        self._board = board
        self._shown = shown
        self._pause_seconds = pause_seconds

    async def steps(self, steps: tuple[Step, ...]) -> None:
        """Take them in order. An answer that is held is judged when it has ended."""
        held: dict[str, asyncio.Task[Verdict]] = {}
        async with asyncio.TaskGroup() as tasks:
            for number, step in enumerate(steps):
                mark = str(number)
                self._board.title = f"{step.tenant or 'somebody'}: {step.title}"
                if step.ends_waiting:
                    await self._end_waiting(held)
                if step.begins_minute:
                    await self._wait_for_minute()
                if step.is_held:
                    held[mark] = tasks.create_task(self._call(_gated(step, mark), mark))
                    await holds_soon(functools.partial(self._backstage.has_reached_a_model, mark))
                else:
                    await self.judge(await self._call(step, mark))

    async def scene(self, scene: Scene, mark: str) -> None:
        """Run all lanes at once: one verdict for all of their calls."""
        self._board.title = scene.title
        loop = asyncio.get_running_loop()
        began = loop.time()
        lanes = await asyncio.gather(
            *(self._lane(lane, f"{mark}-{number}") for number, lane in enumerate(scene.lanes))
        )
        verdicts = [verdict for lane in lanes for verdict in lane]
        well = sum(1 for verdict in verdicts if not verdict.problems)
        seen = f"{well} of {len(verdicts)} calls as expected, in {loop.time() - began:.1f} s"
        found = tuple(problem for verdict in verdicts for problem in verdict.problems)
        await self.judge(Verdict(scene.title, "several", seen, found))

    async def judge(self, verdict: Verdict) -> None:
        """Put it on the board, and give people the time to see it."""
        self._board.verdicts.append(verdict)
        self._shown.judged(verdict)
        await asyncio.sleep(self._pause_seconds)

    async def _end_waiting(self, held: dict[str, asyncio.Task[Verdict]]) -> None:
        for gate, ending in held.items():
            await self._backstage.let_through(gate)
            await self.judge(await ending)
        held.clear()
        await holds_soon(self._backstage.is_settled)

    async def _call(self, step: Step, mark: str) -> Verdict:
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

    async def _lane(self, lane: tuple[Step, ...], mark: str) -> list[Verdict]:
        return [await self._call(step, f"{mark}-{number}") for number, step in enumerate(lane)]

    async def _wait_for_minute(self) -> None:
        """If the minute is nearly over, wait for the next: a budget of a minute starts with it."""
        left = 60 - dt.datetime.now(dt.UTC).timestamp() % 60
        if left < _MINUTE_SECONDS_NEEDED:
            self._board.title = "waiting for the minute to turn"
            await asyncio.sleep(left + 0.1)


def _gated(step: Step, gate: str) -> Step:
    headers = {**step.ask.headers, GATE_HEADER: gate}
    return step._replace(ask=step.ask._replace(headers=headers))
