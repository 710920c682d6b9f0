"""`llm-extproc budget get` and its kin, as processes, against a real service."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from extproc.server import budget_service
from extproc.server.budget_access import Access
from tests.scenarios.table import chat
from tests.shell.budget_harness import DAY, HOUR, LOCAL, World, budgets

ROOT = Path(__file__).parents[2]
TOKEN = "-".join(["0123456789abcdef"] * 2)


class Ran(NamedTuple):
    code: int | None
    out: str
    err: str

    @property
    def told(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Coroutine[Any, Any, Ran]]


def start(*arguments: str) -> Coroutine[Any, Any, asyncio.subprocess.Process]:
    return asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "extproc", "budget", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ran(*arguments: str) -> Ran:
    process = await start(*arguments)
    out, err = await process.communicate()
    return Ran(process.returncode, out.decode(), err.decode())


def run(test: Callable[[World, str], Coroutine[Any, Any, None]], access: Access = LOCAL) -> World:
    """Run it against a new world; it is given the server's address as an option."""
    world = World()

    async def whole() -> None:
        async with asyncio.timeout(120), budgets(world, access) as port:
            await test(world, f"--server=127.0.0.1:{port}")

    asyncio.run(whole())
    return world


def test_a_budget_as_a_table_and_as_json() -> None:
    async def test(world: World, server: str) -> None:
        await world.use("tiny", "day", DAY, 20)
        text = await ran("get", "tiny", "day", server)
        assert (text.code, text.err) == (0, "")
        heading, line = text.out.splitlines()
        assert heading.split() == [
            *("TENANT", "BUDGET", "USED", "HELD", "LEFT"),
            *("LIMIT", "GRANTED", "UNIT", "ENDS"),
        ]
        assert line.split()[:8] == ["tiny", "day", "20", "0", "30", "50", "0", "tokens"]
        assert line.split()[8] == "2027-01-16T00:00:00Z"
        assert line.index("20") + 2 == heading.index("USED") + 4

        told = (await ran("get", "tiny", "day", server, "--json")).told
        assert (told["committed"], told["remaining"], told["unit"]) == (20, 30, "tokens")

    run(test)


def test_all_budgets_and_those_of_some_tenants() -> None:
    async def test(_: World, server: str) -> None:
        everything = await ran("list", server)
        assert {"rich", "tiny", "broke"} <= {
            line.split()[0] for line in everything.out.splitlines()
        }
        assert "0.010000" in everything.out
        some = (await ran("list", "ti", server, "--json")).told
        assert [one["tenant"] for one in some] == ["tiny"]

    run(test)


def test_a_grant_is_given_and_taken_back() -> None:
    async def test(world: World, server: str) -> None:
        about = ("broke", "month", server, "--json")
        given = await ran(
            "adjust", *about, "--amount=1.5", "--until=2027-02-28", "--reason=exam", "--id=exam"
        )
        assert given.code == 0, given.err
        assert (given.told["granted"], given.told["limit"]) == (1_500_000, 1_510_000)
        assert given.told["grants"][0]["until"] == 1_803_859_200  # the first instant of March
        text = await ran("get", "broke", "month", server)
        assert "exam: 1.500000 until 2027-03-01T00:00:00Z, by loopback: exam" in text.out
        back = await ran("adjust", *about, "--withdraw=exam", "--reason=enough")
        assert (back.code, back.told["limit"]) == (0, 10_000)
        assert not world.rulebook.grants

    assert [one["change"] for one in run(test).audited] == ["granted", "withdrawn"]


def test_a_reset_leaves_all_of_the_limit() -> None:
    async def test(world: World, server: str) -> None:
        await world.use("per-minute", "hour", HOUR, 300)
        done = await ran("reset", "per-minute", "hour", server, "--reason=our fault")
        assert done.code == 0, done.err
        assert done.out.startswith("given again: grant reset-")
        assert await world.has_room("per-minute", "hour", 300)

    run(test)


def test_whoever_watches_sees_each_change() -> None:
    async def test(world: World, server: str) -> None:
        process = await start("watch", "tiny", server, "--json")
        assert process.stdout is not None
        first = json.loads(await process.stdout.readline())
        await world.use("tiny", "day", DAY, 9)
        second = json.loads(await process.stdout.readline())
        process.terminate()
        await process.communicate()
        assert (first["committed"], second["committed"]) == (0, 9)

    assert budget_service.WATCH_SECONDS <= 2
    run(test)


def test_a_decision_is_explained_over_budgets_as_they_stand(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(chat(max_tokens=5))

    async def test(world: World, server: str) -> None:
        ask = ("explain", f"--request={body}", "--header=x-tenant-id=tiny", server)
        await world.use("tiny", "day", DAY, 50)
        text = await ran(*ask)
        assert text.code == 0, text.err
        assert "as they would stand now" in text.out
        assert "refused with 429" in text.out
        assert (await ran(*ask, "--json")).told["outcome"]["status"] == 429

    run(test)


def test_a_token_gives_the_right_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    kept, wrong = tmp_path / "kept", tmp_path / "wrong"
    kept.write_text(TOKEN + "\n")
    wrong.write_text(TOKEN[:-1])

    async def test(_: World, server: str) -> None:
        assert (await ran("get", "tiny", "day", server, f"--token-file={kept}")).code == 0
        for more in ((), (f"--token-file={wrong}",)):
            found = await ran("get", "tiny", "day", server, *more)
            assert found.code == 1
            assert "permission denied" in found.err
            assert found.err.count("\n") == 1

    run(test, Access(token_file=kept))


def test_what_the_service_refuses_is_one_line(tmp_path: Path) -> None:
    async def test(_: World, server: str) -> None:
        unknown = await ran("get", "tiny", "night", server)
        assert (unknown.code, unknown.out) == (1, "")
        assert unknown.err.count("\n") == 1
        assert "not found" in unknown.err
        missing = await ran("explain", f"--request={tmp_path / 'none'}", server)
        assert missing.code == 2
        assert missing.err.count("\n") == 1
        half = await ran(
            "adjust", "tiny", "day", server, "--amount=0.5", "--until=1h", "--reason=r"
        )
        assert half.code == 2

    run(test)


def test_where_nobody_listens_that_is_said() -> None:
    found = asyncio.run(ran("list", "--server=127.0.0.1:1"))

    assert found.code == 1
    assert found.err.startswith("127.0.0.1:1: unavailable")
