"""extproc/cli_budget_api.py: what is refused before anything is sent, and how instants are read."""

import argparse

import pytest

from extproc import cli_budget_api
from extproc.budgets_api import budgets_pb2 as pb
from extproc.cli import main
from extproc.cli_budget_api import is_loopback, until
from extproc.cli_budget_tables import row, shown_at

ADJUST = ("adjust", "acme", "month", "--reason=r")
HERE = "--server=127.0.0.1:1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("list", "--server=budgets.example:50052"), "is not this machine"),
        (("list", "--server=127.0.0.1.example:50052"), "is not this machine"),
        (("list", HERE, "--cert=c"), "go together"),
        (("list", HERE, "--cert=c", "--key=k"), "--cert needs --ca"),
        (("list", HERE, "--ca=c", "--plaintext"), "exclude each other"),
        ((*ADJUST, HERE, "--amount=1"), "--amount needs --until"),
        ((*ADJUST, HERE, "--withdraw=x", "--id=y"), "--withdraw goes with neither"),
        (("list", HERE, "--token-file=does-not-exist"), "does-not-exist"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["budget", *arguments]) == 2

    assert says in capsys.readouterr().err


@pytest.mark.parametrize("amount", ["0", "-1", "nan", "inf", "1e16", "1e99999", "much"])
def test_what_is_no_amount_is_refused(amount: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["budget", *ADJUST, HERE, f"--amount={amount}", "--until=1h"])

    assert caught.value.code == 2
    assert "is no amount" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2027-01-31", 1_801_440_000),  # the first instant of February: that day is included
        ("2027-01-31T12:00Z", 1_801_396_800),
        ("2027-01-31T12:00+01:00", 1_801_393_200),
        ("90m", 1000 + 5400),
        ("12h", 1000 + 43_200),
        ("7d", 1000 + 604_800),
    ],
)
def test_instants(text: str, instant: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_budget_api, "_clock", lambda: 1000)

    assert until(text) == instant


@pytest.mark.parametrize(
    "text", ["", "soon", "2027-01-31T12:00", "0h", "1w", "2027-13-01", "9999-12-31", "9" * 400]
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        until(text)


@pytest.mark.parametrize(
    ("server", "is_here"),
    [
        ("127.0.0.1:5", True),
        ("[::1]:5", True),
        ("localhost:5", True),
        ("127.0.0.1", False),
        ("127.0.0.2:5", False),
        ("dns:///127.0.0.1:5", False),
    ],
)
def test_what_is_this_machine(server: str, is_here: bool) -> None:
    assert is_loopback(server) is is_here


def test_nothing_that_a_name_holds_moves_the_cursor() -> None:
    assert row(pb.Budget(tenant="a\x1b[2Jb", budget="day"))[0] == "a?[2Jb"


def test_instants_beyond_the_calendar_are_shown_as_numbers() -> None:
    assert shown_at(0) == "1970-01-01T00:00:00Z"
    assert shown_at(1e15) == "1000000000000000"
