"""Several replicas on one Valkey: what one does, the others know."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from extproc.ledger.lease_book import Book
from extproc.ledger.lease_messages import Rules
from extproc.ledger.valkey import ValkeyLedger
from extproc.ledger.valkey_beats import REFRESHED_PER_BEAT
from extproc.ledger.valkey_link import Patience
from extproc.policy.budgets import Charge, Claim, Denied, Reserve, Reserved, Settlement
from extproc.policy.windows import Window
from tests import valkeys

YEAR: Final = Window(calendar="year")
PATIENT: Final = Patience(decision=10.0, record=10.0, connect=5.0)
LEASING: Final = Rules(busy_requests=0, horizon=5.0)
clock = time.time  # noqa: TID251  # that of the machine, as the store has it


@pytest.fixture
def server() -> Iterator[valkeys.Server]:
    with valkeys.running() as server:
        yield server


@asynccontextmanager
async def replica(
    server: valkeys.Server, leases: Rules | None = LEASING, reservation_seconds: float = 600.0
) -> AsyncIterator[ValkeyLedger]:
    async with ValkeyLedger.open(
        server.url, clock, reservation_seconds, leases=leases, patience=PATIENT
    ) as ledger:
        yield ledger


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(valkeys.DEADLINE_SECONDS):
        while not is_so():  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(0.01)


async def told(other: ValkeyLedger, reserved: int) -> None:
    """Wait until another replica has heard that so much is reserved."""
    async with asyncio.timeout(valkeys.DEADLINE_SECONDS):
        while (await other.standing("acme", (claim(0),)))[0].reserved != reserved:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)


def claim(amount: int, limit: int = 1000) -> Claim:
    return Claim("year", "tokens", limit, YEAR, amount, amount)


def test_a_settlement_may_come_to_any_replica(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server) as one, replica(server) as other:
            for number in range(10):
                answer = await one.reserve(Reserve(f"r{number}", "acme", (claim(10),)))
                assert isinstance(answer, Reserved)
                await asyncio.sleep(0.01)
            await told(other, 100)
            start = YEAR.span(clock()).start
            charges = (Charge("year", start, 7),)
            batch = [Settlement(f"r{number}", "acme", charges) for number in range(10)]
            assert await other.settle(batch) == ("settled",) * 10
            assert await one.settle(batch) == ("repeated",) * 10
            (standing,) = await one.standing("acme", (claim(0),))
            assert (standing.committed, standing.reserved) == (70, 0)

    asyncio.run(main())


def test_sums_and_notes_of_others_are_seen_and_replicas_counted(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server) as one, replica(server) as other:
            await one.reserve(Reserve("a", "acme", (claim(10),)))
            await other.reserve(Reserve("b", "acme", (claim(20),)))
            await other.settle([], {"learnt/a": "1"})

            await eventually(lambda: [s.reserved for s in one.sums()] == [30])
            await eventually(lambda: one.notes("learnt/") == {"learnt/a": "1"})
            await eventually(lambda: (one.replicas, other.replicas) == (2, 2))

    asyncio.run(main())


def test_what_nobody_settles_expires_once_for_all(server: valkeys.Server) -> None:
    async def main() -> None:
        async with (
            replica(server, reservation_seconds=0.3) as one,
            replica(server, reservation_seconds=0.3) as other,
        ):
            for number in range(10):
                await one.reserve(Reserve(f"r{number}", "acme", (claim(10),)))
            await eventually(lambda: one.expired + other.expired == 10)
            (standing,) = await other.standing("acme", (claim(0),))
            assert (standing.committed, standing.reserved) == (100, 0)

    asyncio.run(main())


def test_who_asked_and_has_gone_holds_nothing(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server, leases=None) as one:
            await one.reserve(Reserve("first", "acme", (claim(10),)))
            asking = asyncio.ensure_future(one.reserve(Reserve("a", "acme", (claim(990),))))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

            assert isinstance(await one.reserve(Reserve("b", "acme", (claim(990),))), Reserved)
            assert isinstance(await one.reserve(Reserve("c", "acme", (claim(1),))), Denied)

    asyncio.run(main())


def test_a_bug_in_one_book_answers_who_waits_and_leaves_others_alone(
    server: valkeys.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trip(book: Book, *_: object) -> None:
        if book.tenant == "acme":
            raise ZeroDivisionError

    async def main() -> None:
        async with replica(server, leases=None) as one:
            with monkeypatch.context() as broken:
                broken.setattr(Book, "take", trip)
                answer = await one.reserve(Reserve("a", "acme", (claim(10),)))
                assert isinstance(answer, Reserved)  # its share: the store did not say
            assert isinstance(await one.reserve(Reserve("b", "umbra", (claim(10),))), Reserved)
            assert isinstance(await one.reserve(Reserve("c", "acme", (claim(10),))), Reserved)
            assert one.health() == ""

    asyncio.run(main())


def test_sums_of_tenants_that_were_not_used_lately_are_seen_too(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server, None) as one, replica(server, None) as other:
            tenants = [f"t{number}" for number in range(3 * REFRESHED_PER_BEAT)]
            for each in (one, other):
                for tenant in tenants:
                    await each.reserve(Reserve(f"{tenant}-{id(each)}", tenant, (claim(10),)))

            await eventually(lambda: [s.reserved for s in one.sums()] == [20] * len(tenants))

    asyncio.run(main())
