"""extproc/telemetry/audit.py and extproc/telemetry/lines.py: one line for each call."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.bookkeeping.lines import parse
from extproc.exchange.outcome import Noted, Outcome, Place, Timing, Trace
from extproc.exchange.settling import Bill, Summary, settlement_of
from extproc.llm.dialects import Dialect
from extproc.llm.usage import TOKENS_MAX, Usage
from extproc.telemetry import audit as module
from extproc.telemetry.audit import Audit, line_of, open_audit
from extproc.telemetry.lines import FileLines, StreamLines
from tests.unit.test_settling import HELD, NOWHERE, ended
from tests.unit.test_spans import BILL, TRACE_ID, called

CALL = Summary(called(), "call", BILL, "settled")


def told(summary: Summary) -> dict[str, Any]:
    """What the line says, read as any program would."""
    line = line_of(summary)
    assert line.endswith(b"\n")
    assert line.isascii()
    assert len(line.decode().splitlines()) == 1
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_a_line_says_everything_of_a_call() -> None:
    outcome = called(
        plan="gold",
        identity="header x-tenant-id",
        tier="standard",
        priority=1,
        temperature=0.5,
        output_tokens_max=64,
        downgraded_from="premium",
        reason="budget_exhausted",
        complexity=0.25,
        budget_warnings="month 0.8",
        place=Place("r", "c", "10.0.0.1:80", "pod;ns;svc;v1;k", 2),
        details="via_upstream",
    )._replace(path="/v1/chat/completions")

    assert told(Summary(outcome, "call", BILL, "settled")) == {
        "audit": 1,
        "started": "2026-09-10T12:00:00.123456Z",
        "kind": "call",
        "tenant": "acme",
        "identity": "header x-tenant-id",
        "plan": "gold",
        "dialect": "openai_chat",
        "path": "/v1/chat/completions",
        "requested_model": "gpt-4",
        "stream": True,
        "complexity": 0.25,
        "temperature": 0.5,
        "prompt_tokens_estimated": 90,
        "output_tokens_max": 64,
        "tier": "standard",
        "tier_model": "gpt-4",
        "priority": 1,
        "downgraded_from": "premium",
        "reason": "budget_exhausted",
        "budget_warnings": "month 0.8",
        "reservation": "r1",
        "held": [
            held("minute", "tokens", 500, 400, 60),
            held("month", "usd", 9000, 8000, 120),
            held("calls", "requests", 1, 1, 180),
            held("slots", "concurrent_requests", 1, 0, 0),
        ],
        "source": "usage",
        "model": "gpt-3.5-turbo",
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "cache_write_tokens": 10,
        "completion_tokens": 20,
        "reasoning_tokens": 5,
        "cost_micro_usd": 4200,
        "charges": [
            {"budget": "minute", "unit": "tokens", "window_start": 60, "amount": 120},
            {"budget": "month", "unit": "usd", "window_start": 120, "amount": 4200},
            {"budget": "calls", "unit": "requests", "window_start": 180, "amount": 1},
            {"budget": "slots", "unit": "concurrent_requests", "window_start": 0, "amount": 0},
        ],
        "settled": "settled",
        "route": "r",
        "cluster": "c",
        "host": "10.0.0.1:80",
        "workload": "pod;ns;svc;v1;k",
        "attempts": 2,
        "status": 200,
        "flags": "-",
        "details": "via_upstream",
        "aborted": False,
        "meter_error": "",
        "ttft_ms": 500.0,
        "duration_ms": 2500.0,
        "tokens_per_second": 10.0,
        "bytes_received": 1,
        "bytes_sent": 4000,
        "stream_id": "s",
        "trace_id": TRACE_ID,
    }


def held(budget: str, unit: str, amount: int, expected: int, start: int) -> dict[str, Any]:
    return {
        "budget": budget,
        "unit": unit,
        "amount": amount,
        "expected": expected,
        "window_start": start,
    }


def test_every_field_is_documented_and_nothing_else() -> None:
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    documented = [name.strip("` ") for row in rows for name in row.split("` `")]

    assert documented == list(told(CALL))


def test_a_refused_call_has_the_same_fields_and_no_usage() -> None:
    outcome = called(outcome="refused", reason="rate_limited", reservation="", reserved="")
    fields = told(Summary(outcome, "refused", None, None))

    assert list(fields) == list(told(CALL))
    assert fields["reason"] == "rate_limited"
    assert (fields["source"], fields["model"], fields["settled"]) == ("", "", "")
    assert (fields["prompt_tokens"], fields["cost_micro_usd"]) == (None, None)
    assert (fields["held"], fields["charges"]) == ([], [])


def test_what_was_held_and_can_not_be_read_is_null() -> None:
    fields = told(Summary(called(reserved="garbage"), "call", BILL, None))

    assert (fields["held"], fields["charges"]) == (None, [])


def test_an_unattributed_call_is_charged_to_nobody() -> None:
    outcome = called(outcome="", unattributed=True, dialect=None)._replace(path="/v1/messages")
    fields = told(Summary(outcome, "unattributed", BILL, None))

    assert (fields["charges"], fields["dialect"]) == ([], "anthropic_messages")


def test_only_a_stream_has_a_time_to_its_first_token() -> None:
    assert told(CALL._replace(outcome=called(stream=False)))["ttft_ms"] is None


def test_what_is_no_call_has_no_line() -> None:
    lines: list[bytes] = []
    Audit(lines.append).observe(CALL._replace(kind="other"))

    assert lines == []


HOSTILE = (
    "a\nb\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029",
    '","tenant":"other","x":"',
    "\ud800",
    "\x00\x1b[2J\x7f",
    "x" * 8192,
    "\U0001f600" * 8192,
)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:8]))
def test_nothing_a_client_sends_ends_a_line_or_makes_it_long(text: str) -> None:
    outcome = called(requested_model=text, reason=text, details=text, tier=text)
    outcome = outcome._replace(path=text, stream_id=text, place=Place(text, text, text, text, 1))
    line = line_of(Summary(outcome, "call", BILL, "settled"))

    assert told(Summary(outcome, "call", BILL, "settled"))["tenant"] == "acme"
    assert len(line) < 64 * 1024


def test_a_tenant_that_is_no_text_still_makes_one_line() -> None:
    assert told(CALL._replace(outcome=called(tenant="\ud800")))["tenant"] == "\ud800"


def test_numbers_that_json_does_not_have_are_null() -> None:
    outcome = called(complexity=float("nan"), temperature=float("inf"), started=1e300)
    fields = told(Summary(outcome, "call", BILL, "settled"))

    assert (fields["complexity"], fields["temperature"]) == (None, None)
    assert fields["started"] == "1970-01-01T00:00:00.000000Z"


TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(HOSTILE[:2])
NUMBER = st.integers(0, 1 << 53)
HOLDS = st.lists(
    st.builds(
        "{} {} {} {} {}".format,
        st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,62}", fullmatch=True),
        st.sampled_from(["tokens", "usd", "requests", "concurrent_requests"]),
        st.integers(0, 10**18 - 1),
        st.integers(0, 10**18 - 1),
        st.integers(0, 10**11 - 1),
    ),
    max_size=5,
).map(";".join)
SUMMARIES = st.builds(
    Summary,
    st.builds(
        Outcome,
        stream_id=TEXT,
        started=st.floats(0, 1e10),
        method=TEXT,
        path=TEXT,
        status=st.integers(0, 10**18),
        flags=TEXT,
        details=TEXT,
        bytes_received=NUMBER,
        bytes_sent=NUMBER,
        noted=st.builds(
            Noted,
            outcome=st.just("routed"),
            tenant=TEXT,
            reservation=TEXT,
            reserved=HOLDS | TEXT,
            requested_model=TEXT,
            dialect=st.none() | st.sampled_from(Dialect),
            stream=st.booleans(),
            complexity=st.floats(),
            temperature=st.none() | st.floats(),
        ),
        place=st.builds(Place, TEXT, TEXT, TEXT, TEXT, NUMBER),
        timing=st.builds(Timing, first_byte=st.none() | NUMBER, ended=NUMBER),
        trace=st.builds(Trace, TEXT, TEXT, st.booleans()),
    ),
    st.just("call"),
    st.builds(
        Bill,
        st.sampled_from(["usage", "estimated", "zero"]),
        TEXT,
        st.builds(Usage, *[st.integers(0, TOKENS_MAX)] * 5),
        st.integers(0, 10**18),
    ),
    st.sampled_from(["settled", "late", "unknown", "repeated"]) | st.none(),
)


@given(summary=SUMMARIES)
def test_any_call_is_one_line_that_reads_back_as_the_same_settlement(summary: Summary) -> None:
    told(summary)
    assert summary.bill is not None
    settlement = settlement_of(summary.outcome, summary.bill)

    read = parse(line_of(summary))

    assert read is not None
    assert read.settlement() == (settlement if settlement and settlement.charges else None)
    assert read.cost_micro_usd == summary.bill.cost_micro_usd


class Disk:
    """Takes lines while it has room."""

    def __init__(self, *, room: int) -> None:
        self.room = room
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        if self.room <= 0:
            raise OSError
        self.room -= 1
        self.lines.append(line)


def numbered(number: int) -> Summary:
    return CALL._replace(outcome=CALL.outcome._replace(stream_id=str(number)))


def numbers(lines: list[bytes]) -> list[int]:
    return [int(json.loads(line)["stream_id"]) for line in lines]


def test_lines_that_can_not_be_written_wait_and_come_in_order() -> None:
    disk = Disk(room=1)
    audit = Audit(disk.write)
    for number in range(3):
        audit.observe(numbered(number))
    assert (audit.waiting, audit.lost) == (2, 0)

    disk.room = 10
    audit.observe(numbered(3))

    assert (audit.waiting, audit.lost) == (0, 0)
    assert numbers(disk.lines) == [0, 1, 2, 3]


def test_what_waits_can_be_written_without_a_further_call() -> None:
    disk = Disk(room=0)
    audit = Audit(disk.write)
    audit.observe(CALL)
    disk.room = 1
    audit.flush()

    assert (len(disk.lines), audit.waiting) == (1, 0)


def test_no_more_lines_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    disk = Disk(room=0)
    audit = Audit(disk.write)
    for number in range(5):
        audit.observe(numbered(number))
    assert (audit.waiting, audit.lost) == (2, 3)

    disk.room = 10
    audit.flush()

    assert numbers(disk.lines) == [0, 1]


def test_at_the_end_what_waits_is_tried_once_more() -> None:
    disk = Disk(room=0)
    audit = Audit(disk.write)
    audit.observe(CALL)
    disk.room = 1
    audit.close()

    assert (len(disk.lines), audit.lost) == (1, 0)


def test_at_the_end_what_still_waits_is_lost() -> None:
    closed: list[bool] = []
    audit = Audit(Disk(room=0).write, lambda: closed.append(True))
    audit.observe(CALL)
    audit.close()

    assert (audit.waiting, audit.lost, closed) == (0, 1, [True])


def test_a_closed_file_object_fails_no_settlement(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        audit = Audit(file.write)
    audit.observe(CALL)

    assert audit.waiting == 1


def test_an_audit_that_is_off_writes_nothing(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    audit = open_audit("off")
    audit.observe(CALL)
    audit.close()

    assert capfdbinary.readouterr().out == b""
    assert not list(tmp_path.iterdir())
    assert (audit.lost, audit.waiting) == (0, 0)


def test_standard_output_gets_lines(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    audit = open_audit("stdout")
    audit.observe(CALL)
    audit.close()
    os.write(1, b"still open")

    assert capfdbinary.readouterr().out == line_of(CALL) + b"still open"


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for _ in range(2):
        audit = open_audit(str(path))
        audit.observe(CALL)
        audit.close()

    assert path.read_bytes() == 2 * line_of(CALL)
    assert path.stat().st_mode & 0o007 == 0


def test_a_file_that_can_not_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_audit(str(tmp_path / "none" / "audit.log"))


def test_a_line_that_a_dead_process_left_half_written_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(b'{"audit":1,"sta')
    FileLines(path).write(b"whole\n")

    assert path.read_bytes() == b'{"audit":1,"sta\nwhole\n'


@pytest.mark.parametrize("moved", [lambda path: path.rename(f"{path}.1"), Path.unlink])
def test_a_file_that_was_moved_away_is_begun_anew(
    tmp_path: Path, moved: Callable[[Path], object]
) -> None:
    path = tmp_path / "audit.log"
    lines = FileLines(path)
    lines.write(b"1\n")
    moved(path)
    lines.write(b"2\n")
    lines.write(b"3\n")

    assert path.read_bytes() == b"2\n3\n"


def test_a_folder_that_is_gone_for_a_while_loses_no_line(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    audit = open_audit(str(folder / "audit.log"))
    (folder / "audit.log").unlink()
    folder.rmdir()
    audit.observe(numbered(1))
    assert audit.waiting == 1

    folder.mkdir()
    (folder / "audit.log").touch()
    audit.observe(numbered(2))

    assert numbers((folder / "audit.log").read_bytes().splitlines()) == [1, 2]


def test_a_file_that_is_cut_back_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    lines = FileLines(path)
    lines.write(b"1\n")
    os.truncate(path, 0)
    lines.write(b"2\n")

    assert path.read_bytes() == b"2\n"


@pytest.fixture
def nearly_full(tmp_path: Path) -> Iterator[Path]:
    """A file that takes ten bytes more, as on a full disk, until the limit is lifted."""
    path = tmp_path / "audit.log"
    path.touch()
    os.truncate(path, FULL_BYTES - 10)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, limits[1]))
    yield path
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


FULL_BYTES = 1 << 30
"""Of a file without contents: no disk is needed for it."""


def make_room() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def test_on_a_full_disk_a_line_goes_on_where_it_stopped(nearly_full: Path) -> None:
    audit = open_audit(str(nearly_full))
    audit.observe(CALL)
    assert audit.waiting == 1
    make_room()
    audit.observe(CALL)
    audit.close()

    with nearly_full.open("rb") as file:
        file.seek(FULL_BYTES - 9)  # an end of line comes first: what was there had none
        assert file.read() == 2 * line_of(CALL)


def test_a_line_that_stopped_in_a_file_that_was_moved_is_written_whole(nearly_full: Path) -> None:
    audit = open_audit(str(nearly_full))
    audit.observe(CALL)
    nearly_full.rename(f"{nearly_full}.1")
    make_room()
    audit.flush()

    assert nearly_full.read_bytes() == line_of(CALL)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_reader_that_has_stopped_holds_up_nobody_and_tears_no_line(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    audit = Audit(StreamLines(writer).write)
    count = 0
    while not audit.waiting:
        audit.observe(numbered(count))
        count += 1
    assert count > 10

    read = os.read(reader, 1 << 20)
    audit.flush()
    read += os.read(reader, 1 << 20)

    assert audit.waiting == 0
    assert numbers(read.splitlines()) == list(range(count))


def test_a_reader_that_has_gone_fails_no_settlement() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    audit = Audit(StreamLines(writer).write)
    audit.observe(CALL)
    os.close(writer)

    assert audit.waiting == 1


def test_a_call_that_reached_nobody_is_written_down_too() -> None:
    fields = told(Summary(ended(place=NOWHERE, reserved=HELD), "call", BILL, "settled"))

    assert (fields["host"], fields["attempts"]) == ("", 0)


def test_a_changed_budget_has_a_line_of_its_own_and_waits_as_others_do() -> None:
    lines: list[bytes] = []
    is_full = True

    def write(line: bytes) -> None:
        if is_full:
            raise OSError
        lines.append(line)

    audit = Audit(write)
    audit.changed({"change": "granted", "reason": "\u2028 exam"})
    assert (audit.waiting, lines) == (1, [])
    is_full = False
    audit.flush()

    assert lines == [b'{"budget_change":1,"change":"granted","reason":"\\u2028 exam"}\n']
    assert parse(lines[0]) is None
