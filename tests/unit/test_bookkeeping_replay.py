"""extproc/bookkeeping/replay.py: audit lines charged to a ledger that may know them."""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.bookkeeping import replay as module
from extproc.bookkeeping.lines import AuditLine, Broken, parse
from extproc.bookkeeping.replay import (
    BROKEN_NAMED_MAX,
    CLOCK_SKEW_SECONDS,
    OTHERS,
    Report,
    Tally,
    replay,
)
from extproc.bookkeeping.texts import ROWS_SHOWN, replay_text
from extproc.ledger.memory import MemoryLedger
from extproc.ledger.notes import unavailable
from extproc.ledger.port import NO_NOTES, NOTE_NAME_CHARS_MAX, OpenLedger
from extproc.ledger.remembered import REMEMBERED_SECONDS
from extproc.policy.budgets import Charge, Claim, Reserve, Settled, Settlement
from extproc.policy.windows import Window
from tests.ledger_books import NOON, Clock
from tests.unit.test_bookkeeping_lines import changed

HOUR = Window(seconds=3600)
SPENT = Claim("hour", "tokens", 10**9, HOUR, 0, 0)
BROKEN = Broken("a.log", 7, "no audit line")


def line(
    reservation: str = "r", amount: int = 10, *, start: float = NOON, tenant: str = "acme"
) -> AuditLine:
    charge = {"budget": "hour", "unit": "tokens", "window_start": int(start), "amount": amount}
    found = parse(changed(reservation=reservation, tenant=tenant, charges=[charge]))
    assert found is not None
    return found


def ledger(clock: Clock | None = None) -> MemoryLedger:
    return MemoryLedger(clock or Clock(), 100)


def replayed(ledger: OpenLedger, lines: Iterable[AuditLine | Broken]) -> Report:
    return asyncio.run(replay(ledger, lines))


def committed(ledger: OpenLedger, tenant: str = "acme") -> int:
    (standing,) = asyncio.run(ledger.standing(tenant, [SPENT]))
    return standing.committed


def test_a_ledger_that_knows_nothing_is_charged_all_of_it() -> None:
    empty = ledger()
    report = replayed(empty, [line("a", 10), line("b", 20), line("c", 5, tenant="other")])

    assert (committed(empty), committed(empty, "other")) == (30, 5)
    assert report.windows == {
        ("acme", "hour", "tokens", int(NOON)): Tally(charged=2, charged_amount=30),
        ("other", "hour", "tokens", int(NOON)): Tally(charged=1, charged_amount=5),
    }
    assert report.is_whole


def test_what_a_ledger_has_charged_is_not_charged_again() -> None:
    known = ledger()
    asyncio.run(known.settle([Settlement("a", "acme", (Charge("hour", NOON, 10),))]))
    report = replayed(known, [line("a", 10), line("b", 20)])

    assert committed(known) == 30
    assert report.requests == Tally(charged=1, known=1)
    assert report.is_whole


@given(st.lists(st.integers(0, 20), max_size=60), st.randoms(use_true_random=False))
def test_in_whatever_order_and_however_often_lines_come_each_call_is_charged_once(
    names: list[int], order: random.Random
) -> None:
    lines = [line(str(name), name) for name in names]
    order.shuffle(lines)
    empty = ledger()
    replayed(empty, lines)
    again = replayed(empty, reversed(lines))

    assert committed(empty) == sum(set(names))
    assert again.requests == Tally(known=len(names))


def test_a_charge_at_expiry_is_replaced() -> None:
    clock = Clock()
    books = ledger(clock)
    ask = SPENT._replace(amount=500, expected=400)
    asyncio.run(books.reserve(Reserve("a", "acme", (ask,))))
    clock.now += 200
    assert committed(books) == 400
    report = replayed(books, [line("a", 10)])

    assert committed(books) == 10
    assert report.requests == Tally(charged=1)


@pytest.fixture
def forgetful() -> tuple[MemoryLedger, Clock]:
    """A ledger that has forgotten one settlement, and says so."""
    clock = Clock()
    books = ledger(clock)
    clock.now = line().ended + CLOCK_SKEW_SECONDS
    asyncio.run(books.settle([Settlement("old", "acme", ())]))
    clock.now += REMEMBERED_SECONDS
    asyncio.run(books.settle([Settlement("new", "acme", ())]))
    assert books.remembers_since() == line().ended + CLOCK_SKEW_SECONDS
    return books, clock


def test_what_a_ledger_may_have_forgotten_is_not_charged_and_that_is_said(
    forgetful: tuple[MemoryLedger, Clock],
) -> None:
    books, _ = forgetful
    report = replayed(books, [line("old", 10), line("other", 7)])

    assert books.size.accounts == 0
    assert report.windows == {
        ("acme", "hour", "tokens", int(NOON)): Tally(too_old=2, too_old_amount=17)
    }
    assert not report.is_whole
    text = "\n".join(replay_text(report, is_dry=False))
    assert "2 too old to tell" in text
    assert "The ledger knows all settlements since 2026-09-10 12:01:02 only" in text


