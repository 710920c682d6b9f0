"""A real BudgetService in this process, over a ledger in memory and a clock that stands."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from extproc import app
from extproc.budgets_api import budgets_pb2 as pb
from extproc.budgets_api.budgets_pb2_grpc import BudgetServiceStub
from extproc.config.loader import load_file
from extproc.ledger.memory import MemoryLedger
from extproc.ledger.port import NO_NOTES
from extproc.policy.budgets import Charge, Claim, Reserve, Settled, Settlement, Window
from extproc.server.budget_access import Access
from extproc.server.budget_service import BudgetService
from extproc.server.budget_serving import Tls, serving_budgets
from extproc.server.grants import Grants
from extproc.server.rulebook import Rulebook
from tests.scenarios.table import SETTINGS

NOON = 1_800_014_400.0
"""2027-01-15 12:00 UTC."""

LOCAL = Access(is_loopback_trusted=True)
DAY = Window(calendar="day")
HOUR = Window(calendar="hour")


class Forgetful(MemoryLedger):
    """Can't keep notes while `is_away`."""

    is_away = False

    async def settle(
        self, settlements: Any, notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        return await super().settle(settlements, NO_NOTES if self.is_away else notes)


class World:
    """The parts, for a test to look at and to move."""

    def __init__(self, settings: Path = SETTINGS) -> None:
        loaded = load_file(settings)
        self.now = NOON
        self.ledger = Forgetful(self.clock, reservation_seconds=60)
        self.rulebook = Rulebook(loaded)
        self.grants = Grants(self.rulebook, self.ledger, self.clock)
        self.audited: list[Mapping[str, Any]] = []
        self.service = BudgetService(
            self.rulebook,
            self.ledger,
            app.counter_of(loaded),
            self.grants,
            clock=self.clock,
            tell=self.audited.append,
        )

    def clock(self) -> float:
        return self.now

    async def use(self, tenant: str, budget: str, window: Window, amount: int) -> None:
        """Have it charged."""
        name = os.urandom(8).hex()
        charge = Charge(budget, window.span(self.now).start, amount)
        await self.ledger.settle([Settlement(name, tenant, (charge,))])

    async def has_room(self, tenant: str, budget: str, amount: int) -> bool:
        """Whether the filter's rules would let it go now."""
        known = self.rulebook.rules.policy.tenants[tenant].budgets
        claims = tuple(
            Claim(one.id, one.unit, one.limit_units, one.window, amount, amount)
            for one in known
            if one.id == budget
        )
        answer = await self.ledger.peek(Reserve("asked", tenant, claims))
        return type(answer).__name__ == "Reserved"


@asynccontextmanager
async def budgets(
    world: World, access: Access = LOCAL, *, tls: Tls | None = None
) -> AsyncIterator[int]:
    """Serve it on a free port, which it yields."""
    async with serving_budgets(world.service, access, address="127.0.0.1:0", tls=tls) as port:
        yield port


@asynccontextmanager
async def asking(world: World, access: Access = LOCAL) -> AsyncIterator[Any]:
    """The same, with a client."""
    async with (
        budgets(world, access) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield BudgetServiceStub(channel)


def grant_of(**fields: Any) -> pb.AdjustRequest:
    """A sound request for a grant, but for `fields`."""
    sound: dict[str, Any] = {
        "tenant": "tiny",
        "budget": "day",
        "amount": 30,
        "until": NOON + 600,
        "reason": "exam week",
    }
    return pb.AdjustRequest(**(sound | fields))
