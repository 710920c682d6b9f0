"""extproc/ledger/valkey.py against a real Valkey"""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from extproc.ledger.lease_messages import Rules
from extproc.ledger.port import OpenLedger
from extproc.ledger.valkey import ValkeyLedger
from extproc.ledger.valkey_link import Patience
from tests import valkeys
from tests.ledger_books import Clock
from tests.ledger_contract import LedgerContract

PATIENT = Patience(decision=10.0, record=10.0, connect=5.0)


@pytest.fixture(scope="module")
def server() -> Iterator[valkeys.Server]:
    with valkeys.running() as server:
        yield server


class TestValkeyLedger(LedgerContract):
    """Every reservation is one question to the store."""

    leases: Rules | None = None

    @pytest.fixture(autouse=True)
    def _on(self, server: valkeys.Server) -> None:
        server.flush()
        self.url = server.url

    def opened(
        self, clock: Clock, reservation_seconds: float
    ) -> AbstractAsyncContextManager[OpenLedger]:
        return ValkeyLedger.open(
            self.url,
            clock,
            reservation_seconds,
            leases=self.leases,
            patience=PATIENT,
            is_clock_imposed=True,
        )


class TestLeases(TestValkeyLedger):
    """The same, with leases of all that was ever asked for."""

    leases = Rules(busy_requests=0)
