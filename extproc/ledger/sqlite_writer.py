"""Writes to the ledger's file what is decided in memory: batch upon batch, together.

Batches that come while one transaction is written wait for the next, and go into it together.
Each is decided when its turn comes, and answered once it is in the file and then in memory. If
it can't be written all of them are `unavailable`, and memory is as it was before.

1.  At most one transaction is under way. So what it changes is known to nobody else meanwhile,
    and what memory decides in between (reservations, expiries) goes into a later one.
2.  A file is never opened again while the process lives: what a failed write left behind in it
    could then come to light, and memory would not have it.
"""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

from extproc.ledger.bounds import Pace
from extproc.ledger.holdings import Holdings, Plan
from extproc.ledger.notes import Notes, unavailable
from extproc.ledger.remembered import Expired
from extproc.ledger.sqlite_file import Contents, LedgerFile
from extproc.ledger.sqlite_opening import advice
from extproc.ledger.unwritten import ID_KEPT_SECONDS, Unwritten
from extproc.policy.budgets import Settled, Settlement

WAITING_MAX: Final = 100_000
"""Settlements that may wait for those before them. Beyond it a batch is `unavailable`."""

WRITTEN_TOGETHER_MAX: Final = 1000
"""Settlements of several batches in one transaction; a batch is never split."""

