"""Grants of three replicas that share a Valkey: what one is asked for counts at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import grpc.aio
import pytest

from extproc import app
from extproc.budgets_api import budgets_pb2 as pb
from extproc.budgets_api.budgets_pb2_grpc import BudgetServiceStub
from extproc.config.loader import load_file
from extproc.ledger.lease_messages import Rules
from extproc.ledger.valkey import ValkeyLedger
from extproc.ledger.valkey_beats import BEAT_SECONDS
from extproc.ledger.valkey_link import Patience
from extproc.policy.budgets import Charge, Claim, Denied, Reserve, Reserved, Settlement
from extproc.server.budget_access import Access
from extproc.server.budget_service import BudgetService
from extproc.server.budget_serving import serving_budgets
from extproc.server.grants import REFRESH_SECONDS, Grants, keep_grants
from extproc.server.rulebook import Rulebook
from tests import valkeys
from tests.scenarios.table import SETTINGS

PATIENT: Final = Patience(decision=10.0, record=10.0, connect=5.0)
RULES: Final = Rules(busy_requests=0, horizon=5.0, lease=30.0)
TENANT: Final = "tiny"
LIMIT: Final = 50
AMOUNT: Final = 10
LATE_SECONDS_MAX: Final = 1.0
"""What a crowded machine may add."""

clock = time.time  # noqa: TID251  # that of the machine, as the store has it


class Replica:
    """What one process has: settings, grants, a ledger."""

    def __init__(self, ledger: ValkeyLedger) -> None:
        loaded = load_file(SETTINGS)
        self.ledger = ledger
        self.rulebook = Rulebook(loaded)
        self.grants = Grants(self.rulebook, ledger, clock)
        self.service = BudgetService(
            self.rulebook,
            ledger,
            app.counter_of(loaded),
            self.grants,
            clock=clock,
            tell=lambda _: None,
        )
        self.stub: Any = None
        self._count = 0

    @property
    def limit(self) -> int:
        return self.rulebook.rules.policy.tenants[TENANT].budgets[0].limit_units

    async def let_in(self, tries: int) -> int:
        """How many requests are let in that come one after the other."""
        count = 0
        for _ in range(tries):
            self._count += 1
            (budget,) = self.rulebook.rules.policy.tenants[TENANT].budgets
            claim = Claim(budget.id, budget.unit, budget.limit_units, budget.window, AMOUNT, AMOUNT)
            name = f"{id(self)}-{self._count}"
            answer = await self.ledger.reserve(Reserve(name, TENANT, (claim,)))
            assert isinstance(answer, Reserved | Denied)
            count += isinstance(answer, Reserved)
        return count


@pytest.fixture
def server() -> Iterator[valkeys.Server]:
    with valkeys.running() as server:
        yield server


@asynccontextmanager
async def three(server: valkeys.Server) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        replicas = []
        for _ in range(3):
            opened = ValkeyLedger.open(server.url, clock, 600.0, leases=RULES, patience=PATIENT)
            replica = Replica(await stack.enter_async_context(opened))
            serving = serving_budgets(
                replica.service, Access(is_loopback_trusted=True), address="127.0.0.1:0", tls=None
            )
            port = await stack.enter_async_context(serving)
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            replica.stub = BudgetServiceStub(await stack.enter_async_context(channel))
            keeping = asyncio.ensure_future(keep_grants(replica.grants))
            stack.callback(keeping.cancel)
            replicas.append(replica)
        yield replicas


def grant(amount: int = 3 * AMOUNT, seconds: float = 600.0, name: str = "") -> pb.AdjustRequest:
    return pb.AdjustRequest(
        tenant=TENANT,
        budget="day",
        amount=amount,
        until=clock() + seconds,
        reason="exam week",
        id=name,
    )


async def until_all_have(replicas: list[Replica], limit: int) -> float:
    """Wait until the limit is that at each; say for how many seconds."""
    began = time.monotonic()
    async with asyncio.timeout(valkeys.DEADLINE_SECONDS):
        while any(one.limit != limit for one in replicas):  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)
    return time.monotonic() - began


def test_a_grant_counts_at_all_replicas_and_gives_once_what_it_says(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        async with three(server) as replicas:
            before = [await one.let_in(3) for one in replicas]
            assert sum(before) == LIMIT // AMOUNT

            answer = await replicas[0].stub.Adjust(grant())
            assert (answer.budget.limit, answer.budget.remaining) == (LIMIT + 30, 30)
            assert replicas[0].limit == LIMIT + 30
            took = await until_all_have(replicas, LIMIT + 30)

            assert took <= BEAT_SECONDS + REFRESH_SECONDS + LATE_SECONDS_MAX
            assert sum([await one.let_in(2) for one in reversed(replicas)]) == 3

    asyncio.run(main())


def test_a_grant_ends_at_its_end_at_all_replicas(server: valkeys.Server) -> None:
    async def main() -> None:
        async with three(server) as replicas:
            asked = grant(seconds=BEAT_SECONDS + REFRESH_SECONDS + 1.5)
            await replicas[1].stub.Adjust(asked)
            await until_all_have(replicas, LIMIT + 30)
            assert await replicas[2].let_in(6) == 6
            assert clock() < asked.until

            await until_all_have(replicas, LIMIT)
            assert asked.until <= clock() <= asked.until + LATE_SECONDS_MAX
            assert [await one.let_in(1) for one in replicas] == [0, 0, 0]

    asyncio.run(main())


def test_grants_of_two_replicas_add_up_and_the_same_one_counts_once(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        async with three(server) as replicas:
            asked = grant(name="exam")
            await asyncio.gather(
                replicas[0].stub.Adjust(asked),
                replicas[1].stub.Adjust(asked),
                replicas[2].stub.Adjust(grant(amount=20)),
            )
            await until_all_have(replicas, LIMIT + 50)

            back = pb.AdjustRequest(
                tenant=TENANT, budget="day", withdraw="exam", reason="not any more"
            )
            await replicas[2].stub.Adjust(back)
            await until_all_have(replicas, LIMIT + 20)

    asyncio.run(main())


def test_a_reset_at_one_replica_gives_again_what_all_have_charged(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        async with three(server) as replicas:
            (budget,) = replicas[0].rulebook.rules.policy.tenants[TENANT].budgets
            assert budget.window is not None
            charges = (Charge("day", budget.window.span(clock()).start, 20),)
            for number, one in enumerate(replicas):
                await one.ledger.settle([Settlement(f"s{number}", TENANT, charges)])
            assert await replicas[0].let_in(1) == 0

            ask = pb.ResetRequest(tenant=TENANT, budget="day", reason="our fault")
            await asyncio.gather(*[one.stub.Reset(ask) for one in replicas])
            await until_all_have(replicas, LIMIT + 60)

            assert sum([await one.let_in(3) for one in replicas]) == LIMIT // AMOUNT

    asyncio.run(main())
