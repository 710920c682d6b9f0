"""extproc/ledger/sqlite_file.py, sqlite_opening.py and sqlite_schema.py"""

import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from extproc.ledger import sqlite_file
from extproc.ledger.accounts import Key
from extproc.ledger.port import LedgerError
from extproc.ledger.remembered import SETTLED, Expired
from extproc.ledger.sqlite_file import Contents, LedgerFile, Past, Row, Transaction
from extproc.ledger.sqlite_schema import APPLICATION_ID, STEPS
from extproc.policy.budgets import Charge, Reserved
from tests.ledger_books import NOON, tokens
from tests.ledger_files import FileBooks

ROW = Row(Key("acme", "minute", NOON), NOON + 60, 7, NOON + 360)
ROWS = [ROW._replace(key=Key(f"tenant{number}", "minute", NOON)) for number in range(500)]
MANY = [Past(f"r{number}", SETTLED, NOON + 7200) for number in range(2000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def used(path: Path) -> Path:
    """A ledger of some 40 pages, closed."""
    with closing(opened(path)) as file:
        file.write(Transaction(NOON, MANY, ROWS, [], {"n": "1"}))
    return path


def opened(path: Path) -> LedgerFile:
    file = LedgerFile.open(path, busy_seconds=0)
    try:
        file.load()
    except LedgerError:
        file.close()
        raise
    return file


def contents(path: Path) -> Contents:
    with closing(LedgerFile.open(path, busy_seconds=0)) as file:
        return file.load()


def refusal(path: Path) -> str:
    """Why it is not opened: in one line that names the file, which is left as it is."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(LedgerError) as error:
        opened(path)
    reason = str(error.value)
    assert reason.startswith(f"{path}: ")
    assert "\n" not in reason
    assert before == (path.read_bytes() if path.is_file() else None)
    return reason.removeprefix(f"{path}: ")


DAMAGED = "Restore a copy of it; or move it away, with the files beside it"

# Opened and read.


def test_what_was_written_is_read(path: Path) -> None:
    expired = Expired("acme", (("minute", NOON, 5), ("slots", 0.0, 0)))
    past = [Past("a", SETTLED, NOON), Past("b", expired, NOON), Past("0" * 32, SETTLED, NOON)]
    with closing(opened(path)) as file:
        file.write(Transaction(NOON, past, [ROW], [], {"n": "1"}))

    assert contents(path) == Contents([ROW], {"n": "1"}, 0.0)
    with closing(opened(path)) as file:
        assert file.look_up(["a", "b", "c", "0" * 32]) == {
            "a": SETTLED,
            "b": expired,
            "0" * 32: SETTLED,
        }
        assert file.look_up(["a"])["a"] is SETTLED


def test_the_last_of_a_name_counts(path: Path) -> None:
    expired = Past("a", Expired("acme", ()), NOON)
    with closing(opened(path)) as file:
        file.write(Transaction(NOON, [expired, Past("a", SETTLED, NOON)], [], [], {}))
        assert file.look_up(["a"]) == {"a": SETTLED}


def test_an_instant_between_two_seconds_is_rounded_to_keep_longer(path: Path) -> None:
    row = ROW._replace(key=Key("acme", "odd", NOON + 0.5), end=NOON + 60.5, keep_until=NOON + 360.5)
    with closing(opened(path)) as file:
        file.write(Transaction(NOON, [Past("a", SETTLED, NOON + 0.5)], [row], [], {}))
        assert file.prune(NOON + 0.9, 0) == (0.0, True)
        assert file.prune(NOON + 1, 0) == (NOON + 1, True)

    assert contents(path).rows == [row._replace(keep_until=NOON + 361)]


def test_a_part_of_a_way_is_looked_through_at_a_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "PRUNED_PER_STEP", 700)
    stay = [Past(f"a{number}", SETTLED, NOON + 9000) for number in range(800)]
    with closing(opened(path)) as file:
        file.write(Transaction(NOON, [*MANY, *stay], [], [], {}))
        assert file.prune(NOON + 7199, 7200) == (0.0, False)
        steps = [file.prune(NOON + 7200, 7200) for _ in range(8)]

        assert [was_last for _, was_last in steps].index(True) == 3  # one was before
        assert {until for until, _ in steps} == {NOON, 0.0}
        assert len(file.look_up(past.reservation for past in [*MANY, *stay])) == 800
    assert contents(path).forgotten_until == NOON


def test_what_was_forgotten_first_may_have_been_over_last(path: Path) -> None:
    with closing(opened(path)) as file:
        for until in (NOON + 1, NOON):
            file.write(Transaction(NOON, [Past("a", SETTLED, until)], [], [], {}))
            assert file.prune(NOON + 1, 0) == (until, True)

    assert contents(path).forgotten_until == NOON + 1


def test_what_is_looked_through_meanwhile_grows(path: Path) -> None:
    with closing(opened(path)) as file:
        assert file.prune(NOON, 0) == (0.0, True)
        file.write(Transaction(NOON, [Past("a", SETTLED, NOON)], [], [], {}))
        assert file.prune(NOON, 0) == (NOON, True)
        assert file.prune(NOON, 0) == (0.0, True)


def test_what_is_committed_is_flushed_to_the_disk(path: Path) -> None:
    with closing(opened(path)) as file:
        execute = file._connection.execute  # noqa: SLF001  # each connection has its own
        assert execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_closed_ledger_is_one_file(used: Path) -> None:
    assert sorted(p.name for p in used.parent.iterdir()) == ["ledger.db", "ledger.db.lock"]


@pytest.mark.parametrize("looks_first", [True, False])
def test_what_could_not_be_undone_is_undone_before_anything_is_read_or_written(
    path: Path, *, looks_first: bool
) -> None:
    with closing(opened(path)) as file:
        execute = file._connection.execute  # noqa: SLF001  # as a failed rollback leaves it
        execute("BEGIN")
        execute("INSERT INTO note VALUES ('half', 'done')")
        execute("INSERT INTO past VALUES ('half', 0, NULL)")
        if looks_first:
            assert file.look_up(["half"]) == {}
        file.write(Transaction(NOON, [], [ROW], [], {}))
        assert file.look_up(["half"]) == {}

    assert contents(path) == Contents([ROW], {}, 0.0)


def test_a_write_that_fails_halfway_is_undone_at_once(path: Path) -> None:
    never = ROW._replace(committed=None)  # type: ignore[arg-type]  # what the file refuses
    with closing(opened(path)) as file:
        with pytest.raises(sqlite3.IntegrityError):
            file.write(Transaction(NOON, MANY, [ROW, never], [], {}))

        assert not file._connection.in_transaction  # noqa: SLF001  # nobody else knows
        assert file.look_up([MANY[0].reservation]) == {}
    assert contents(path) == Contents([], {}, 0.0)


# One at a time.


def test_a_second_one_is_told_who_has_it(used: Path) -> None:
    with closing(opened(used)):
        assert refusal(used) == (
            f"is in use by another process ({os.getpid()}): one process has it at a time"
        )
        link = used.with_name("link.db")
        link.symlink_to(used)
        with pytest.raises(LedgerError, match="in use"):
            LedgerFile.open(link)

    assert contents(used).rows == sorted(ROWS)


def test_a_file_that_was_refused_is_not_kept_locked(used: Path) -> None:
    good = used.read_bytes()
    used.write_bytes(b"x" * 5000)
    refusal(used)
    used.write_bytes(good)

    assert contents(used).rows == sorted(ROWS)


def test_another_program_that_writes_is_waited_for_and_then_named(used: Path) -> None:
    with closing(sqlite3.connect(used, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert refusal(used).startswith("database is locked. Another program has locked it")


# Damaged.


@pytest.mark.parametrize(
    "size", [1, 15, 16, 99, 100, 511, 512, 4095, 4096, 4097, 8192, 40_000, -4096, -512, -1]
)
def test_a_truncated_file_is_no_ledger(used: Path, size: int) -> None:
    used.write_bytes(used.read_bytes()[:size])

    assert DAMAGED in refusal(used)


def test_an_empty_file_is_no_ledger(used: Path) -> None:
    used.write_bytes(b"")

    assert refusal(used).startswith(f"is too short for a ledger, 0 bytes. {DAMAGED}")


@pytest.mark.parametrize("garbage", [b"x" * 10_000, b"\0" * 10_000, b"SQLite format 3\0" * 999])
def test_garbage_is_no_ledger(path: Path, garbage: bytes) -> None:
    path.write_bytes(garbage)

    refusal(path)


def test_a_damaged_page_is_found_wherever_it_is(used: Path) -> None:
    good = used.read_bytes()
    for at in range(0, len(good), 4096):
        used.write_bytes(good[:at] + random.Random(at).randbytes(4096) + good[at + 4096 :])  # noqa: S311  # junk
        assert DAMAGED in refusal(used)


def test_beyond_a_size_only_what_is_loaded_is_checked(
    used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKED_BYTES_MAX", used.stat().st_size - 1)
    good = used.read_bytes()
    refused = 0
    for at in range(0, len(good), 4096):
        used.write_bytes(good[:at] + random.Random(at).randbytes(4096) + good[at + 4096 :])  # noqa: S311  # junk
        try:
            opened(used).close()
        except LedgerError:
            refused += 1

    assert 5 < refused < len(good) // 4096


def test_a_log_without_its_ledger_is_not_overwritten(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(b"what was settled")

    assert refusal(path).startswith(f"is gone, and its log {path}-wal is still there. {DAMAGED}")
    assert Path(f"{path}-wal").read_bytes() == b"what was settled"


def test_a_page_that_a_full_disk_cut_off_is_completed_from_the_log(path: Path) -> None:
    file = opened(path)
    file.write(Transaction(NOON, MANY, ROWS, [], {}))
    log = Path(f"{path}-wal").read_bytes()
    cut_off = path.read_bytes() + b"half a page"
    file.close()
    path.write_bytes(cut_off)
    Path(f"{path}-wal").write_bytes(log)

    assert contents(path).rows == sorted(ROWS)


def test_what_was_left_of_making_one_is_no_hindrance(path: Path) -> None:
    Path(f"{path}.new").write_bytes(b"half")
    Path(f"{path}.new-wal").write_bytes(b"half")

    assert contents(path) == Contents([], {}, 0.0)


def _unreadable(path: Path, charged: str) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO past VALUES ('a', 0, ?)", (charged,))


@pytest.mark.parametrize("charged", ["", "[]", '["acme", [["minute", 0.0, "5"]]]'])
def test_what_an_expired_reservation_was_charged_is_not_guessed(used: Path, charged: str) -> None:
    _unreadable(used, charged)
    with closing(opened(used)) as file, pytest.raises(sqlite3.DatabaseError, match="can't be read"):
        file.look_up(["a"])


# Not to be had.


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "missing"

    assert refusal(folder / "ledger.db") == (
        f"there is no folder {folder}: make it, or name another path"
    )


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()

    assert refusal(tmp_path / "ledger.db").startswith("unable to open database file. ")


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that may be read and not be written to, by this process either."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        euid = os.geteuid()
        if euid == 0:
            folder.chmod(0o755)
            os.seteuid(65534)
        else:
            folder.chmod(0o500)
        yield folder
        os.seteuid(euid)
        folder.chmod(0o700)


def test_a_folder_that_cannot_be_written_to_is_refused(closed_folder: Path) -> None:
    assert refusal(closed_folder / "ledger.db") == (
        "Permission denied. Let this process write to it and to its folder"
    )


def test_a_ledger_that_cannot_be_written_to_is_refused(closed_folder: Path) -> None:
    if os.getuid():
        pytest.skip("only root can make files for somebody else")
    path = closed_folder / "ledger.db"
    os.seteuid(0)
    opened(path).close()
    Path(f"{path}.lock").chmod(0o666)
    os.seteuid(65534)

    assert "Let this process write to it and to its folder" in refusal(path)


# Versions.


def test_another_program_s_file_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE account (name TEXT)")

    assert refusal(path).startswith("is a SQLite file, but no ledger: name another path")


def test_an_older_ledger_is_brought_up_to_date(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        other.execute("CREATE TABLE note_of_version_0 (name TEXT)")

    assert contents(path) == Contents([], {}, 0.0)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (len(STEPS),)


def test_a_step_keeps_what_there_is_and_is_taken_once(used: Path) -> None:
    steps = (*STEPS, "UPDATE account SET committed = committed + 1", "DELETE FROM note")
    for _ in range(2):
        with closing(LedgerFile.open(used, steps=steps)) as file:
            found = file.load()
        assert {row.committed for row in found.rows} == {8}
        assert found.notes == {}

    assert refusal(used) == (
        f"is a ledger of version {len(STEPS) + 2}, written by a newer release: this one reads up"
        f" to version {len(STEPS)}. Run that release, or restore an older copy"
    )


def test_a_step_that_fails_changes_nothing(used: Path) -> None:
    steps = (*STEPS, "DELETE FROM note; DELETE FROM missing")

    with pytest.raises(LedgerError, match="no such table: missing"):
        LedgerFile.open(used, steps=steps)

    assert contents(used).notes == {"n": "1"}


def test_a_negative_version_is_none_of_ours(used: Path) -> None:
    with closing(sqlite3.connect(used)) as other:
        other.execute("PRAGMA user_version = -1")

    assert "version -1" in refusal(used)


# Damaged while it is in use.


def damage(books: FileBooks) -> None:
    """Write nonsense over where reservations are kept, and have the ledger read it anew."""
    books.intruder.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    page = books.count("SELECT rootpage FROM sqlite_master WHERE name = 'past'")
    with books.path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"nonsense" * 512)
    books.intruder.execute("REPLACE INTO fact VALUES ('touched', 1)")


def delete(books: FileBooks) -> None:
    books.path.unlink()


def replace(books: FileBooks) -> None:
    other = books.path.with_name("other")
    other.write_bytes(b"another file")
    other.rename(books.path)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damage, f"malformed. {DAMAGED}"),
        (delete, "the file was moved, replaced or deleted"),
        (replace, "the file was moved, replaced or deleted"),
    ],
)
def test_whatever_happens_to_the_file_nothing_is_acknowledged_that_is_not_in_it(
    path: Path, harm: Callable[[FileBooks], None], reason: str
) -> None:
    with closing(FileBooks(path)) as books:
        books.settle("a", Charge("minute", NOON, 5))
        books.reserve("b", tokens(50))

        harm(books)

        for _ in range(3):
            assert books.settle("b", Charge("minute", NOON, 5)) == "unavailable"
            assert reason in books.ledger.health()
        assert books.sums(tokens(0)) == (5, 50)
        assert isinstance(books.reserve("c", tokens(45)), Reserved)
