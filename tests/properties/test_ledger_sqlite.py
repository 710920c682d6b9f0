"""Whatever is done to a ledger in a file, killed and stopped in between, its sums are right."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import precondition, rule

from tests.ledger_files import FileBooks
from tests.ledger_model import LedgerMachine


class SqliteMachine(LedgerMachine):
    books: FileBooks

    def new_books(self) -> FileBooks:
        self.folder = tempfile.TemporaryDirectory()
        return FileBooks(Path(self.folder.name) / "ledger.db")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()

    @rule()
    def kill(self) -> None:
        self.books.kill()
        self._begin_anew()

    @precondition(lambda self: self.is_writable)
    @rule()
    def restart(self) -> None:
        self.model.pass_time(self.now)
        self.model.write()
        self.books.restart()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.model.die()
        self.lives += 1
        self.is_writable = True

    @precondition(lambda self: self.is_writable)
    @rule()
    def block(self) -> None:
        self.books.block()
        self.is_writable = False

    @precondition(lambda self: not self.is_writable)
    @rule()
    def unblock(self) -> None:
        self.books.unblock()
        self.is_writable = True


TestSqliteLedger = SqliteMachine.TestCase
TestSqliteLedger.settings = settings(deadline=None, stateful_step_count=60, max_examples=40)
