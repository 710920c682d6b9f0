"""A Valkey that stops, comes back empty or old, hangs, or refuses: nobody waits, nothing raises."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from extproc.ledger.lease_messages import Rules
from extproc.ledger.valkey import Policy, ValkeyLedger
from extproc.ledger.valkey_away import WhenUnavailable
from extproc.ledger.valkey_link import Patience
from extproc.policy.budgets import (
    Answer,
    Charge,
    Claim,
    Denied,
    Reserve,
    Reserved,
    Settlement,
    Unavailable,
)
from extproc.policy.windows import Window
from tests import valkeys

YEAR: Final = Window(calendar="year")
clock = time.time  # noqa: TID251  # that of the machine, as the store has it
START: Final = YEAR.span(clock()).start
PATIENCE: Final = Patience(decision=0.2, record=2.0, connect=2.0, probe_every=0.05)
RESERVATION_SECONDS: Final = 600.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[valkeys.Server]:
    server = valkeys.Server(tmp_path).start()
    yield server
    server.kill()


def claim(amount: int, limit: int = 1000) -> Claim:
    return Claim("year", "tokens", limit, YEAR, amount, amount)


def slot(limit: int) -> Claim:
    return Claim("slots", "concurrent_requests", limit, None, 1, 1)


class One:
    """A replica, in few words."""

    def __init__(self, ledger: ValkeyLedger) -> None:
        self.ledger = ledger

    async def reserve(self, name: str, *claims: Claim) -> Answer:
        return await self.ledger.reserve(Reserve(name, "acme", claims))

    async def settle(self, name: str, amount: int) -> str:
        charges = (Charge("year", START, amount),)
        (taken,) = await self.ledger.settle([Settlement(name, "acme", charges)])
        return taken

    async def sums(self, limit: int = 1000) -> tuple[int, int]:
        (standing,) = await self.ledger.standing("acme", (claim(0, limit),))
        return standing.committed, standing.reserved

    async def until(self, *, is_well: bool) -> None:
        async def is_so() -> bool:
            return (self.ledger.health() == "") is is_well

        await eventually(is_so)


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(valkeys.DEADLINE_SECONDS):
        while not await is_so():  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(0.01)


@asynccontextmanager
async def replica(
    server: valkeys.Server,
    policy: Policy = lambda _: "deny",
    leases: Rules | None = None,
    **settings: Any,
) -> AsyncIterator[One]:
    async with ValkeyLedger.open(
        server.url,
        clock,
        RESERVATION_SECONDS,
        when_unavailable=policy,
        leases=leases,
        patience=PATIENCE,
        **settings,
    ) as ledger:
        yield One(ledger)


def test_a_store_that_is_gone_is_said_to_be_and_holds_nobody_up(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server) as one:
            assert isinstance(await one.reserve("a", claim(10)), Reserved)
            server.kill()
            assert isinstance(await one.reserve("b", claim(10)), Unavailable)
            assert one.ledger.health()

            began = time.perf_counter()
            answers = [await one.reserve(f"c{i}", claim(10)) for i in range(1000)]
            each = (time.perf_counter() - began) / 1000

            assert all(isinstance(answer, Unavailable) for answer in answers)
            assert each < 0.001
            assert await one.settle("a", 7) == "unavailable"
            await one.ledger.release("a")
            busy = time.process_time()
            await asyncio.sleep(0.5)
            assert time.process_time() - busy < 0.25

    asyncio.run(main())


def test_a_store_that_was_never_there_is_waited_for(server: valkeys.Server) -> None:
    async def main() -> None:
        server.kill()
        async with replica(server) as one:
            assert isinstance(await one.reserve("a", claim(10)), Unavailable)
            server.start()
            await one.until(is_well=True)
            assert isinstance(await one.reserve("b", claim(10)), Reserved)

    asyncio.run(main())


def test_what_is_open_is_told_again_to_a_store_that_came_back_empty(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        async with replica(server) as one:
            await one.reserve("a", claim(100))
            await one.reserve("b", claim(50))
            assert await one.settle("b", 40) == "settled"
            server.kill()
            assert isinstance(await one.reserve("c", claim(1)), Unavailable)
            server.start()
            await one.until(is_well=True)

            # 40 were charged and are not forgotten, though nobody knows any more by what.
            assert isinstance(await one.reserve("d", claim(861)), Denied)
            assert isinstance(await one.reserve("e", claim(860)), Reserved)
            assert await one.settle("a", 90) == "settled"
            assert await one.sums() == (130, 860)

            # The record comes once more, as a replay brings it: then it is known what was.
            assert await one.settle("b", 40) == "unknown"
            assert await one.settle("b", 40) == "repeated"
            assert await one.sums() == (130, 860)

    asyncio.run(main())


def test_a_store_that_came_back_old_lets_nobody_in_twice(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server) as one:
            await one.reserve("a", claim(300))
            await one.settle("a", 300)
            server.command("SAVE")
            await one.reserve("b", claim(500))
            await one.settle("b", 500)
            await one.reserve("c", claim(100))
            server.kill()
            server.start()

            # If nobody noticed that it was gone, the first answer must be right all the same.
            answer = await one.reserve("d", claim(101))
            if isinstance(answer, Unavailable):
                await one.until(is_well=True)
                answer = await one.reserve("e", claim(101))
            assert isinstance(answer, Denied)
            assert await one.sums() == (800, 100)
            assert await one.settle("a", 300) == "repeated"
            assert await one.settle("b", 500) == "unknown"
            assert await one.settle("c", 100) == "settled"
            assert await one.sums() == (900, 0)

    asyncio.run(main())


def test_a_store_that_hangs_costs_one_request_its_patience(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server, lambda _: "allow") as one:
            await one.reserve("a", claim(10))
            server.pause()
            try:
                slow = 0
                deadline = time.monotonic() + 5
                number = 0
                while time.monotonic() < deadline:
                    number += 1
                    began = time.perf_counter()
                    answer = await one.reserve(f"b{number}", claim(1, limit=10**9))
                    slow += time.perf_counter() - began > PATIENCE.decision / 2
                    assert isinstance(answer, Reserved)
                    await asyncio.sleep(0.01)
                assert slow <= 1
                assert await one.settle("a", 10) == "unavailable"
            finally:
                server.go_on()
            await one.until(is_well=True)
            assert await one.settle("a", 10) == "settled"
            # What was let in meanwhile is told, and counts.
            assert await one.sums() == (10, number)

    asyncio.run(main())


@asynccontextmanager
async def slowed(server: valkeys.Server, delay: dict[str, float]) -> AsyncIterator[int]:
    """A port at which the store answers later, by as much as `delay` says at the time."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", server.port)

        async def answers() -> None:
            while data := await there[0].read(65536):
                await asyncio.sleep(delay["seconds"])
                writer.write(data)

        answering = asyncio.ensure_future(answers())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                there[1].write(data)
        answering.cancel()
        there[1].close()
        writer.close()

    listening = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def test_a_store_that_is_slow_holds_up_one_request_and_not_all(server: valkeys.Server) -> None:
    async def main() -> None:
        delay = {"seconds": 0.0}
        url = server.url
        async with slowed(server, delay) as port:
            slow_url = url.replace(str(server.port), str(port))
            async with ValkeyLedger.open(
                slow_url, clock, 600.0, when_unavailable=lambda _: "deny", patience=PATIENCE
            ) as ledger:
                one = One(ledger)
                assert isinstance(await one.reserve("a", claim(1)), Reserved)
                delay["seconds"] = 2 * PATIENCE.decision
                slow = 0
                for number in range(100):
                    began = time.perf_counter()
                    await one.reserve(f"b{number}", claim(1))
                    slow += time.perf_counter() - began > PATIENCE.decision / 2
                    await asyncio.sleep(0.01)
                assert slow <= 1
                delay["seconds"] = 0.0
                await one.until(is_well=True)
                assert isinstance(await one.reserve("c", claim(1)), Reserved)

    asyncio.run(main())


