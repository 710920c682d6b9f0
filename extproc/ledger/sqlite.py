"""The embedded ledger: decided in memory, and written to one SQLite file before it is said.

What is committed, and which reservations are over, is in the file; memory has the same sums and
adds what is held. So a reservation never waits for a disk, and a settlement is answered once
the file has it. Batches that come while one is written are written together after it.

A process that dies loses what was held: what is settled of it later is unknown, and charged all
the same. An expired reservation is charged in memory at once and written within a second or so.

While the file can't be written, every batch is `unavailable` and has to come again, and one is
tried at least once a second. Memory stays right all that time, so that by default reservations
go on: with one process for the file there is nothing that memory would not know.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Literal, Self

from extproc.ledger.bounds import BOUNDS, PACE, Bounds, Pace
from extproc.ledger.holdings import Holdings
from extproc.ledger.notes import check
from extproc.ledger.port import NO_NOTES, Size, Standing, Sum
from extproc.ledger.sqlite_file import LedgerFile
from extproc.ledger.sqlite_writer import Writer
from extproc.ledger.unwritten import Unwritten
from extproc.policy.budgets import (
    Answer,
    Claim,
    DecidedBy,
    Reserve,
    Settled,
    Settlement,
    Unavailable,
)

UNWRITTEN_MAX: Final = 1_000_000
"""Expired reservations that are not written, each of some 600 bytes. Beyond it no more are
taken: the file has been out of reach for a long time."""

WhenUnavailable = Literal["allow", "deny", "local_share"]


class SqliteLedger:
    """An `OpenLedger` that one process keeps in a file. Use it in the event loop that opened it.

    While the file can't be written, `when_unavailable` says what a reservation is answered:
    "allow" and "local_share", which are the same for one process, go on from memory; "deny"
    answers `Unavailable`.
    """

    def __init__(
        self, holdings: Holdings, unwritten: Unwritten, writer: Writer, *, is_denying: bool
    ) -> None:
        self._holdings = holdings
        self._unwritten = unwritten
        self._writer = writer
        self._is_denying = is_denying
        self._denied = 0

    @classmethod
    @asynccontextmanager
    async def open(  # noqa: PLR0913  # all but three have a default
        cls,
        path: Path | str,
        clock: Callable[[], float],
        reservation_seconds: float,
        *,
        when_unavailable: WhenUnavailable = "allow",
        bounds: Bounds = BOUNDS,
        pace: Pace = PACE,
    ) -> AsyncIterator[Self]:
        """Open the file, or make one where there is none, for as long as the block lasts.

        At its end all that waits is written, whatever ended it.

        Raises:
            LedgerError: the file is in use, damaged, no ledger, or can't be written.
        """
        unwritten = Unwritten(clock)
        holdings = Holdings(clock, reservation_seconds, bounds, unwritten)
        with _opened(Path(path), pace.busy) as (file, thread):
            contents = file.load()
            for key, end, committed, keep_until in contents.rows:
                holdings.accounts.restore(key, end, committed, keep_until)
            writer = Writer(file, contents, thread, holdings, unwritten, pace=pace)
            is_denying = when_unavailable == "deny"
            try:
                yield cls(holdings, unwritten, writer, is_denying=is_denying)
            finally:
                await writer.close()

    @property
    def without_store(self) -> Mapping[DecidedBy, int]:
        """How many reservations were refused because the file could not be written."""
        return {"deny": self._denied}

    @property
    def size(self) -> Size:
        """How much is kept in memory now."""
        return self._holdings.size

    @property
    def expired(self) -> int:
        """How many reservations have expired since the ledger was opened."""
        return self._holdings.expired

    async def reserve(self, ask: Reserve) -> Answer:
        """Hold every claim or none."""
        closed = self._closed()
        if closed is not None:
            self._denied += closed.decided_by == "deny"
            return closed
        return self._holdings.answer(ask, is_kept=True)

    async def peek(self, ask: Reserve) -> Answer:
        """Say what `reserve` would answer, and hold nothing."""
        return self._closed() or self._holdings.answer(ask, is_kept=False)

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        """Charge what was used and give the rest back, once the file has it. Idempotent.

        Whoever gives up waiting does not undo it: the batch is written all the same.

        Raises:
            ValueError: something in it can't be kept. Nothing changed.
        """
        check(settlements, notes)
        return await self._writer.settle(settlements, notes)

    async def release(self, reservation: str) -> None:
        """Give a reservation back whole, because its request went nowhere."""
        self._holdings.release(reservation)

    async def standing(
        self, tenant: str, claims: Sequence[Claim], *, at: float | None = None
    ) -> tuple[Standing, ...]:
        """How each claim's budget stands now, or stood at the end of the window of `at`."""
        return self._holdings.standing(tenant, claims, at=at)

    def sums(self) -> tuple[Sum, ...]:
        """All accounts of windows that last now."""
        return self._holdings.sums()

    def notes(self, prefix: str) -> Mapping[str, str]:
        """The notes whose names begin with `prefix`."""
        return self._writer.notes.starting(prefix)

    def remembers_since(self) -> float:
        """The instant after which every settlement is still known; 0 if all are."""
        return self._writer.forgotten_until

    def health(self) -> str:
        """Why the last write failed, in one line; empty if it did not."""
        return self._writer.health

    def _closed(self) -> Unavailable | None:
        """Why no reservation is taken, if that is so."""
        if self._writer.health and self._is_denying:
            return Unavailable(self._writer.health, "deny")
        if len(self._unwritten) >= UNWRITTEN_MAX:
            return Unavailable(f"{UNWRITTEN_MAX} expired reservations wait to be written")
        return None


@contextmanager
def _opened(path: Path, busy_seconds: float) -> Iterator[tuple[LedgerFile, ThreadPoolExecutor]]:
    """The file, and the thread in which to use it; both are gone at the end of the block."""
    with ThreadPoolExecutor(1, "ledger") as thread:
        file = LedgerFile.open(path, busy_seconds=busy_seconds)
        try:
            yield file, thread
        finally:
            thread.submit(file.close).result()
