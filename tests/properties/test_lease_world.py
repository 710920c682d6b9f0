"""Leases of several replicas over one store: nothing is given twice, and nothing stays away."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from valkey import Valkey

from extproc.ledger.lease_messages import Keeping, Rules
from extproc.policy.budgets import Answer, Claim, Denied, Reserved, Unit
from extproc.policy.windows import Window
from tests import valkeys
from tests.lease_world import Replica, World

CLIENTS: list[Valkey] = []
TENANT: Final = "acme"
LIMITS: Final = {"day": 400, "minute": 120, "slots": 12}
WINDOWS: Final = {"day": Window(calendar="day"), "minute": Window(seconds=60), "slots": None}
KEEPING: Final = Keeping(reservation_seconds=30.0, remembered_seconds=1000.0)
RULES: Final = Rules(busy_requests=0)


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with valkeys.running() as server, server.client as client:
        CLIENTS.append(client)
        yield
        CLIENTS.pop()


@dataclass
class Request:
    """One that was let in: what it may have used, whoever knows of it."""

    claims: tuple[Claim, ...]
    starts: tuple[float, ...]
    due: float
    replica: Replica
    charged: dict[str, int] | None = None


def claim(budget: str, amount: int) -> Claim:
    unit: Unit = "concurrent_requests" if budget == "slots" else "tokens"
    amount = 1 if budget == "slots" else amount
    return Claim(budget, unit, LIMITS[budget], WINDOWS[budget], amount, amount)


class LeaseWorld(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        CLIENTS[-1].flushall()
        self.world = World(CLIENTS[-1], KEEPING, RULES)
        self.replicas = [self.world.new_replica() for _ in range(3)]
        self.requests: dict[str, Request] = {}
        self.unanswered: set[str] = set()
        self.released: set[str] = set()
        self.count = 0

    @rule(
        which=st.integers(0, 2),
        wanted=st.dictionaries(st.sampled_from(tuple(LIMITS)), st.integers(0, 30), min_size=1),
        times=st.integers(1, 12),
        wait=st.sampled_from((0.0, 0.0, 0.01, 0.06)),
    )
    def ask(self, which: int, wanted: dict[str, int], times: int, wait: float) -> None:
        replica = self.replicas[which]
        claims = tuple(claim(budget, amount) for budget, amount in wanted.items())
        for _ in range(times):
            self.count += 1
            self._ask(replica, f"r{self.count}", claims)
            self.world.run(self.world.now + wait / times)

    def _ask(self, replica: Replica, name: str, claims: tuple[Claim, ...]) -> None:
        def hear(answer: Answer) -> None:
            self.unanswered.discard(name)
            if isinstance(answer, Reserved):
                due = self.world.now + KEEPING.reservation_seconds
                self.requests[name] = Request(claims, answer.window_starts, due, replica)

        self.unanswered.add(name)
        self.world.reserve(replica, TENANT, name, claims, hear)

    @rule(seconds=st.sampled_from((0.001, 0.02, 0.06, 0.3, 1.0, 2.5, 7.0, 61.0)))
    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), part=st.floats(0, 1))
    def settle(self, data: st.DataObject, part: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.requests)))
        request = self.requests[name]
        charges = [
            (c.budget, start, int(c.amount * part))
            for c, start in zip(request.claims, request.starts, strict=True)
        ]
        taken = self.world.settle(TENANT, name, charges)
        if taken != "repeated":
            request.charged = {b: amount for b, start, amount in charges if start}
        else:
            assert request.charged is not None
        request.replica.books[TENANT].settled(name)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.requests)))
        request = self.requests[name]
        if request.charged is None and request.replica.is_alive and self.world.now < request.due:
            del self.requests[name]
            self.released.add(name)
            self.world.release(request.replica, TENANT, name)

    @rule(part=st.sampled_from(("request", "reply")))
    def lose_a_message(self, part: str) -> None:
        self.world.lost = part

    @rule(which=st.integers(0, 2))
    def kill(self, which: int) -> None:
        self.world.kill(self.replicas[which])
        self.replicas[which] = self.world.new_replica()

    @invariant()
    def nothing_was_given_twice(self) -> None:
        """What was let in, as it is known here, fits; and what the store counts does."""
        now = self.world.now
        for budget, limit in LIMITS.items():
            window = WINDOWS[budget]
            start = window.span(now).start if window is not None else 0.0
            used = late = 0
            for request in self.requests.values():
                for c, begin in zip(request.claims, request.starts, strict=True):
                    if c.budget == budget and begin == start:
                        used += self._used(request, c, now)
                        late += c.amount if not request.replica.is_alive else 0
            assert used <= limit, (budget, used)
            field = f"{round(start * 1_000_000)}:{budget}"
            sums = self.world.accounts(TENANT).get(field, (0, 0, 0))
            assert min(sums) >= 0, (budget, sums)
            # A replica that died may be charged for what its lease still covers.
            assert sum(sums) <= limit + late, (budget, sums)

    def _used(self, request: Request, c: Claim, now: float) -> int:
        if request.charged is not None:
            return request.charged.get(c.budget, 0)
        if c.window is None and request.due <= now:
            return 0
        return c.amount

    def teardown(self) -> None:
        """Everything is settled, and all is free that was not used."""
        world = self.world
        world.lost = ""
        world.run(world.now + KEEPING.reservation_seconds + RULES.lease + 1)
        for name in self.unanswered | self.released:
            # Who asked or gave it back may have died before the store or he heard of it. Then it
            # expired, and was charged.
            world.settle(TENANT, name, ())
        for name, request in self.requests.items():
            if request.charged is None:
                charges = [
                    (c.budget, start, c.amount)
                    for c, start in zip(request.claims, request.starts, strict=True)
                ]
                taken = world.settle(TENANT, name, charges)
                is_told = request.replica.is_alive
                assert taken in {"late", "settled"} or not is_told, taken
                request.charged = {b: amount for b, start, amount in charges if start}
        committed: dict[str, int] = {}
        for request in self.requests.values():
            for c, start in zip(request.claims, request.starts, strict=True):
                field = f"{round(start * 1_000_000)}:{c.budget}"
                amount = (request.charged or {}).get(c.budget, 0)
                committed[field] = committed.get(field, 0) + amount
        for field, sums in world.accounts(TENANT).items():
            assert sums == (committed.get(field, 0), 0, 0), field
        self._all_of_it_can_be_had()

    def _all_of_it_can_be_had(self) -> None:
        world = self.world
        start = Window(calendar="day").span(world.now).start
        left = (
            LIMITS["day"] - world.accounts(TENANT).get(f"{round(start * 1_000_000)}:day", (0,))[0]
        )
        answers: list[Answer] = []
        replica = world.new_replica()
        for name, amount in (("last", left), ("one more", 1)):
            world.reserve(replica, TENANT, name, (claim("day", amount),), answers.append)
            world.run(world.now + 1)
        assert isinstance(answers[0], Reserved)
        assert isinstance(answers[1], Denied)


TestLeaseWorld = LeaseWorld.TestCase
TestLeaseWorld.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
