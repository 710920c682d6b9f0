"""A hundred replicas for a day: what leases refuse that one ledger in one place would not have.

    python -m bench.replicas [hours]

The books and scripts are those of the service; clock, network and traffic are simulated (`tests/
lease_world.py`), a Valkey of its own runs the scripts. Requests come in bursts, most of them to a
few replicas and some to all; every replica dies once a day, and one in each burst, with what it had
not told. Prints a line of JSON with leases, and one without. `refused_wrongly` are those that one
ledger in one place would have let in, beside all that were let in; `overshoot` must be 0.
"""

import json
import random
import sys
import time
from collections import Counter, defaultdict
from functools import partial
from typing import Final

from extproc.ledger.lease_messages import Keeping, Rules
from extproc.policy.budgets import Answer, Claim, Reserved, Unavailable
from extproc.policy.windows import Window
from tests import valkeys
from tests.lease_world import World
from tests.ledger_books import NOON

REPLICAS: Final = 100
TENANTS: Final = 4
BURSTS_PER_HOUR: Final = 0.4
MINUTE: Final = Window(seconds=60)
DAY: Final = Window(calendar="day")
MINUTE_LIMIT: Final = 3_000_000
DAY_LIMIT: Final = 40_000_000
SLOTS: Final = 5000
LASTS_SECONDS: Final = (0.5, 20.0)
KEEPING: Final = Keeping(reservation_seconds=120.0, remembered_seconds=1000.0)


