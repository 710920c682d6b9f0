"""A Valkey that comes back: what replicas did without it is told before anything is decided."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from extproc.ledger.lease_messages import keeping_of
from extproc.ledger.valkey import ValkeyLedger
from extproc.ledger.valkey_away import WhenUnavailable
from extproc.ledger.valkey_link import Patience
from extproc.ledger.valkey_notes import StoredNotes
from extproc.policy.budgets import Denied, Reserved
from tests import valkeys
from tests.shell.test_valkey_faults import PATIENCE, RESERVATION_SECONDS, One, claim, clock

LIMIT: Final = 100
QUICK: Final = PATIENCE._replace(quiet=1.5)
SLOW: Final = QUICK._replace(probe_every=0.8)
"""It looks so seldom whether the store is back that another could long be deciding."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[valkeys.Server]:
    server = valkeys.Server(tmp_path, "--appendonly", "yes").start()
    yield server
    server.kill()


@asynccontextmanager
async def replica(
    server: valkeys.Server, patience: Patience, policy: WhenUnavailable = "local_share"
) -> AsyncIterator[One]:
    async with ValkeyLedger.open(
        server.url,
        clock,
        RESERVATION_SECONDS,
        when_unavailable=lambda _: policy,
        replicas_min=2,
        leases=None,
        patience=patience,
    ) as ledger:
        yield One(ledger)


async def let_in(one: One, prefix: str) -> int:
    """How many, if more are asked for than there can be."""
    answers = [await one.reserve(f"{prefix}{n}", claim(1, LIMIT)) for n in range(LIMIT + 1)]
    return sum(isinstance(answer, Reserved) for answer in answers)


