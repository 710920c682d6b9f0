"""extproc/ledger/valkey.py does what the model does, with leases and without."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from extproc.ledger.lease_messages import Rules
from extproc.ledger.port import OpenLedger
from extproc.ledger.valkey import ValkeyLedger
from extproc.ledger.valkey_link import Patience
from extproc.policy.budgets import Claim
from tests import valkeys
from tests.ledger_books import RESERVATION_SECONDS, Books, Clock
from tests.ledger_model import STEPS_BACK_SECONDS_MAX, Entry, LedgerMachine, Model

PATIENT = Patience(decision=10.0, record=10.0, connect=5.0)
SERVERS: list[valkeys.Server] = []


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with valkeys.running() as server:
        SERVERS.append(server)
        yield
        SERVERS.pop()


class TenantModel(Model):
    """Where the clock steps back, what is due in its order is that of one tenant, not of all."""

    def hold(self, name: str, tenant: str, claims: tuple[Claim, ...], now: float) -> None:
        due = now + RESERVATION_SECONDS
        for entry in self.entries.values():
            if entry.tenant == tenant:
                entry.due = min(entry.due, due)
        self.entries[name] = Entry(tenant, claims, now, due)


class ValkeyMachine(LedgerMachine):
    leases: Rules | None = None

    def __init__(self) -> None:
        super().__init__()
        self.model = TenantModel()

    @rule(seconds=st.floats(0.25, STEPS_BACK_SECONDS_MAX))
    def step_back(self, seconds: float) -> None:
        self.read()  # a tenant's books hear what time it is when somebody asks about them
        super().step_back(seconds)

    def new_books(self) -> Books:
        SERVERS[-1].flush()
        return Books(self._opened)

    def _opened(
        self, clock: Clock, reservation_seconds: float
    ) -> AbstractAsyncContextManager[OpenLedger]:
        return ValkeyLedger.open(
            SERVERS[-1].url,
            clock,
            reservation_seconds,
            leases=self.leases,
            patience=PATIENT,
            is_clock_imposed=True,
        )


class LeaseMachine(ValkeyMachine):
    leases = Rules(busy_requests=0)


TestValkey = ValkeyMachine.TestCase
TestValkey.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLeases = LeaseMachine.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