_SLICE: Final = 64
"""Settlements handled in one go; then whoever waits for a decision has its turn."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


class _Batch(NamedTuple):
    settlements: Sequence[Settlement]
    notes: Mapping[str, str | None]
    answer: asyncio.Future[tuple[Settled, ...]]


class _Planned(NamedTuple):
    """What a group of batches changes, and what each of them is answered if it is written."""

    plans: list[Plan]
    notes: dict[str, str | None]
    answers: list[tuple[Settled, ...]]


class Writer:
    """Writes to one file, in the event loop that it is made in, until it is closed."""

    def __init__(  # noqa: PLR0913  # it is where all of them meet
        self,
        file: LedgerFile,
        contents: Contents,
        thread: ThreadPoolExecutor,
        holdings: Holdings,
        unwritten: Unwritten,
        *,
        pace: Pace,
    ) -> None:
        self.notes = Notes(contents.notes)
        self.forgotten_until = contents.forgotten_until
        """Of reservations that were over by then not all are known any more."""
        self._trouble = ""
        self._begun: float | None = None
        """Since when the file has been at work on one call."""
        self._file = file
        self._thread = thread
        self._holdings = holdings
        self._unwritten = unwritten
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._prune_at = self._loop.time() + min(pace.tick, pace.prune)
        self._queue: deque[_Batch] = deque()
        self._waiting = 0
        self._work = asyncio.Event()
        self._is_closing = False
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._ended)

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None]
    ) -> tuple[Settled, ...]:
        """Return once they are committed, or can't be."""
        if self._is_closing or (self._waiting and self._waiting + len(settlements) > WAITING_MAX):
            return unavailable(settlements)
        answer = self._loop.create_future()
        self._queue.append(_Batch(tuple(settlements), dict(notes), answer))
        self._waiting += len(settlements)
        self._work.set()
        settled: tuple[Settled, ...] = await answer
        return settled

    @property
    def health(self) -> str:
        """Why the last write failed, or why this one may, in one line; empty if all is well."""
        if self._begun is not None:
            seconds = self._loop.time() - self._begun
            if seconds > self._pace.slow:
                return f"{self._file.path}: the disk has not answered for {seconds:.0f} s"
        return self._trouble

    async def close(self) -> None:
        """Take no more, and return once all there is is written, or can't be."""
        self._is_closing = True
        self._work.set()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Write what there is, group by group; when it is closed, all that is left."""
        while self._queue or not self._is_closing:
            await self._something_to_do()
            self._holdings.tidy()
            batches = self._next_batches()
            if batches or self._unwritten or self._trouble:
                await self._write(batches)
            await self._prune()
        self._holdings.tidy()
        while self._unwritten and await self._write([]):
            pass
        if self._unwritten:
            _log.error("%d expired reservations were not written", len(self._unwritten))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """See to it that nobody waits, whyever it ended."""
        self._is_closing = True
        _refuse(self._queue)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._trouble = f"{self._file.path}: a bug ended all writing: {error!r}. Start anew"
            _log.error("the ledger can't be written: %s", self._trouble, exc_info=error)

    async def _something_to_do(self) -> None:
        """Return at once where batches wait, else when one comes, or it is time for the rest."""
        if not self._queue:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.tick):
                    await self._work.wait()
        self._work.clear()

    def _next_batches(self) -> list[_Batch]:
        """Those that are written next, together."""
        batches: list[_Batch] = []
        count = 0
        while self._queue:
            count += len(self._queue[0].settlements)
            if batches and count > WRITTEN_TOGETHER_MAX:
                break
            batches.append(self._queue.popleft())
            self._waiting -= len(batches[-1].settlements)
        return batches

    async def _write(self, batches: Sequence[_Batch]) -> bool:
        """Write `batches`, and what time has changed, and answer them; whether it is written."""
        planned = _Planned([], {}, [])
        try:
            found = await self._look_up(batches)
            await self._plan(batches, found, planned)
            await self._commit(planned)
        except sqlite3.Error as error:
            for plan in planned.plans:
                self._holdings.abandon(plan)
            self._fail(error)
            return False
        else:
            for batch, answer in zip(batches, planned.answers, strict=True):
                if not batch.answer.done():
                    batch.answer.set_result(answer)
            self._recover()
            return True
        finally:
            _refuse(batches)

    async def _look_up(self, batches: Sequence[_Batch]) -> dict[str, Expired]:
        """What the file knows of their reservations, where memory knows nothing of their end."""
        known = self._holdings.remembered
        names = {s.reservation for batch in batches for s in batch.settlements}
        names = {name for name in names if name not in known}
        return await self._in_thread(self._file.look_up, names) if names else {}

    async def _plan(
        self, batches: Sequence[_Batch], found: Mapping[str, Expired], planned: _Planned
    ) -> None:
        """Decide what they change, in order, into `planned`."""
        handled = 0
        for batch in batches:
            if not self.notes.have_room({**planned.notes, **batch.notes}):
                planned.answers.append(unavailable(batch.settlements))
                continue
            answers: list[Settled] = []
            for settlement in batch.settlements:
                name = settlement.reservation
                past = found.get(name) or self._unwritten.get(name)
                plan = self._holdings.plan(settlement, past)
                if isinstance(plan, Plan):
                    planned.plans.append(plan)
                answers.append(plan.settled if isinstance(plan, Plan) else plan)
                handled += 1
                if handled % _SLICE == 0:
                    await asyncio.sleep(0)
            planned.answers.append(tuple(answers))
            if "unavailable" not in answers:
                planned.notes.update(batch.notes)

    async def _commit(self, planned: _Planned) -> None:
        """Have it written; then let memory be the same."""
        holdings = self._holdings
        writing = self._unwritten.take(holdings.accounts, planned.plans, planned.notes)
        try:
            await self._in_thread(self._file.write, writing.transaction)
        except sqlite3.Error:
            self._unwritten.put_back(writing)
            raise
        self._unwritten.keep(writing)
        self.notes.change(planned.notes)
        for handled, plan in enumerate(planned.plans, 1):
            holdings.apply(plan)
            if handled % _SLICE == 0:
                await asyncio.sleep(0)

    async def _prune(self) -> None:
        """Forget some of what is over for long enough, if it is time for that."""
        if self._loop.time() < self._prune_at:
            return
        self._prune_at = self._loop.time() + self._pace.tick
        try:
            until, was_last = await self._in_thread(
                self._file.prune, self._unwritten.clock(), ID_KEPT_SECONDS
            )
        except sqlite3.Error as error:
            self._fail(error)
            return
        self.forgotten_until = max(self.forgotten_until, until)
        if was_last:
            self._prune_at = self._loop.time() + self._pace.prune

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        self._begun = self._loop.time()
        try:
            return await self._loop.run_in_executor(self._thread, call, *args)
        finally:
            self._begun = None

    def _fail(self, error: sqlite3.Error) -> None:
        was_well = not self._trouble
        self._trouble = f"{self._file.path}: {error}. {advice(error)}"
        if was_well:
            _log.error("the ledger can't be written: %s", self._trouble)

    def _recover(self) -> None:
        if self._trouble:
            self._trouble = ""
            _log.warning("the ledger is written again: %s", self._file.path)


def _refuse(batches: Iterable[_Batch]) -> None:
    """Answer those that are still to be answered: they were not taken."""
    for batch in batches:
        if not batch.answer.done():
            batch.answer.set_result(unavailable(batch.settlements))
