"""Leases of several replicas over one store: nothing is given twice, and nothing stays away."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from valkey import Valkey

from extproc.ledger.lease_messages import Keeping, Rules
from extproc.policy.budgets import Answer, Claim, Denied, Reserved, Unavailable, Unit
from extproc.policy.windows import Window
from tests import valkeys
from tests.lease_world import Replica, World

CLIENTS: list[Valkey] = []
TENANT: Final = "acme"
REPLICAS: Final = 3
LIMITS: Final = {"day": 400, "minute": 120, "slots": 12}
WINDOWS: Final[dict[str, tuple[Window | None, ...]]] = {
    "day": (Window(calendar="day"), Window(calendar="day", timezone="Asia/Kolkata")),
    "minute": (Window(seconds=60), Window(seconds=97)),
    "slots": (None,),
}
KEEPING: Final = Keeping(reservation_seconds=30.0, remembered_seconds=1000.0)
RULES: Final = Rules(busy_requests=0)


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with valkeys.running() as server, server.client as client:
        CLIENTS.append(client)
        yield
        CLIENTS.pop()


class Known(NamedTuple):
    """A budget, as one replica has it in its settings."""

    limit: int
    window: Window | None


FORGOTTEN_SECONDS: Final = 60 + 300
"""After its start the store may have forgotten an account of a minute."""

Place = tuple[str, float]
"""A budget, and the start of a window."""


@dataclass
class Request:
    """One that was let in: what it may have used, whoever knows of it."""

    claims: tuple[Claim, ...]
    starts: tuple[float, ...]
    due: float
    replica: Replica
    is_untold: bool = False
    """Whether it was settled before the store had heard of it."""
    charged: dict[str, int] | None = None


@dataclass
class Waiting:
    """One that is not answered yet: it is decided by the limits of when it was asked."""

    claims: tuple[Claim, ...]
    replica: Replica


def claim(budget: str, known: Known, amount: int) -> Claim:
    unit: Unit = "concurrent_requests" if budget == "slots" else "tokens"
    amount = 1 if budget == "slots" else amount
    return Claim(budget, unit, known.limit, known.window, amount, amount)


class LeaseWorld(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        CLIENTS[-1].flushall()
        self.world = World(CLIENTS[-1], KEEPING, RULES)
        self.replicas = [self.world.new_replica() for _ in range(REPLICAS)]
        self.settings = [
            {budget: Known(limit, WINDOWS[budget][0]) for budget, limit in LIMITS.items()}
            for _ in range(REPLICAS)
        ]
        self.requests: dict[str, Request] = {}
        self.unanswered: dict[str, Waiting] = {}
        self.released: set[str] = set()
        self.count = 0
        self.used_max: dict[Place, int] = {}
        """What was used last, which a lower limit may not have room for; or a higher limit of those
        who have yet to be answered."""
        self.asked_last: dict[tuple[str, str], int] = {}
        """The limit of each replica's last claim on each budget."""
        self.counted_max: dict[Place, int] = {}
        """What the store counted last, while nothing was on its way to it."""

    @rule(
        which=st.integers(0, REPLICAS - 1),
        wanted=st.dictionaries(st.sampled_from(tuple(LIMITS)), st.integers(0, 30), min_size=1),
        times=st.integers(1, 12),
        wait=st.sampled_from((0.0, 0.0, 0.01, 0.06)),
    )
    def ask(self, which: int, wanted: dict[str, int], times: int, wait: float) -> None:
        replica = self.replicas[which]
        known = self.settings[which]
        claims = tuple(claim(budget, known[budget], amount) for budget, amount in wanted.items())
        for _ in range(times):
            self.count += 1
            self._ask(replica, f"r{self.count}", claims)
            self.world.run(self.world.now + wait / times)

    def _ask(self, replica: Replica, name: str, claims: tuple[Claim, ...]) -> None:
        def hear(answer: Answer) -> None:
            self.unanswered.pop(name, None)
            if isinstance(answer, Reserved):
                due = self.world.now + KEEPING.reservation_seconds
                self.requests[name] = Request(claims, answer.window_starts, due, replica)
            elif isinstance(answer, Unavailable):
                self.released.add(name)  # the store may have held it, and hears of that

        self.unanswered[name] = Waiting(claims, replica)
        self.asked_last |= {(replica.name, c.budget): c.limit for c in claims}
        self.world.reserve(replica, TENANT, name, claims, hear)

    @rule(
        which=st.one_of(st.none(), st.integers(0, REPLICAS - 1)),
        budget=st.sampled_from(tuple(LIMITS)),
        share=st.sampled_from((0.0, 0.1, 0.3, 0.6, 1.0, 1.5)),
        data=st.data(),
    )
    def reload(self, which: int | None, budget: str, share: float, data: st.DataObject) -> None:
        """Other limits and windows come to one replica, or to all at once."""
        self.nothing_was_given_twice()  # what is used now is what may be used above the new limit
        window = data.draw(st.sampled_from(WINDOWS[budget]))
        for number in range(REPLICAS) if which is None else (which,):
            self.settings[number][budget] = Known(int(share * LIMITS[budget]), window)

    @rule(
        which=st.integers(0, REPLICAS - 1),
        budget=st.sampled_from(("day", "minute")),
        amount=st.integers(1, 10),
    )
    def lower_below_what_is_leased(self, which: int, budget: str, amount: int) -> None:
        """Right after a replica was given some, so that it has a lease of the limit before."""
        self.ask(which, {budget: amount}, times=6, wait=0.06)
        self.nothing_was_given_twice()
        for known in self.settings:
            known[budget] = Known(amount, known[budget].window)
        self.ask(which, {budget: amount}, times=2, wait=0.0)

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
        request.is_untold |= taken == "unknown"
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

    @rule(part=st.sampled_from(("request", "reply", "late")))
    def lose_a_message(self, part: str) -> None:
        self.world.lost = part

    @rule(which=st.integers(0, REPLICAS - 1), amount=st.integers(1, 10))
    def give_back_late(self, which: int, amount: int) -> None:
        """Of what was leased just now; and the store hears so when nobody waits for it."""
        self.ask(which, {"day": amount}, times=6, wait=0.06)
        self.world.lost = "late"
        self.ask(which, {"day": 30}, times=6, wait=0.0)
        self.wait(2.5)

    @rule(which=st.integers(0, REPLICAS - 1))
    def kill(self, which: int) -> None:
        self.world.kill(self.replicas[which])
        self.replicas[which] = self.world.new_replica()

    @invariant()
    def nothing_was_given_twice(self) -> None:
        """What was let in, as it is known here, fits; and what the store counts does.

        Where a limit was lowered, nothing is added before there is room below the new one.
        """
        for budget in LIMITS:
            limit = max(known[budget].limit for known in self.settings)
            for window in WINDOWS[budget]:
                start = window.span(self.world.now).start if window is not None else 0.0
                self._fits((budget, start), limit)

    def _fits(self, place: Place, limit: int) -> None:
        used = late = 0
        for request in self.requests.values():
            for c, begin in zip(request.claims, request.starts, strict=True):
                if (c.budget, begin) == place:
                    used += self._used(request, c, self.world.now)
                    is_late = request.is_untold or not request.replica.is_alive
                    late += c.amount if is_late else 0
        bound = max(limit, self.used_max.get(place, 0))
        assert used <= bound, (place, used)
        asked = [
            c.limit
            for waiting in self.unanswered.values()
            for c in waiting.claims
            if c.budget == place[0] and waiting.replica.is_alive
        ]
        self.used_max[place] = max([used, *asked])
        sums = self.world.accounts(TENANT).get(f"{round(place[1] * 1_000_000)}:{place[0]}")
        counted = sum(sums or (0,))
        bound = max(limit, self.counted_max.get(place, 0))
        assert min(sums or (0,)) >= 0, (place, sums)
        # What a replica that died had let in may be charged while its lease still covers it; so
        # may what was settled before the store had heard of it, until it has.
        assert counted <= bound + late, (place, sums)
        if not self.world.on_the_way:
            # A replica leases by the limit that it was asked about last.
            leasing = [self.asked_last.get((one.name, place[0]), 0) for one in self.replicas]
            self.counted_max[place] = max([counted, *asked, *leasing])
        else:
            self.counted_max[place] = bound

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
        for name in {*self.unanswered, *self.released}:
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
            begin, _, budget = field.partition(":")
            if budget == "minute" and world.now > int(begin) / 1_000_000 + FORGOTTEN_SECONDS:
                continue
            assert sums == (committed.get(field, 0), 0, 0), field
        self._all_of_it_can_be_had()

    def _all_of_it_can_be_had(self) -> None:
        """In a window whose limit leaves 50."""
        world = self.world
        window = WINDOWS["day"][0]
        assert window is not None
        field = f"{round(window.span(world.now).start * 1_000_000)}:day"
        known = Known(world.accounts(TENANT).get(field, (0,))[0] + 50, window)
        answers: list[Answer] = []
        replica = world.new_replica()
        for name, amount in (("last", 50), ("one more", 1)):
            claims = (claim("day", known, amount),)
            world.reserve(replica, TENANT, name, claims, answers.append)
            world.run(world.now + 1)
        assert isinstance(answers[0], Reserved)
        assert isinstance(answers[1], Denied)


TestLeaseWorld = LeaseWorld.TestCase
TestLeaseWorld.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