class Day:
    """The traffic, and the truth about what is used."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = random.Random(1)  # noqa: S311  # the same every time
        self._durations = random.Random(2)  # noqa: S311  # the same every time
        self.replicas = [world.new_replica() for _ in range(REPLICAS)]
        self.used: Counter[tuple[str, str, float]] = Counter()
        self.overshoot = 0
        self._waiting: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._was_let_in: dict[str, int] = {}
        self._missed: Counter[tuple[str, str, float]] = Counter()
        """What would be used besides, had nobody been refused wrongly."""
        self.count: Counter[str] = Counter()

    def burst(self, tenant: str) -> None:
        """Some thousands of requests in a few seconds."""
        draw = self.random
        fan = draw.choice((3, 10, 100))
        replicas = draw.sample(range(REPLICAS), fan)
        rate = draw.uniform(100, 1500)
        seconds = draw.uniform(1, 8)
        at = self.world.now
        end = at + seconds
        while at < end:
            at += draw.expovariate(rate)
            amount = min(8000, max(50, int(draw.lognormvariate(6.5, 0.8))))
            which = draw.choice(replicas)
            self.world.at(at, partial(self.request, tenant, which, amount))
        # Who dies in the middle of it has let in what he had not told.
        dies_at = self.world.now + draw.uniform(0, seconds)
        self.world.at(dies_at, partial(self.death, draw.choice(replicas)))
        pause = draw.expovariate(BURSTS_PER_HOUR / 3600)
        self.world.at(end + pause, lambda: self.burst(tenant))

    def trickle(self, tenant: str) -> None:
        """One request now and then."""
        self.request(tenant, self.random.randrange(REPLICAS), 600)
        self.world.at(self.world.now + self.random.expovariate(0.02), lambda: self.trickle(tenant))

    def request(self, tenant: str, which: int, amount: int) -> None:
        """One request comes to one replica."""
        claims = (
            Claim("minute", "tokens", MINUTE_LIMIT, MINUTE, amount, amount),
            Claim("day", "tokens", DAY_LIMIT, DAY, amount, amount),
            Claim("slots", "concurrent_requests", SLOTS, None, 1, 1),
        )
        self.count["requests"] += 1
        name = f"r{self.count['requests']}"
        asked = self.world.now
        had_room = self._would_fit(tenant, claims)
        waiting = self._waiting[tenant]
        waiting[name] = amount
        replica = self.replicas[which]

        def hear(answer: Answer) -> None:
            del waiting[name]
            self.count["waited"] += self.world.now > asked
            if isinstance(answer, Reserved):
                self._let_in(tenant, name, claims, answer.window_starts)
            elif isinstance(answer, Unavailable):
                self.count["unavailable"] += 1
            else:
                self.count["refused"] += 1
                if had_room and self._would_fit(tenant, claims):
                    self._look_again(tenant, claims)

        self.world.reserve(replica, tenant, name, claims, hear)

    def _would_fit(self, tenant: str, claims: tuple[Claim, ...]) -> bool:
        return all(
            self.used[tenant, c.budget, c.window.span(self.world.now).start if c.window else 0.0]
            + c.amount
            <= c.limit
            for c in claims
        )

    def _look_again(self, tenant: str, claims: tuple[Claim, ...]) -> None:
        """See whether one ledger in one place would have let it in, beside all that it let in.

        Those that asked before and were let in later had been decided before it, too.
        """
        before = tuple(self._waiting[tenant])
        now = self.world.now
        places = [(tenant, c.budget, c.window.span(now).start if c.window else 0.0) for c in claims]
        rooms = [c.limit - self.used[place] for c, place in zip(claims, places, strict=True)]

        def look() -> None:
            others = [self._was_let_in[name] for name in before if name in self._was_let_in]
            for claim, place, room in zip(claims, places, rooms, strict=True):
                taken = sum(others) if claim.window else len(others)
                if taken + self._missed[place] + claim.amount > room:
                    return
            self.count["refused_wrongly"] += 1
            for claim, place in zip(claims, places, strict=True):
                self._missed[place] += claim.amount
            self.world.at(self.world.now + LASTS_SECONDS[1] / 2, end)

        def end() -> None:
            for claim, place in zip(claims, places, strict=True):
                self._missed[place] -= claim.amount // 3 if claim.window else 1

        self.world.at(now + 2, look)

    def _let_in(
        self, tenant: str, name: str, claims: tuple[Claim, ...], starts: tuple[float, ...]
    ) -> None:
        self.count["let_in"] += 1
        self._was_let_in[name] = claims[0].amount
        for claim, start in zip(claims, starts, strict=True):
            self.used[tenant, claim.budget, start] += claim.amount
            over = self.used[tenant, claim.budget, start] - claim.limit
            self.overshoot = max(self.overshoot, over)
        part = self._durations.uniform(0.3, 1.0)
        ends = self.world.now + self._durations.uniform(*LASTS_SECONDS)

        def settle() -> None:
            charges = []
            for claim, start in zip(claims, starts, strict=True):
                used = int(claim.amount * part) if claim.window else 0
                self.used[tenant, claim.budget, start] += used - claim.amount
                charges.append((claim.budget, start, used))
            taken = self.world.settle(tenant, name, charges)
            self.count[taken] += 1

        self.world.at(ends, settle)

    def death(self, which: int) -> None:
        """What waits there is never answered."""
        self.world.kill(self.replicas[which])
        self.replicas[which] = self.world.new_replica()
        self.count["deaths"] += 1


def run(hours: float, rules: Rules | None) -> dict[str, object]:
    began = time.perf_counter()
    with valkeys.running() as server, server.client as client:
        world = World(client, KEEPING, rules)
        day = Day(world)
        for number in range(TENANTS):
            world.at(NOON + day.random.uniform(0, 600), partial(day.burst, f"t{number}"))
            world.at(NOON, partial(day.trickle, f"t{number}"))
        for which in range(REPLICAS):
            world.at(NOON + day.random.uniform(0, 86400), partial(day.death, which))
        world.run(NOON + hours * 3600)
    count = day.count
    return {
        "leases": rules is not None,
        "hours": hours,
        "requests": count["requests"],
        "let_in": count["let_in"],
        "refused": count["refused"],
        "refused_wrongly": count["refused_wrongly"],
        "refused_wrongly_percent": round(100 * count["refused_wrongly"] / count["requests"], 4),
        "decided_without_waiting_percent": round(
            100 - 100 * count["waited"] / count["requests"], 1
        ),
        "calls_per_1000_requests": round(1000 * world.calls / count["requests"]),
        "settled_after_their_replica_died_untold": count["unknown"],
        "deaths": count["deaths"],
        "overshoot": day.overshoot,
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    hours = float(sys.argv[1]) if len(sys.argv) > 1 else 24.0
    for rules in (Rules(), None):
        print(json.dumps(run(hours, rules)), flush=True)


if __name__ == "__main__":
    main()