def test_clocks_may_differ_by_a_little(forgetful: tuple[MemoryLedger, Clock]) -> None:
    books, clock = forgetful
    since = books.remembers_since()
    early = line("a")
    ended = since + CLOCK_SKEW_SECONDS
    in_time = parse(changed(duration_ms=(ended - early.started.timestamp()) * 1000 + 1))
    too_early = parse(changed(duration_ms=(ended - early.started.timestamp()) * 1000 - 1))
    assert in_time is not None
    assert too_early is not None

    assert replayed(books, [in_time]).requests == Tally(charged=1)
    assert replayed(books, [too_early]).requests == Tally(too_old=1)
    assert clock.now > ended


def test_what_charged_nobody_is_passed_over() -> None:
    refused = parse(changed(kind="refused", charges=[]))
    assert refused is not None
    report = replayed(ledger(), [refused])

    assert (report.lines, report.requests, report.windows) == (1, Tally(), {})
    assert report.is_whole


def test_what_is_in_flight_has_no_window() -> None:
    slot = {"budget": "s", "unit": "concurrent_requests", "window_start": 0, "amount": 0}
    found = parse(changed(charges=[slot]))
    assert found is not None

    report = replayed(ledger(), [found])

    assert report.windows == {}
    assert report.requests == Tally(charged=1)


def test_broken_lines_are_counted_and_some_named() -> None:
    report = replayed(ledger(), [BROKEN] * (BROKEN_NAMED_MAX + 2) + [line()])

    assert report.broken == BROKEN_NAMED_MAX + 2
    assert report.broken_at == [BROKEN] * BROKEN_NAMED_MAX
    assert report.requests == Tally(charged=1)
    assert not report.is_whole
    text = list(replay_text(report, is_dry=False))
    assert "a.log:7: no audit line" in text
    assert "... and 2 more broken lines" in text


class Picky(MemoryLedger):
    """Keeps no name of more than a few characters."""

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        if any(len(settlement.reservation) > NOTE_NAME_CHARS_MAX for settlement in settlements):
            raise ValueError
        return await super().settle(settlements, notes)


def test_what_no_ledger_can_keep_does_not_hold_up_the_rest() -> None:
    books = Picky(Clock(), 100)
    report = replayed(books, [line("a"), line("x" * 600), line("b")])

    assert committed(books) == 20
    assert report.requests == Tally(charged=2, refused=1)
    assert not report.is_whole


class Full(MemoryLedger):
    """Takes nothing."""

    async def settle(
        self,
        settlements: Sequence[Settlement],
        notes: Mapping[str, str | None] = NO_NOTES,  # noqa: ARG002  # a ledger's
    ) -> tuple[Settled, ...]:
        return unavailable(settlements)

    def health(self) -> str:
        return "disk full"


def test_a_ledger_that_takes_no_more_ends_it() -> None:
    count = module.BATCH + 1
    report = replayed(Full(Clock(), 100), [line(str(number)) for number in range(count)])

    assert report.trouble == "disk full"
    assert report.requests == Tally(refused=module.BATCH)
    assert not report.is_whole
    assert "Stopped before the end: disk full" in list(replay_text(report, is_dry=False))


def test_more_windows_than_can_be_told_apart_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOWS_MAX", 2)
    lines = [line(str(number), start=NOON + 3600 * number) for number in range(5)]
    report = replayed(ledger(), lines)

    assert len(report.windows) == 3
    assert report.windows[OTHERS] == Tally(charged=3, charged_amount=30)


def test_progress_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_LINES", 2)
    told: list[int] = []
    asyncio.run(replay(ledger(), [line()] * 5, progress=told.append))

    assert told == [2, 4]


def test_there_is_no_end_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    empty = ledger()

    assert replayed(empty, [line(str(number)) for number in range(7)]).requests == Tally(charged=7)
    assert committed(empty) == 70


def test_people_get_a_table_and_programs_all_of_it() -> None:
    usd = {"budget": "month", "unit": "usd", "window_start": int(NOON), "amount": 1_500_000}
    money = parse(changed(reservation="m", tenant="a\x1b[2J", charges=[usd]))
    assert money is not None
    report = replayed(ledger(), [line("r", 12_345), money])

    head, first, second, total, dry = replay_text(report, is_dry=True)
    assert head.split("  ")[0] == "tenant"
    assert " ".join(first.split()) == "a?[2J month usd 2026-09-10 12:00:00 1 $1.5000 0 0 $0.0000 0"
    assert " ".join(second.split()) == "acme hour tokens 2026-09-10 12:00:00 1 12,345 0 0 0 0"
    assert total == (
        "2 audit lines: 2 requests charged, 0 known already, 0 too old to tell, 0 refused;"
        " 0 broken lines"
    )
    assert dry == "This was a dry run: nothing was changed."
    assert {line.index("2026") for line in (first, second)} == {head.index("window")}
    assert first.index("$1.5000") + 7 == second.index("12,345") + 6 == head.index("amount") + 6
    assert report.as_dict()["windows"][1] == {
        "tenant": "acme",
        "budget": "hour",
        "unit": "tokens",
        "window_start": int(NOON),
        "charged": 1,
        "charged_amount": 12_345,
        "known": 0,
        "too_old": 0,
        "too_old_amount": 0,
        "refused": 0,
    }


def test_a_long_table_is_cut_and_says_so() -> None:
    lines = [line(str(n), start=NOON + 3600 * n) for n in range(ROWS_SHOWN + 3)]
    text = list(replay_text(replayed(ledger(), lines), is_dry=False))

    assert "... and 3 more rows: --json has all" in text
    assert len(text) == 1 + ROWS_SHOWN + 2
