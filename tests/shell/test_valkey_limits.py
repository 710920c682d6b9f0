"""Limits raised and lowered while three replicas hold leases of the old one, on a real Valkey.

What is let in counts at once by the limit that its replica has, and what was used stays used.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

import msgspec
import pytest

from extproc.ledger.lease_messages import Rules
from extproc.ledger.valkey import ValkeyLedger
from extproc.ledger.valkey_keys import keys_of
from extproc.ledger.valkey_link import Patience
from extproc.policy.budgets import (
    Answer,
    Charge,
    Claim,
    Denied,
    Reserve,
    Reserved,
    Settlement,
)
from extproc.policy.windows import Window
from tests import valkeys

YEAR: Final = Window(calendar="year")
DAY: Final = Window(calendar="day")
PATIENT: Final = Patience(decision=10.0, record=10.0, connect=5.0)
RULES: Final = Rules(busy_requests=0, horizon=5.0, lease=30.0)
"""Nobody lets go of a lease by himself for as long as a test lasts."""

AMOUNT: Final = 10
clock = time.time  # noqa: TID251  # that of the machine, as the store has it


class Sums(NamedTuple):
    """What the store counts of the budget."""

    committed: int
    reserved: int
    leased: int


class Replicas:
    """Three ledgers in one loop, each with settings of its own."""

    def __init__(self, server: valkeys.Server, ledgers: list[ValkeyLedger]) -> None:
        self.ledgers = ledgers
        self.limits = [1000 for _ in ledgers]
        self.window = YEAR
        self._server = server
        self._open: list[tuple[str, float]] = []
        self._count = 0

    def reload(self, limit: int, which: int | None = None) -> None:
        """Change the limit, at one replica or at all."""
        for number in range(len(self.ledgers)) if which is None else (which,):
            self.limits[number] = limit

    async def reserve(self, which: int) -> Answer:
        self._count += 1
        name, limit = f"r{self._count}", self.limits[which]
        claims = (Claim("budget", "tokens", limit, self.window, AMOUNT, AMOUNT),)
        answer = await self.ledgers[which].reserve(Reserve(name, "acme", claims))
        if isinstance(answer, Reserved):
            self._open.append((name, answer.window_starts[0]))
        return answer

    async def until_leased(self) -> int:
        """Use some of it, until each replica has a lease. Return how many requests that took."""
        for count in range(3, 100, 3):
            for which in range(len(self.ledgers)):
                assert isinstance(await self.reserve(which), Reserved)
            await asyncio.sleep(0.01)
            are_leased = self._server.command("HLEN", keys_of("acme")[5]) == len(self.ledgers)
            if are_leased and count * AMOUNT > 200:
                return count
        raise AssertionError

    async def settle(self, count: int, used: int) -> None:
        """End so many requests; each used so much."""
        ended, self._open = self._open[:count], self._open[count:]
        charges = [(name, (Charge("budget", start, used),)) for name, start in ended]
        batch = [Settlement(name, "acme", charge) for name, charge in charges]
        assert set(await self.ledgers[0].settle(batch)) <= {"settled", "unknown"}

    async def let_in(self, tries: int) -> int:
        """Ask all at once; how many are let in."""
        asks = [self.reserve(number % len(self.ledgers)) for number in range(tries)]
        answers = await asyncio.gather(*asks)
        assert all(isinstance(answer, Reserved | Denied) for answer in answers)
        return sum(isinstance(answer, Reserved) for answer in answers)

    def sums(self) -> Sums:
        """What the store counts, without touching it."""
        start = round(self.window.span(clock()).start * 1_000_000)
        packed = self._server.command("HGET", keys_of("acme")[0], f"{start}:budget")
        committed, reserved, leased, *_ = msgspec.msgpack.decode(packed, type=list[int])
        return Sums(committed, reserved, leased)

    async def until_told(self, reserved: int, leased: int | None = None) -> None:
        """Wait until the store has heard of all that was let in."""
        async with asyncio.timeout(valkeys.DEADLINE_SECONDS):
            while True:
                sums = self.sums()
                if sums.reserved == reserved and leased in {None, sums.leased}:
                    return
                await asyncio.sleep(0.01)


@pytest.fixture
def server() -> Iterator[valkeys.Server]:
    with valkeys.running() as server:
        yield server


@asynccontextmanager
async def three(server: valkeys.Server) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        opened = [
            ValkeyLedger.open(server.url, clock, 600.0, leases=RULES, patience=PATIENT)
            for _ in range(3)
        ]
        yield Replicas(server, [await stack.enter_async_context(one) for one in opened])


def test_a_lowered_limit_counts_at_each_replicas_next_decision(server: valkeys.Server) -> None:
    async def main() -> None:
        async with three(server) as replicas:
            used = AMOUNT * await replicas.until_leased()
            assert replicas.sums().leased >= 3 * AMOUNT

            replicas.reload(100)
            for which in range(3):
                assert isinstance(await replicas.reserve(which), Denied)

            assert await replicas.let_in(60) == 0
            await replicas.until_told(used, leased=0)  # the leases of the old limit are back

    asyncio.run(main())


def test_below_a_lowered_limit_exactly_what_is_left_is_let_in(server: valkeys.Server) -> None:
    async def main() -> None:
        async with three(server) as replicas:
            count = await replicas.until_leased()
            replicas.reload(100)
            await replicas.settle(count, used=1)

            let_in = await replicas.let_in(60)

            assert let_in == (100 - count) // AMOUNT
            await replicas.until_told(let_in * AMOUNT)
            assert replicas.sums().committed == count
            assert sum(replicas.sums()) <= 100

    asyncio.run(main())


def test_a_raised_limit_counts_at_once_and_what_was_used_stays_used(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        async with three(server) as replicas:
            replicas.reload(200)
            first = await replicas.let_in(60)
            assert first == 20

            replicas.reload(350)
            assert isinstance(await replicas.reserve(0), Reserved)
            assert await replicas.let_in(60) == 14

            await replicas.until_told(350)
            assert sum(replicas.sums()) == 350

    asyncio.run(main())


def test_a_replica_that_has_reloaded_is_not_let_in_by_those_that_have_not(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        async with three(server) as replicas:
            await replicas.until_leased()

            replicas.reload(50, which=0)
            assert isinstance(await replicas.reserve(0), Denied)
            assert isinstance(await replicas.reserve(1), Reserved)
            assert isinstance(await replicas.reserve(0), Denied)

            replicas.reload(50)
            assert await replicas.let_in(30) == 0

    asyncio.run(main())


def test_what_others_lease_of_the_old_limit_is_asked_back_before_any_is_let_in(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        async with three(server) as replicas:
            count = await replicas.until_leased()
            await replicas.settle(count, used=1)
            assert sum(replicas.sums()) > 100

            replicas.reload(100, which=0)
            for _ in range((100 - count) // AMOUNT):
                assert isinstance(await replicas.reserve(0), Reserved)
                assert sum(replicas.sums()) <= 100
            assert isinstance(await replicas.reserve(0), Denied)

    asyncio.run(main())


def test_committed_reserved_and_leased_never_grow_above_a_limit(server: valkeys.Server) -> None:
    """Whatever the limit becomes: where more is out than it allows, nothing is added."""

    async def main() -> None:
        async with three(server) as replicas:
            await replicas.until_leased()
            await replicas.settle(1000, used=1)
            most = 1000
            for limit in (1000, 300, 700, 120, 100, 400, 60, 1000):
                replicas.reload(limit)
                for _ in range(4):
                    await replicas.let_in(12)
                    now = sum(replicas.sums())
                    assert now <= max(limit, most), (limit, now)
                    most = max(limit, min(most, now))
                    await replicas.settle(9, used=1)

    asyncio.run(main())


def test_a_window_that_changes_begins_with_nothing_of_the_other_used(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        async with three(server) as replicas:
            assert await replicas.let_in(150) == 100

            replicas.window = DAY
            assert await replicas.let_in(150) == 100
            await replicas.until_told(1000)
            replicas.window = YEAR
            assert await replicas.let_in(15) == 0

    asyncio.run(main())