def test_what_one_replica_saw_keeps_another_from_giving_it_twice(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server) as one, replica(server) as other:
            server.command("SAVE")
            await one.reserve("a", claim(900))
            await one.settle("a", 900)
            server.kill()
            server.start()

            async def is_seen() -> bool:
                (standing,) = await other.ledger.standing("acme", (claim(0),))
                return standing.committed == 900

            await eventually(is_seen)
            assert isinstance(await other.reserve("b", claim(101)), Denied)
            assert isinstance(await other.reserve("c", claim(100)), Reserved)

    asyncio.run(main())


def test_leases_go_on_while_the_store_hangs_and_no_longer_than_they_last(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        rules = Rules(busy_requests=0, horizon=5.0, lease=0.5)
        async with replica(server, leases=rules) as one:
            for i in range(10):
                await one.reserve(f"a{i}", claim(1, limit=1000))
                await asyncio.sleep(0.01)
            server.pause()
            try:
                assert isinstance(await one.reserve("b", claim(1)), Reserved)
                await asyncio.sleep(rules.lease)
                assert isinstance(await one.reserve("c", claim(1)), Unavailable)
            finally:
                server.go_on()
            await one.until(is_well=True)
            assert await one.sums() == (0, 11)

    asyncio.run(main())


def test_each_replica_lets_in_its_share_of_what_was_left(server: valkeys.Server) -> None:
    async def main() -> None:
        share: Policy = lambda _: "local_share"  # noqa: E731  # one line says it
        async with replica(server, share, replicas_min=4) as one:
            await one.reserve("a", claim(200))
            assert isinstance(await one.reserve("s", slot(8)), Reserved)
            server.kill()
            let_in = [await one.reserve(f"b{i}", claim(10)) for i in range(30)]
            # A quarter of 800, less three requests that each of the others may have had since.
            assert [isinstance(a, Reserved) for a in let_in] == [True] * 17 + [False] * 13
            slots = [await one.reserve(f"c{i}", slot(8)) for i in range(3)]
            assert [isinstance(a, Reserved) for a in slots] == [True, False, False]
            # A request that is over frees its slot, though it can't be charged yet.
            assert (await one.ledger.settle([Settlement("c0", "acme", ())])) == ("unavailable",)
            assert isinstance(await one.reserve("d", slot(8)), Reserved)
            server.start()
            await one.until(is_well=True)

            async def is_told() -> bool:
                return await one.sums() == (0, 370)

            await eventually(is_told)

    asyncio.run(main())


def test_policies_are_those_of_the_tenant(server: valkeys.Server) -> None:
    async def main() -> None:
        policies: dict[str, WhenUnavailable] = {"acme": "deny", "umbra": "allow"}
        async with replica(server, policies.__getitem__) as one:
            server.kill()
            assert isinstance(await one.reserve("a", claim(10)), Unavailable)
            allowed = await one.ledger.reserve(Reserve("b", "umbra", (claim(10_000),)))
            assert isinstance(allowed, Reserved)
            suspended = await one.ledger.reserve(Reserve("c", "umbra", (claim(0, limit=0),)))
            assert isinstance(suspended, Denied)

    asyncio.run(main())


def test_what_is_decided_without_the_store_says_so_and_is_counted(
    server: valkeys.Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        policies: dict[str, WhenUnavailable] = {
            "acme": "local_share",
            "umbra": "allow",
            "cyber": "deny",
        }
        async with replica(server, policies.__getitem__) as one:

            async def decided(tenant: str, amount: int = 10) -> tuple[type[Answer], str]:
                name = f"{tenant}{next(names)}"
                answer = await one.ledger.reserve(Reserve(name, tenant, (claim(amount),)))
                return type(answer), answer.decided_by

            names = count()
            assert await decided("acme") == (Reserved, "")
            server.kill()
            for _ in range(3):
                assert await decided("acme") == (Reserved, "local_share")
            assert await decided("acme", 1000) == (Denied, "local_share")
            assert await decided("umbra", 10_000) == (Reserved, "allow")
            assert await decided("cyber") == (Unavailable, "deny")
            assert one.ledger.without_store == {"local_share": 4, "allow": 1, "deny": 1}

            server.start()
            await one.until(is_well=True)
            # Shares go on until others must have told what they know; who asks for none waits.
            await one.ledger.peek(Reserve("look", "acme", (claim(1),)))
            assert await decided("acme") == (Reserved, "")
            assert sum(one.ledger.without_store.values()) == 6

    with caplog.at_level("WARNING", "extproc.ledger.valkey_link"):
        asyncio.run(main())
    told = [line.getMessage() for line in caplog.records if "valkey_link" in line.name]
    assert [line.partition(":")[0] for line in told] == [
        "the store of budgets is away",
        "the store of budgets is back",
    ]


def test_scripts_that_were_flushed_are_sent_again(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server) as one:
            await one.reserve("a", claim(10))
            server.command("SCRIPT", "FLUSH")
            assert isinstance(await one.reserve("b", claim(10)), Reserved)
            assert one.ledger.health() == ""

    asyncio.run(main())


def test_a_user_who_may_not_use_script_commands_is_enough(server: valkeys.Server) -> None:
    rules = ["on", ">secret", "~llm-extproc:*", "+@all", "-script", "-@admin", "-@dangerous"]
    server.command("ACL", "SETUSER", "extproc", *rules)

    async def main() -> None:
        url = server.url.replace("//", "//extproc:secret@")
        async with ValkeyLedger.open(url, clock, 600.0, patience=PATIENCE) as ledger:
            one = One(ledger)
            assert isinstance(await one.reserve("a", claim(10)), Reserved)
            assert await one.settle("a", 5) == "settled"
            assert ledger.health() == ""

    asyncio.run(main())


@pytest.mark.parametrize(
    ("break_it", "mend_it", "reason"),
    [
        pytest.param(
            [("CONFIG", "SET", "maxmemory", 1)],
            [("CONFIG", "SET", "maxmemory", 0)],
            "maxmemory",
            id="oom",
        ),
        pytest.param(
            [("REPLICAOF", "127.0.0.1", 1)], [("REPLICAOF", "NO", "ONE")], "", id="read only"
        ),
        pytest.param(
            [("ACL", "SETUSER", "default", "-evalsha", "-eval", "-set")],
            [("ACL", "SETUSER", "default", "+@all")],
            "permission",
            id="forbidden",
        ),
    ],
)
def test_a_store_that_refuses_is_as_good_as_away(
    server: valkeys.Server,
    break_it: list[tuple[str, ...]],
    mend_it: list[tuple[str, ...]],
    reason: str,
) -> None:
    async def main() -> None:
        async with replica(server) as one:
            await one.reserve("a", claim(10))
            for words in break_it:
                server.command(*words)
            assert isinstance(await one.reserve("b", claim(10)), Unavailable)
            assert await one.settle("a", 5) == "unavailable"
            assert reason in one.ledger.health()
            for words in mend_it:
                server.command(*words)
            await one.until(is_well=True)
            assert await one.settle("a", 5) == "settled"
            assert await one.sums() == (5, 0)

    asyncio.run(main())


def test_keys_end_by_themselves_and_a_tenants_lie_together(server: valkeys.Server) -> None:
    async def main() -> None:
        async with replica(server, leases=Rules(busy_requests=0)) as one:
            for name in ("acme", "", "{}", "a}b", "{a"):
                await one.ledger.reserve(Reserve(f"r{name}", name, (claim(1), slot(5))))

    asyncio.run(main())
    keys = server.command("KEYS", "*")
    assert len(keys) >= 5 * 4
    assert [key for key in keys if server.command("TTL", key) < 0] == []
    tags = {key.split(b":{")[1].split(b"}")[0] for key in keys if b":{t." in key}
    assert len(tags) == 5
    assert b"t." in tags


def test_a_replica_that_ends_gives_its_leases_back(server: valkeys.Server) -> None:
    def leases() -> list[bytes]:
        found: list[bytes] = server.command("KEYS", "*:leases")
        return found

    async def main() -> None:
        async with replica(server, leases=Rules(busy_requests=0, horizon=5.0)) as one:
            for i in range(10):
                await one.reserve(f"a{i}", claim(1))
                await asyncio.sleep(0.01)
            assert leases()
        assert not leases()
        async with replica(server) as other:
            assert isinstance(await other.reserve("b", claim(990)), Reserved)
            assert await other.settle("a0", 1) == "settled"

    asyncio.run(main())


def test_what_is_leased_by_others_is_asked_back_before_anybody_is_refused(
    server: valkeys.Server,
) -> None:
    async def main() -> None:
        rules = Rules(busy_requests=0, horizon=5.0, lease=30.0)
        async with replica(server, leases=rules) as one, replica(server, leases=rules) as other:
            for i in range(10):
                await one.reserve(f"a{i}", claim(10))
                await asyncio.sleep(0.01)
            assert server.command("KEYS", "*:leases")

            assert isinstance(await other.reserve("b", claim(900)), Reserved)
            assert isinstance(await one.reserve("c", claim(1)), Denied)

    asyncio.run(main())
