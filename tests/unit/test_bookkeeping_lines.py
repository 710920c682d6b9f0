"""extproc/bookkeeping/lines.py and seen.py: audit files, whole, cut off and damaged."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from extproc.bookkeeping.lines import (
    LINE_BYTES_MAX,
    AuditLine,
    BooksError,
    Broken,
    check_files,
    parse,
    read_lines,
)
from extproc.bookkeeping.seen import nothing_seen
from extproc.policy.budgets import CHARGE_MAX, Charge, Settlement
from extproc.telemetry.audit import line_of
from tests.unit.test_audit import CALL

LINE = line_of(CALL)


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(LINE) | fields).encode() + b"\n"


def read(path: Path) -> list[AuditLine | Broken]:
    return list(read_lines([path]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def test_a_line_says_what_a_ledger_must_be_told() -> None:
    line = parse(LINE)

    assert line is not None
    assert line.ended == 1_789_041_602.623456
    assert line.settlement() == Settlement(
        "r1",
        "acme",
        (
            Charge("minute", 60.0, 120),
            Charge("month", 120.0, 4200),
            Charge("calls", 180.0, 1),
            Charge("slots", 0.0, 0),
        ),
    )


@pytest.mark.parametrize(
    "fields", [{"kind": "unattributed"}, {"kind": "refused"}, {"reservation": ""}, {"charges": []}]
)
def test_what_charged_nobody_has_no_settlement(fields: dict[str, Any]) -> None:
    line = parse(changed(**fields))

    assert line is not None
    assert line.settlement() is None


def test_a_call_may_take_no_time_and_cost_nothing() -> None:
    assert parse(changed(duration_ms=0, cost_micro_usd=0)) is not None


CHARGE = {"budget": "b", "unit": "usd", "window_start": 60, "amount": 1}


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"audit":1}\n',
        LINE[:-20],
        LINE.replace(b'"acme"', b'"\\ud800"'),
        changed(audit=2),
        changed(kind="other"),
        changed(started="2026-09-10T12:00:00"),
        changed(started="yesterday"),
        changed(duration_ms=-1),
        changed(cost_micro_usd=-1),
        changed(cost_micro_usd=1.5),
        changed(charges=[CHARGE | {"amount": -1}]),
        changed(charges=[CHARGE | {"amount": CHARGE_MAX + 1}]),
        changed(charges=[CHARGE | {"window_start": -1}]),
        changed(charges=[CHARGE | {"window_start": 1 << 40}]),
        changed(charges=[CHARGE | {"unit": "pounds"}]),
    ],
    ids=lambda line: repr(line[:12]),
)
def test_what_is_no_audit_line_is_named_by_its_place_and_not_quoted(
    path: Path, line: bytes
) -> None:
    path.write_bytes(LINE + line.rstrip(b"\n") + b"\n" + LINE)

    before, broken, after = read(path)

    assert broken == Broken(str(path), 2, "no audit line")
    assert before == after == parse(LINE)


def test_a_last_line_that_is_cut_off_is_said_to_be(path: Path) -> None:
    path.write_bytes(LINE + LINE[:100])

    assert read(path)[1] == Broken(str(path), 2, "cut off")


def test_a_last_line_without_its_end_is_read_if_it_is_whole(path: Path) -> None:
    path.write_bytes(LINE.rstrip())

    assert read(path) == [parse(LINE)]


def test_what_else_the_service_prints_is_passed_over(path: Path) -> None:
    changed = b'{"budget_change":1,"change":"granted"}\n'
    path.write_bytes(b"listening on 0.0.0.0:50051\n\n  \n" + changed + LINE)

    assert read(path) == [parse(LINE)]


def test_a_line_without_end_takes_no_memory_and_spoils_no_other(path: Path) -> None:
    path.write_bytes(b"x" * (3 * LINE_BYTES_MAX) + b"\n" + LINE)

    broken, line = read(path)

    assert broken == Broken(str(path), 1, "cut off")
    assert line == parse(LINE)


def test_a_line_that_just_fits_is_no_longer_one(path: Path) -> None:
    fitting = LINE.rstrip().ljust(LINE_BYTES_MAX - 1) + b"\n"
    path.write_bytes(fitting + LINE)

    assert read(path) == [parse(LINE), parse(LINE)]


def test_compressed_files_are_read_by_what_is_in_them(path: Path) -> None:
    path.write_bytes(gzip.compress(LINE * 3))

    assert read(path) == [parse(LINE)] * 3


def test_a_compressed_file_that_ends_early_is_read_as_far_as_it_goes(path: Path) -> None:
    path.write_bytes(gzip.compress(LINE) + gzip.compress(LINE)[:-30])

    line, broken = read(path)

    assert line == parse(LINE)
    assert broken == Broken(str(path), 2, "the file can't be read from here on")


def test_a_compressed_file_that_is_damaged_does_not_end_the_rest(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.gz", tmp_path / "good"
    data = bytearray(gzip.compress(LINE))
    data[40] ^= 0xFF
    bad.write_bytes(data)
    good.write_bytes(LINE)

    found = list(read_lines([bad, good]))

    assert isinstance(found[0], Broken)
    assert found[-1] == parse(LINE)


def test_an_empty_file_has_no_lines(path: Path) -> None:
    path.touch()

    assert read(path) == []


def test_files_that_are_not_there_are_named_before_anything_is_done(
    path: Path, tmp_path: Path
) -> None:
    path.write_bytes(LINE)
    with pytest.raises(BooksError, match=r"none: No such file"):
        check_files([path, tmp_path / "none"])
    with pytest.raises(BooksError, match="Is a directory"):
        check_files([tmp_path])


def test_a_name_is_new_once() -> None:
    with nothing_seen() as seen:
        names = [str(number) for number in range(2000)]

        assert all(map(seen.add, names))
        assert not any(map(seen.add, names))
        assert seen.add("\ud800")