def test_replicas_that_come_back_one_after_the_other_let_in_no_more_than_the_limit(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        async with replica(server, QUICK) as one, replica(server, SLOW) as other:
            await let_in_few(one, other)
            server.kill()
            without = [await let_in(one, "a"), await let_in(other, "b")]
            await asyncio.sleep(QUICK.quiet)  # so long is it away
            server.start()
            await one.until(is_well=True)
            back = await let_in(one, "c")
            await other.until(is_well=True)
            back += await let_in(other, "d")

            assert all(without)
            assert 2 + sum(without) + back == LIMIT
            # Who waited for the store was not answered by a share.
            asked = 2 * (LIMIT + 1)
            by_share = sum(each.ledger.without_store["local_share"] for each in (one, other))
            assert asked <= by_share < 2 * asked

    asyncio.run(main())


async def let_in_few(*replicas: One) -> None:
    """Let each know of the budget."""
    for number, one in enumerate(replicas):
        assert isinstance(await one.reserve(f"first{number}", claim(1, LIMIT)), Reserved)


def test_what_is_left_of_a_share_is_given_while_others_come_back(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server, QUICK) as one, replica(server, QUICK) as other:
            await let_in_few(one, other)
            server.kill()
            assert isinstance(await one.reserve("a", claim(1, LIMIT)), Reserved)
            await asyncio.sleep(QUICK.quiet)  # so long is it away
            server.start()
            await one.until(is_well=True)

            began = time.monotonic()
            assert isinstance(await one.reserve("b", claim(1, LIMIT)), Reserved)
            assert time.monotonic() - began < QUICK.quiet / 2

    asyncio.run(main())


@pytest.fixture
def forgetful() -> Iterator[valkeys.Server]:
    with valkeys.running() as server:
        yield server


def test_where_nothing_is_let_in_without_the_store_requests_wait_for_those_who_know_more(
    forgetful: valkeys.Server,
) -> None:
    server = forgetful

    async def main() -> None:
        async with replica(server, QUICK, "deny") as one, replica(server, SLOW, "deny") as other:
            await let_in_few(one)
            assert isinstance(await other.reserve("open", claim(LIMIT - 1, LIMIT)), Reserved)
            server.kill()
            for each in (one, other):
                await each.reserve("x", claim(1, LIMIT))
            server.start()
            await one.until(is_well=True)

            # It came back empty: only the other can say that all is held.
            assert isinstance(await one.reserve("b", claim(1, LIMIT)), Denied)

    asyncio.run(main())


def test_what_is_settled_here_waits_until_another_has_told_that_it_was_held(
    forgetful: valkeys.Server,
) -> None:
    server = forgetful

    async def main() -> None:
        async with replica(server, QUICK) as one, replica(server, SLOW) as other:
            await let_in_few(one, other)
            assert await one.settle("first0", 60) == "settled"
            assert isinstance(await other.reserve("a", claim(20, LIMIT)), Reserved)
            server.kill()
            for number, each in enumerate((one, other)):
                await each.reserve(f"x{number}", claim(LIMIT, LIMIT))
            await asyncio.sleep(QUICK.quiet)  # so long is it away
            server.start()
            await one.until(is_well=True)

            # Else it would be taken for one of those whose charges were forgotten.
            assert await one.settle("a", 20) == "settled"
            assert await one.sums(LIMIT) == (80, 1)

    asyncio.run(main())


def test_what_a_replay_charges_makes_up_for_what_was_seen_though_it_is_open_again(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        async with replica(server, QUICK) as one:
            await one.reserve("a", claim(30, LIMIT))
            copy = {key: server.command("DUMP", key) for key in server.command("KEYS", "*{t.*")}
            assert await one.settle("a", 30) == "settled"
            server.flush()
            for key, value in copy.items():
                server.command("RESTORE", key, 0, value)
            # Open once more in books of before, and seen to be charged.
            assert await one.sums(LIMIT) == (0, 30)
            assert isinstance(await one.reserve("x", claim(41, LIMIT)), Denied)
            async with ValkeyLedger.open(
                server.url,
                clock,
                RESERVATION_SECONDS,
                keeping=keeping_of(RESERVATION_SECONDS)._replace(is_replay=True),
                patience=QUICK,
            ) as replaying:
                assert await One(replaying).settle("a", 30) == "settled"

            assert isinstance(await one.reserve("b", claim(70, LIMIT)), Reserved)
            assert await one.sums(LIMIT) == (30, 70)

    asyncio.run(main())


def test_what_was_charged_and_nobody_was_told_is_charged_again_once_it_is_forgotten(
    forgetful: valkeys.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_not_kept(*_: object) -> bool:
        return False

    async def main() -> None:
        async with replica(forgetful, QUICK) as one, replica(forgetful, QUICK) as other:
            await other.reserve("a", claim(30, LIMIT))
            with monkeypatch.context() as patch:
                patch.setattr(StoredNotes, "change", is_not_kept)
                assert await one.settle("a", 30) == "unavailable"
            assert await other.sums(LIMIT) == (30, 0)
            forgetful.kill()
            await asyncio.gather(one.until(is_well=False), other.until(is_well=False))
            await asyncio.sleep(QUICK.quiet)  # so long is it away
            forgetful.start()
            await asyncio.gather(one.until(is_well=True), other.until(is_well=True))

            # To the other it is open, and would be settled for the first time.
            assert await other.settle("a", 30) == "repeated"
            assert await other.sums(LIMIT) == (30, 0)
            assert isinstance(await one.reserve("b", claim(70, LIMIT)), Reserved)

    asyncio.run(main())


def test_who_was_forgotten_notices_though_others_have_written_more_since(
    forgetful: valkeys.Server,
) -> None:
    async def main() -> None:
        async with replica(forgetful, SLOW) as one, replica(forgetful, QUICK) as other:
            await let_in_few(one, other)
            forgetful.command("SAVE")
            assert isinstance(await one.reserve("a", claim(60, LIMIT)), Reserved)
            forgetful.kill()
            await asyncio.gather(one.until(is_well=False), other.until(is_well=False))
            assert isinstance(await other.reserve("b", claim(1, LIMIT)), Reserved)
            await asyncio.sleep(QUICK.quiet)  # so long is it away
            forgetful.start()  # with what was saved
            await other.until(is_well=True)
            # The books are as long as the first knew them, before he looks.
            assert await other.sums(LIMIT) == (0, 3)
            await one.until(is_well=True)

            assert isinstance(await other.reserve("c", claim(LIMIT // 2, LIMIT)), Denied)
            assert await other.sums(LIMIT) == (0, 63)

    asyncio.run(main())


def test_a_server_that_may_not_be_asked_which_it_is_is_taken_for_another() -> None:
    may = ("--user", "default", "on", "nopass", "~*", "&*", "+@all", "-info")
    with valkeys.running(*may) as server:

        async def main() -> None:
            async with replica(server, QUICK) as one, replica(server, QUICK) as other:
                await let_in_few(one, other)
                assert await one.settle("first0", 5) == "settled"
                server.kill()
                await asyncio.gather(one.until(is_well=False), other.until(is_well=False))
                await asyncio.sleep(QUICK.quiet)  # so long is it away
                server.start()
                await asyncio.gather(one.until(is_well=True), other.until(is_well=True))

                assert isinstance(await one.reserve("a", claim(LIMIT - 5, LIMIT)), Denied)
                assert isinstance(await other.reserve("b", claim(LIMIT - 6, LIMIT)), Reserved)
                assert await one.sums(LIMIT) == (5, LIMIT - 5)

        asyncio.run(main())
