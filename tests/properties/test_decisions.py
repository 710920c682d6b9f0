"""Whatever is asked, in whatever order: no limit is exceeded, and every request gets an answer."""

import asyncio
from decimal import Decimal
from itertools import count

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extproc.exchange import actions
from extproc.exchange.events import RequestBody
from extproc.exchange.holds import holds_of
from extproc.exchange.machine import Exchange
from extproc.ledger.memory import MemoryLedger
from extproc.policy.budgets import Budget, Claim, Reserve, Window
from extproc.policy.tenants import Tenant
from tests.scenarios.harness import Bare, headers_of
from tests.scenarios.table import Call, chat

BARE = Bare()
CHAIN = ("premium", "standard", "default")
NOW = 1_800_000_000.0

budgets = st.lists(
    st.builds(
        Budget,
        id=st.just("id"),
        limit=st.integers(0, 4000).map(Decimal),
        unit=st.sampled_from(["tokens", "requests", "concurrent_requests"]),
        on_exhausted=st.sampled_from(["refuse", "downgrade"]),
        reserve=st.sampled_from(["expected", "maximum"]),
        tiers=st.none() | st.just(("premium",)),
    ),
    min_size=1,
    max_size=4,
).map(
    lambda found: tuple(
        Budget(
            id=f"b{number}",
            limit=budget.limit,
            unit=budget.unit,
            window=None if budget.unit == "concurrent_requests" else Window(seconds=60),
            on_exhausted=budget.on_exhausted,
            reserve=budget.reserve,
            tiers=budget.tiers,
        )
        for number, budget in enumerate(found)
    )
)

bodies = st.builds(
    lambda words, maximum, choices: chat("word " * words, max_tokens=maximum, n=choices),
    st.integers(0, 600),
    st.none() | st.integers(0, 900),
    st.integers(1, 3),
)


class World:
    """One tenant, one ledger, many requests."""

    def __init__(self, limits: tuple[Budget, ...]) -> None:
        self.limits = limits
        tenants = {"acme": Tenant(plan="premium", budgets=limits)}
        policy = BARE.rules.policy._replace(tenants=tenants)
        self.rules = structs.replace(BARE.rules, policy=policy)
        self.ledger = MemoryLedger(lambda: NOW, 900)
        self.names = count()

    def send(self, body: bytes) -> actions.Final:
        exchange = Exchange(self.rules, BARE.counter, reservation=f"{next(self.names):032x}")
        action = exchange.receive(headers_of(Call(body)))
        while not isinstance(action, actions.Final):
            if isinstance(action, Reserve):
                action = exchange.receive(asyncio.run(self.ledger.reserve(action)))
            else:
                action = exchange.receive(RequestBody(body))
        return action

    def used(self) -> dict[str, int]:
        """What is charged and held of each budget."""
        claims = [
            Claim(limit.id, limit.unit, limit.limit_units, limit.window, 0, 0)
            for limit in self.limits
        ]
        found = asyncio.run(self.ledger.standing("acme", claims))
        return {
            limit.id: standing.committed + standing.reserved
            for limit, standing in zip(self.limits, found, strict=True)
        }


@given(budgets, st.lists(bodies, max_size=12))
def test_no_order_of_requests_exceeds_a_limit(
    limits: tuple[Budget, ...], requests: list[bytes]
) -> None:
    world = World(limits)
    for body in requests:
        before = world.used()
        action = world.send(body)
        after = world.used()

        assert all(after[limit.id] <= limit.limit_units for limit in limits)
        if isinstance(action, actions.Route):
            taken = {name: after[name] - before[name] for name in after}
            held = holds_of(action.metadata["reserved"]) or ()
            assert {name: amount for name, amount in taken.items() if amount} == {
                hold.budget: hold.amount for hold in held if hold.amount
            }
            assert action.metadata["tier"] in CHAIN
        else:
            assert isinstance(action, actions.Reject)
            assert after == before


@given(budgets, bodies)
def test_a_tier_is_only_left_for_a_reason(limits: tuple[Budget, ...], body: bytes) -> None:
    action = World(limits).send(body)

    if isinstance(action, actions.Route) and action.metadata["tier"] != "premium":
        assert action.metadata["downgraded_from"] == "premium"
        assert "udget 'b" in action.metadata["reason"]
        assert any(limit.on_exhausted == "downgrade" for limit in limits)
