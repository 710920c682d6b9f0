"""The ledger's file, and processes that are killed, shut out, or have no room."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import pytest

from extproc.ledger.port import LedgerError
from tests.ledger_books import money, tokens
from tests.ledger_files import FileBooks
from tests.shell.ledger_child import PER_BATCH, batch

ROOT = Path(__file__).parents[2]
KILLS = 20
BATCHES_MAX = 12
"""After so many at the latest a process is killed."""


@contextmanager
def child(path: Path, work: str, number: int = 0) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.shell.ledger_child", str(path), work, str(number)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_whenever_it_is_killed_what_was_acknowledged_is_there_once(path: Path) -> None:
    chance = random.Random(4)  # noqa: S311  # where it is killed need not be a secret
    number = 0
    for _ in range(KILLS):
        with child(path, "settle", number) as process:
            said = lines(process)
            for _ in range(chance.randint(1, BATCHES_MAX)):
                number = int(said.readline())
            # Killed at once, or a moment later: within the next batch, or between two.
            for _ in range(chance.choice((0, 10_000, 100_000, 400_000))):
                pass
            process.kill()
            number = int(([str(number), *said.read().split()])[-1])

        with closing(FileBooks(path)) as books:
            kept = int(books.ledger.notes("")["last"])
            assert kept in {number, number + 1}
            settlements = range(kept + 1)
            assert books.sums(tokens(0)) == (len(settlements) * PER_BATCH, 0)
            assert books.sums(money(0)) == (sum(settlements) * PER_BATCH, 0)
            for known in (*settlements[-3:], chance.choice(settlements)):
                assert set(books.settle_all(*batch(known))) == {"repeated"}
            number = kept + 1


def test_where_the_disk_is_full_nothing_is_acknowledged_and_nothing_lost(path: Path) -> None:
    with child(path, "fill", 200_000) as process:
        *settled, health, last = lines(process).read().splitlines()
        assert process.wait() == 0

    assert settled == [str(number) for number in range(int(last))]
    assert len(settled) > 3
    assert health.startswith(f"{path}: ")
    assert "Make room on the disk" in health or "See whether the disk has room" in health
    with closing(FileBooks(path)) as books:
        assert books.sums(tokens(0)) == ((int(last) + 1) * PER_BATCH, 0)


@pytest.mark.parametrize("size", [0, 1, 4096, 20_000])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_full_disk_is_named_when_it_starts(path: Path, size: int, *, is_new: bool) -> None:
    if not is_new:
        with closing(FileBooks(path)) as books:
            books.settle_all(*batch(0))

    with child(path, "full", size) as process:
        said = lines(process).read()
        assert process.wait() == 1

    assert said.startswith(f"{path}: ")
    assert said.count("\n") == 1
    with closing(FileBooks(path)) as books:
        assert books.sums(tokens(0)) == (0 if is_new else PER_BATCH, 0)


def test_a_second_process_is_shut_out_until_the_first_one_is_gone(path: Path) -> None:
    with child(path, "hold") as first:
        assert lines(first).readline() == "open\n"
        with child(path, "hold") as second:
            assert lines(second).read() == (
                f"{path}: is in use by another process ({first.pid}):"
                " one process has it at a time\n"
            )
            assert second.wait() == 1
        with pytest.raises(LedgerError, match="in use"):
            FileBooks(path)
        first.kill()
        first.wait()

        with child(path, "hold") as third:
            assert lines(third).readline() == "open\n"
