"""extproc/cli_budget.py: what a person types, and what becomes of a ledger's file."""

import argparse
import asyncio
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from extproc.bookkeeping import ledgers
from extproc.cli_budget import add_commands
from extproc.ledger.bounds import Pace
from extproc.ledger.sqlite import SqliteLedger
from extproc.policy.budgets import Charge, Claim, Settlement
from extproc.policy.windows import Window
from extproc.telemetry.audit import open_audit
from tests.unit.test_audit import CALL
from tests.unit.test_bookkeeping_lines import changed
from tests.unit.test_settling import HELD
from tests.unit.test_spans import called

YEAR_SECONDS = 365 * 86_400  # long enough that no test sees the end of one
YEAR = Window(seconds=YEAR_SECONDS)
SPENT = Claim("year", "tokens", 10**9, YEAR, 0, 0)
NOW = time.time()  # noqa: TID251  # the ledger's file has the real clock
START = int(NOW // YEAR_SECONDS * YEAR_SECONDS)


def budget(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(["budget", *map(str, arguments)])
    code: int = options.run(options)
    return code


def lines(*amounts: tuple[str, int]) -> bytes:
    charge = {"budget": "year", "unit": "tokens", "window_start": START}
    return b"".join(
        changed(reservation=name, charges=[charge | {"amount": amount}]) for name, amount in amounts
    )


def committed(path: Path, *first: Settlement) -> int:
    async def read() -> int:
        async with SqliteLedger.open(path, lambda: NOW, 100) as ledger:
            await ledger.settle(first)
            (standing,) = await ledger.standing("acme", [SPENT])
            return standing.committed

    return asyncio.run(read())


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    path.write_bytes(lines(("a", 10), ("b", 20)))
    return path


def test_a_lost_ledger_is_rebuilt_and_doing_it_again_adds_nothing(
    ledger: Path, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "replica.gz"
    packed.write_bytes(gzip.compress(lines(("c", 5), ("a", 10))))

    assert budget("replay", log, packed, "--ledger", ledger) == 0
    assert committed(ledger) == 35
    assert "3 requests charged, 1 known already" in capsys.readouterr().out

    assert budget("replay", packed, log, "--ledger", ledger) == 0
    assert committed(ledger) == 35
    assert "0 requests charged, 4 known already" in capsys.readouterr().out


def test_what_the_audit_wrote_rebuilds_what_the_service_charged(ledger: Path) -> None:
    path = ledger.parent / "written.log"
    audit = open_audit(str(path))
    reserved = HELD.replace("minute tokens 500 400 60", f"year tokens 500 400 {START}")
    audit.observe(CALL._replace(outcome=called(reserved=reserved)))
    audit.observe(CALL._replace(outcome=called(reserved=reserved), settled="repeated"))
    audit.close()

    assert budget("replay", path, "--ledger", ledger) == 0
    assert committed(ledger) == 120


def test_what_the_ledger_still_knows_is_not_charged_again(ledger: Path, log: Path) -> None:
    committed(ledger, Settlement("a", "acme", (Charge("year", START, 10),)))

    assert budget("replay", log, "--ledger", ledger) == 0
    assert committed(ledger) == 30


def test_a_dry_run_changes_nothing_even_beside_a_running_service(
    ledger: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Settlement("a", "acme", (Charge("year", START, 10),))

    async def beside() -> int:
        async with SqliteLedger.open(ledger, lambda: NOW, 100) as running:
            await running.settle([known])
            return await asyncio.to_thread(
                budget, "replay", log, "--ledger", ledger, "--dry-run", "--json"
            )

    assert asyncio.run(beside()) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["dry_run"] is True
    assert (told["requests"]["charged"], told["requests"]["known"]) == (1, 1)
    assert committed(ledger) == 10


def test_a_dry_run_makes_no_ledger(ledger: Path, log: Path) -> None:
    assert budget("replay", log, "--ledger", ledger, "--dry-run") == 0
    assert [path.name for path in ledger.parent.iterdir()] == [log.name]


def test_what_is_dry_run_is_what_is_done(
    ledger: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for more in (["--dry-run"], []):
        budget("replay", log, "--ledger", ledger, "--json", *more)
        told.append(json.loads(capsys.readouterr().out))

    assert told[0].pop("dry_run") is True
    assert told[1].pop("dry_run") is False
    assert told[0] == told[1]


def test_the_ledger_of_a_running_service_is_left_alone(
    ledger: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def beside() -> int:
        async with SqliteLedger.open(ledger, lambda: NOW, 100):
            return await asyncio.to_thread(budget, "replay", log, "--ledger", ledger)

    assert asyncio.run(beside()) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_lines_that_can_not_be_used_are_said_and_the_rest_is_charged(
    ledger: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with log.open("ab") as file:
        file.write(b"secret garbage\n" + lines(("d", 1))[:50])

    assert budget("replay", log, "--ledger", ledger) == 1

    out = capsys.readouterr().out
    assert f"{log}:3: no audit line" in out
    assert f"{log}:4: cut off" in out
    assert "secret" not in out
    assert committed(ledger) == 30


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("{0}/none --ledger {0}/ledger.db", "none: No such file or directory"),
        ("{0}/none --ledger {0}/ledger.db --dry-run", "none: No such file or directory"),
        ("{0}/audit.log --ledger {0}/none/ledger.db", "there is no folder"),
        ("{0}/audit.log --ledger {0}/audit.log", "audit.log"),
        ("{0}/audit.log --ledger {0}/audit.log --dry-run", "audit.log"),
    ],
)
def test_wrong_input_is_one_line(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: str, problem: str
) -> None:
    before = log.read_bytes()

    assert budget("replay", *arguments.format(log.parent).split()) == 2

    (told,) = capsys.readouterr().err.splitlines()
    assert problem in told
    assert log.read_bytes() == before


@pytest.mark.parametrize("is_disturbed", [True, False])
def test_a_ledger_forgets_nothing_while_it_is_replayed_to(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, *, is_disturbed: bool
) -> None:
    long_ago = NOW - 30 * 86400
    if is_disturbed:  # what would happen otherwise
        monkeypatch.setattr(ledgers, "STILL", Pace(tick=0, prune=0))

    async def settled_long_ago() -> None:
        async with SqliteLedger.open(ledger, lambda: long_ago, 100) as books:
            await books.settle([Settlement("a", "acme", ())])

    async def since() -> float:
        async with ledgers.opened(ledger, lambda: NOW, is_dry=False) as books:
            for _ in range(5):
                await books.settle([])
            return books.remembers_since()

    asyncio.run(settled_long_ago())

    assert (asyncio.run(since()) > 0) is is_disturbed


def usage(**fields: Any) -> bytes:
    return changed(started="2026-09-10T12:00:00Z", model="gpt-4", **fields)


EXPORT = "date,model,requests,input_tokens,output_tokens,cost_usd\n"


@pytest.fixture
def month(tmp_path: Path) -> Path:
    path = tmp_path / "month.log"
    calls = [usage(reservation=str(n), source="estimated" if n < 5 else "usage") for n in range(50)]
    path.write_bytes(b"".join([*calls, calls[0]]))
    return path


@pytest.fixture
def invoice(tmp_path: Path) -> Path:
    path = tmp_path / "invoice.csv"
    path.write_text(EXPORT + "2026-09-10,gpt-4-0613,50,5000,1000,0.21\n")
    return path


def test_an_invoice_that_agrees_is_said_to(
    month: Path, invoice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert budget("reconcile", "--invoice", invoice, month) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 lines came again and count once",
        "2026-09-10 to 2026-09-10: 4 numbers compared, 0 differ, 0 by more than 0.01",
    ]


def test_differences_are_shown_with_what_explains_them(
    month: Path, invoice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invoice.write_text(EXPORT + "2026-09-10,gpt-4,50,4000,1005,0.21\n")

    assert budget("reconcile", "--invoice", invoice, month) == 1
    head, tokens, output, *_ = capsys.readouterr().out.splitlines()
    assert head.startswith("day (UTC)")
    assert " ".join(tokens.split()) == (
        "2026-09-10 gpt-4 input tokens estimated 500 5,000 4,000 +1,000 20.00%"
    )
    assert " ".join(output.split()) == (
        "2026-09-10 gpt-4 output tokens (tolerated) estimated 100 1,000 1,005 -5 0.50%"
    )
    assert budget("reconcile", "--invoice", invoice, month, "--tolerance", "0.2") == 0


def test_programs_get_all_of_it(
    month: Path, invoice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invoice.write_text(EXPORT + "2026-09-10,other,50,5000,1000,0.25\n")

    assert budget("reconcile", "--invoice", invoice, month, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["lines"] == 50
    assert told["repeated"] == 1
    assert told["not_invoiced"]["gpt-4"]["requests"] == 50
    assert {one["model"] for one in told["differences"]} == {"other"}
    options = ("--model", "other=gpt-4", "--json")
    assert budget("reconcile", "--invoice", invoice, month, *options) == 1
    (cost,) = json.loads(capsys.readouterr().out)["differences"]
    assert (cost["what"], cost["ours"], cost["invoice"]) == ("cost_micro_usd", 210_000, 250_000)
    assert cost["explained"] == {"estimated": 21_000}


def test_an_unknown_export_is_one_line_that_says_what_was_looked_for(
    month: Path, invoice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invoice.write_text("a,b\n1,2\n")

    assert budget("reconcile", "--invoice", invoice, month) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "unknown columns: a, b. Looked for: OpenAI usage (start_time," in told


@pytest.mark.parametrize(
    "option",
    [("--model", "a"), ("--model", "=a"), ("--model", "a="), ("--tolerance", "-1"),
     ("--tolerance", "x"), ("--tolerance", "inf")],
)  # fmt: skip
def test_wrong_options_are_refused(month: Path, invoice: Path, option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as ended:
        budget("reconcile", "--invoice", invoice, month, *option)

    assert ended.value.code == 2
