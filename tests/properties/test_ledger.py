"""Whatever is done to a ledger, in whatever order, its sums are those of the plain model."""

from contextlib import AbstractAsyncContextManager, nullcontext

from hypothesis import settings

from extproc.ledger.memory import MemoryLedger
from extproc.ledger.port import OpenLedger
from tests.ledger_books import Clock
from tests.ledger_model import LedgerMachine


class MemoryMachine(LedgerMachine):
    def opened(
        self, clock: Clock, reservation_seconds: float
    ) -> AbstractAsyncContextManager[OpenLedger]:
        return nullcontext(MemoryLedger(clock, reservation_seconds))


TestMemoryLedger = MemoryMachine.TestCase
TestMemoryLedger.settings = settings(deadline=None, stateful_step_count=60)
