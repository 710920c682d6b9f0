"""Many processes, one Valkey, one small budget: what fits is let in, no more and no less."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle
from typing import Final

import pytest

from extproc.ledger.valkey import ValkeyLedger
from extproc.policy.budgets import Claim, Denied, Reserved
from tests import valkeys
from tests.ledger_books import Books, Clock
from tests.shell.valkey_child import DAY, PATIENT, clock

PROCESSES: Final = 8
REQUESTS: Final = 2400


@pytest.fixture
def server() -> Iterator[valkeys.Server]:
    with valkeys.running() as server:
        yield server


class Child:
    def __init__(self, url: str, *claims: str) -> None:
        command = [sys.executable, "-m", "tests.shell.valkey_child", url]
        self.process = subprocess.Popen(
            [*command, str(REQUESTS // PROCESSES), *claims],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def burst(server: valkeys.Server, *claims: str) -> int:
    """How many of all that ask at once are let in."""
    with ExitStack() as children:
        started = []
        for _, _ in zip(range(PROCESSES), cycle((None,)), strict=False):
            child = Child(server.url, *claims)
            children.callback(child.end)
            started.append(child)
        assert [child.hear() for child in started] == ["ready"] * PROCESSES
        for child in started:
            child.say()
        let_in = sum(int(child.hear()) for child in started)
        for child in started:
            child.say()
            assert child.process.wait(30) == 0
    return let_in


def books(server: valkeys.Server) -> Books:
    return Books(
        lambda _clock, seconds: ValkeyLedger.open(
            server.url, clock, seconds, leases=None, patience=PATIENT
        ),
        Clock(),
    )


def of(budget: str, amount: int, limit: int) -> Claim:
    return Claim(budget, "tokens", limit, DAY, amount, amount)


@pytest.mark.parametrize(("amount", "limit"), [(100, 10_000), (7, 10_003), (1, 2_000), (3, 10)])
def test_a_burst_gets_what_fits_no_more_and_no_less(
    server: valkeys.Server, amount: int, limit: int
) -> None:
    assert burst(server, f"small:{amount}:{limit}") == limit // amount

    reader = books(server)
    assert reader.sums(of("small", 0, limit)) == (0, limit // amount * amount)
    assert isinstance(reader.reserve("one more", of("small", amount, limit)), Denied)
    reader.close()


def test_where_the_second_budget_has_no_room_the_first_is_not_touched(
    server: valkeys.Server,
) -> None:
    assert burst(server, "first:10:1000000", "second:10:9") == 0

    reader = books(server)
    assert reader.sums(of("first", 0, 1_000_000)) == (0, 0)
    assert isinstance(reader.reserve("all", of("first", 1_000_000, 1_000_000)), Reserved)
    reader.close()


def test_the_smaller_of_two_budgets_decides_and_both_agree(server: valkeys.Server) -> None:
    assert burst(server, "first:10:100000", "second:10:905") == 90

    reader = books(server)
    assert reader.sums(of("first", 0, 100_000)) == (0, 900)
    assert reader.sums(of("second", 0, 905)) == (0, 900)
    reader.close()
