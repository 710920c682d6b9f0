"""Whatever is done to a ledger, in whatever order, its sums are those of the plain model."""

from contextlib import nullcontext

from hypothesis import settings

from extproc.ledger.memory import MemoryLedger
from tests.ledger_books import Books
from tests.ledger_model import LedgerMachine


class MemoryMachine(LedgerMachine):
    def new_books(self) -> Books:
        return Books(lambda clock, seconds: nullcontext(MemoryLedger(clock, seconds)))


TestMemoryLedger = MemoryMachine.TestCase
TestMemoryLedger.settings = settings(deadline=None, stateful_step_count=60)
