"""`budget replay --settings`: what a Valkey has lost is charged to it again, beside replicas."""

import asyncio
import datetime as dt
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from extproc.ledger.valkey import ValkeyLedger
from extproc.policy.budgets import Charge, Claim, Reserve, Settlement
from tests import valkeys
from tests.conformance.harness import settings_in
from tests.shell.test_replay import SPENT, START, YEAR, budget, lines
from tests.unit.test_bookkeeping_lines import changed

clock = time.time  # noqa: TID251  # that of the machine, as the store has it


@pytest.fixture
def server() -> Iterator[valkeys.Server]:
    with valkeys.running() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, server: valkeys.Server) -> Path:
    return settings_in(tmp_path, ledger={"kind": "valkey", "url": server.url})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    path.write_bytes(lines(("a", 10), ("b", 20), ("a", 10)))
    return path


async def used(ledger: ValkeyLedger) -> tuple[int, int]:
    (standing,) = await ledger.standing("acme", [SPENT])
    return standing.committed, standing.reserved


def test_a_store_that_came_back_empty_is_made_whole_while_a_replica_goes_on(
    server: valkeys.Server, settings: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def charged() -> int:
        assert budget("replay", log, "--settings", settings, "--json") == 0
        told: int = json.loads(capsys.readouterr().out)["requests"]["charged"]
        return told

    async def main() -> None:
        async with ValkeyLedger.open(server.url, clock, 600.0) as replica:
            for name, amount in (("a", 10), ("b", 20)):
                await replica.settle([Settlement(name, "acme", (Charge("year", START, amount),))])
            held = Claim("year", "tokens", 10**9, YEAR, 5, 5)
            await replica.reserve(Reserve("open", "acme", (held,)))
            server.flush()

            # What the replica saw counts as used, and is not charged twice by what comes again.
            assert await asyncio.to_thread(charged) == 2
            async with asyncio.timeout(valkeys.DEADLINE_SECONDS):
                while await used(replica) != (30, 5):  # noqa: ASYNC110  # until it is told again
                    await asyncio.sleep(0.01)
            assert await asyncio.to_thread(charged) == 0
            assert await used(replica) == (30, 5)

    asyncio.run(main())


def test_a_call_older_than_what_the_store_remembers_is_not_charged(
    server: valkeys.Server, settings: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(name: str, hours_ago: int) -> bytes:
        started = dt.datetime.fromtimestamp(clock() - hours_ago * 3600, dt.UTC).isoformat()
        charge = {"budget": "year", "unit": "tokens", "window_start": START, "amount": 10}
        return changed(reservation=name, started=started, charges=[charge])

    async def forget() -> None:
        async with ValkeyLedger.open(server.url, clock, 600.0) as ledger:
            await ledger.settle([Settlement("a", "acme", (Charge("year", START, 10),))])
            (over,) = server.command("KEYS", "*:over")
            server.command("ZADD", over, int((clock() - 3 * 3600) * 1e6), "a")
            await ledger.settle([Settlement("c", "acme", (Charge("year", START, 1),))])

    asyncio.run(forget())
    log.write_bytes(line("a", 4) + line("d", 1))

    assert budget("replay", log, "--settings", settings, "--json") == 1
    told = json.loads(capsys.readouterr().out)["requests"]
    assert (told["too_old"], told["charged"]) == (1, 1)


def test_a_store_that_is_away_is_said_to_be(
    server: valkeys.Server, settings: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.kill()

    assert budget("replay", log, "--settings", settings) == 2
    assert "connect" in capsys.readouterr().err.lower()


def test_a_server_is_not_charged_for_show(
    settings: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert budget("replay", log, "--settings", settings, "--dry-run") == 2
    assert "--dry-run needs a ledger that is a file" in capsys.readouterr().err
