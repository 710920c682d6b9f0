"""extproc/ledger/sqlite.py and what it is made of"""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from extproc.ledger.port import OpenLedger
from extproc.ledger.sqlite import SqliteLedger
from tests.ledger_books import Clock
from tests.ledger_contract import LedgerContract


class TestSqliteLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _in_a_folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "ledger.db"

    def opened(
        self, clock: Clock, reservation_seconds: float
    ) -> AbstractAsyncContextManager[OpenLedger]:
        return SqliteLedger.open(self.path, clock, reservation_seconds)
