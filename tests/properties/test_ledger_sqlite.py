"""Whatever is done to a ledger in a file, killed and closed in between, its sums are right."""

import shutil
import sqlite3
import tempfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import precondition, rule

from extproc.ledger.port import OpenLedger
from extproc.ledger.sqlite import SqliteLedger
from tests.ledger_books import UNDISTURBED, Books, Clock
from tests.ledger_model import LedgerMachine


class SqliteMachine(LedgerMachine):
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "1.db"
        super().__init__()
        self._intruder = sqlite3.connect(self._path, isolation_level=None)

    def opened(
        self, clock: Clock, reservation_seconds: float
    ) -> AbstractAsyncContextManager[OpenLedger]:
        return SqliteLedger.open(self._path, clock, reservation_seconds, pace=UNDISTURBED)

    def teardown(self) -> None:
        self._intruder.close()
        self.books.close()
        self._folder.cleanup()

    @rule()
    def kill(self) -> None:
        """Go on with what is on the disk at this moment."""
        self.lives += 1
        path = self._path.with_name(f"{self.lives}.db")
        for ending in ("", "-wal"):
            shutil.copy(f"{self._path}{ending}", f"{path}{ending}")
        self._go_on(path)
        self.model.die()

    @precondition(lambda self: self.is_writable)
    @rule()
    def stop_and_start(self) -> None:
        self.model.pass_time(self.now)
        self.model.write()
        self.lives += 1
        self._go_on(self._path)
        self.model.die()

    def _go_on(self, path: Path) -> None:
        self._intruder.close()
        self.books.close()
        self._path = path
        clock = self.books.clock
        self.books = Books(self.opened, clock)
        self._intruder = sqlite3.connect(path, isolation_level=None)
        self.is_writable = True

    @precondition(lambda self: self.is_writable)
    @rule()
    def keep_it_from_writing(self) -> None:
        self._intruder.execute("BEGIN IMMEDIATE")
        self.is_writable = False

    @precondition(lambda self: not self.is_writable)
    @rule()
    def let_it_write(self) -> None:
        self._intruder.execute("ROLLBACK")
        self.is_writable = True


TestSqliteLedger = SqliteMachine.TestCase
TestSqliteLedger.settings = settings(deadline=None, stateful_step_count=60, max_examples=60)
