"""Books that are kept in a file, and what may happen to such a file."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from extproc.ledger.bounds import BOUNDS, Bounds, Pace
from extproc.ledger.sqlite import SqliteLedger, WhenUnavailable
from tests.ledger_books import UNDISTURBED, Books, Clock

PATIENCE_SECONDS = 20
"""No test waits for this long; one that would fails."""


class FileBooks(Books):
    """The books of a ledger in a file. An intruder, a second connection, can get in its way."""

    ledger: SqliteLedger

    def __init__(
        self,
        path: Path,
        clock: Clock | None = None,
        *,
        pace: Pace = UNDISTURBED,
        bounds: Bounds = BOUNDS,
        when_unavailable: WhenUnavailable = "allow",
    ) -> None:
        self._options: dict[str, Any] = {
            "pace": pace,
            "bounds": bounds,
            "when_unavailable": when_unavailable,
        }
        self._begin(path, clock or Clock())

    def _begin(self, path: Path, clock: Clock) -> None:
        self.path = path
        super().__init__(self._opened, clock)
        self.intruder = sqlite3.connect(path, isolation_level=None)

    def _opened(
        self, clock: Clock, reservation_seconds: float
    ) -> AbstractAsyncContextManager[SqliteLedger]:
        return SqliteLedger.open(self.path, clock, reservation_seconds, **self._options)

    def close(self) -> None:
        self.intruder.close()
        super().close()

    def restart(self) -> None:
        """Close, and open anew."""
        self.close()
        self._begin(self.path, self.clock)

    def kill(self) -> None:
        """Go on with what is on the disk at this moment; whatever comes after it is lost."""
        path = self.path.with_name(f"{self.path.name}~")
        for ending in ("", "-wal"):
            shutil.copy(f"{self.path}{ending}", f"{path}{ending}")
        self.close()
        self._begin(path, self.clock)

    def block(self) -> None:
        """Let nothing be written."""
        self.intruder.execute("BEGIN IMMEDIATE")

    def unblock(self) -> None:
        self.intruder.execute("ROLLBACK")

    def count(self, query: str) -> int:
        """What the file says."""
        (number,) = self.intruder.execute(query).fetchone()
        assert isinstance(number, int)
        return number

    @property
    def commits(self) -> int:
        """How many transactions the write-ahead log holds: their last frame has a size."""
        log = Path(f"{self.path}-wal").read_bytes()
        page_bytes = int.from_bytes(log[8:12], "big")
        frames = range(32, len(log), 24 + page_bytes)
        return sum(log[at + 4 : at + 8] != bytes(4) for at in frames)


async def until(is_so: Callable[[], bool]) -> None:
    """Let others run until something has become true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110  # nobody could set an event
            await asyncio.sleep(0)  # what is waited for happens in a thread
