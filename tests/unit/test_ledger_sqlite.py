"""extproc/ledger/sqlite.py, sqlite_writer.py and unwritten.py"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from extproc.ledger import notes, sqlite, sqlite_writer, unwritten
from extproc.ledger.accounts import KEPT_SECONDS_MIN, WINDOW_SECONDS_MAX
from extproc.ledger.bounds import Bounds, Pace
from extproc.ledger.port import OpenLedger, Standing, Sum
from extproc.ledger.sqlite import SqliteLedger
from extproc.policy.budgets import (
    Balance,
    Charge,
    Claim,
    Denied,
    Reserve,
    Reserved,
    Settlement,
    Unavailable,
)
from extproc.policy.windows import Window
from tests.ledger_books import (
    DAY,
    NOON,
    RESERVATION_SECONDS,
    UNDISTURBED,
    Clock,
    money,
    slot,
    tokens,
)
from tests.ledger_contract import LedgerContract
from tests.ledger_files import PATIENCE_SECONDS, FileBooks, until

NOTHING = tokens(0)
MONTH = Window(calendar="month")
MONTH_START = MONTH.span(NOON).start
MONTH_END = MONTH.span(NOON).end


class TestSqliteLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _in_a_folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "ledger.db"

    def opened(
        self, clock: Clock, reservation_seconds: float
    ) -> AbstractAsyncContextManager[OpenLedger]:
        return SqliteLedger.open(self.path, clock, reservation_seconds)


NewBooks = Callable[..., FileBooks]


@pytest.fixture
def new_books(tmp_path: Path) -> Iterator[NewBooks]:
    with ExitStack() as opened:

        def new(**options: Any) -> FileBooks:
            books = FileBooks(tmp_path / "ledger.db", **options)
            opened.callback(books.close)
            return books

        yield new


@pytest.fixture
def books(new_books: NewBooks) -> FileBooks:
    return new_books()


def settlement(name: str, amount: int = 1, start: float = NOON) -> Settlement:
    return Settlement(name, "acme", (Charge("minute", start, amount),))


def month(amount: int, *, of: int = 1000) -> Claim:
    return Claim("month", "usd", of, MONTH, amount, amount)


# Restarted. What a process leaves behind is the same, whether it ends or is killed.

Restart = Callable[[FileBooks], None]
restarts = pytest.mark.parametrize("restart", [FileBooks.restart, FileBooks.kill])


@restarts
def test_what_was_settled_stays(books: FileBooks, restart: Restart) -> None:
    books.reserve("a", tokens(70), money(9), slot())
    books.settle("a", Charge("minute", NOON, 60), Charge("day", NOON, 5))
    before = books.ledger.sums()

    restart(books)

    assert books.sums(NOTHING) == (60, 0)
    assert isinstance(books.reserve("b", tokens(41)), Denied)
    assert sorted(books.ledger.sums()) == sorted(s for s in before if s.budget != "slots")


@restarts
def test_what_comes_again_after_it_counts_once(books: FileBooks, restart: Restart) -> None:
    books.settle_all(*[settlement(f"r{number}") for number in range(1200)])

    restart(books)

    again = books.settle_all(*[settlement(f"r{number}") for number in range(1201)])
    assert set(again[:1200]) == {"repeated"}
    assert again[1200] == "unknown"
    assert books.sums(NOTHING) == (1201, 0)


@restarts
def test_a_reservation_that_was_lost_with_its_process_is_charged_to_the_window_it_names_once(
    books: FileBooks, restart: Restart
) -> None:
    books.reserve("a", tokens(70), slot())
    restart(books)
    assert (books.sums(NOTHING), books.sums(slot())) == ((0, 0), (0, 0))

    books.clock.now += 60
    assert books.settle("a", Charge("minute", NOON, 20), Charge("slots", 0, 1)) == "unknown"
    assert books.settle("a", Charge("minute", NOON, 20)) == "repeated"

    assert (books.sums(NOTHING, at=NOON), books.sums(NOTHING)) == ((20, 0), (0, 0))


@restarts
def test_what_expired_before_it_is_replaced_once(books: FileBooks, restart: Restart) -> None:
    books.reserve("a", money(700, expected=300), tokens(9), slot())
    books.reserve("b", month(70))
    books.clock.now += RESERVATION_SECONDS
    books.settle_all()

    restart(books)

    assert books.sums(money(0)) == (300, 0)
    charges = (Charge("day", NOON, 500), Charge("slots", NOON, 1), Charge("month", MONTH_START, 2))
    assert books.settle("a", *charges) == "late"
    assert books.settle("a", *charges) == "repeated"
    restart(books)
    assert books.settle("a", *charges) == "repeated"
    assert books.sums(money(0)) == (500, 0)
    assert books.sums(month(0)) == (72, 0)
    assert books.sums(NOTHING, at=NOON) == (0, 0)
    assert [s.budget for s in books.ledger.sums() if s.budget == "slots"] == []


@restarts
def test_what_expired_expecting_nothing_is_charged_by_its_settlement(
    books: FileBooks, restart: Restart
) -> None:
    books.reserve("a", money(700, expected=0))
    books.clock.now += RESERVATION_SECONDS
    books.settle_all()
    restart(books)

    assert books.settle("a", Charge("day", 0, 500), tenant="another") == "late"

    assert books.sums(money(0)) == (500, 0)


def test_what_expires_is_written_when_it_closes_if_not_before(books: FileBooks) -> None:
    books.reserve("a", money(700, expected=300))
    books.clock.now += RESERVATION_SECONDS

    books.restart()

    assert books.sums(money(0)) == (300, 0)
    assert books.settle("a", Charge("day", NOON, 500)) == "late"


def test_what_expired_and_was_settled_in_one_transaction_is_charged_once(books: FileBooks) -> None:
    books.reserve("a", money(700, expected=300))
    books.clock.now += RESERVATION_SECONDS

    assert books.settle("a", Charge("day", NOON, 500)) == "late"

    books.kill()
    assert books.sums(money(0)) == (500, 0)
    assert books.settle("a", Charge("day", NOON, 500)) == "repeated"


@restarts
def test_notes_stay(books: FileBooks, restart: Restart) -> None:
    books.settle_all(notes={"a": "1", "b": "2"})
    books.settle_all(settlement("x"), notes={"a": "3", "b": None, "ü": "€"})

    restart(books)

    assert books.ledger.notes("") == {"a": "3", "ü": "€"}


@restarts
def test_a_window_that_is_over_can_be_read_as_long_as_before(
    books: FileBooks, restart: Restart
) -> None:
    books.settle_all(settlement("a", 7))
    books.reserve("b", tokens(1))  # tells how long the window is
    books.settle("b")
    books.clock.now = NOON + 60 + KEPT_SECONDS_MIN - 1
    restart(books)
    assert books.sums(NOTHING, at=NOON) == (7, 0)

    books.clock.now += 1
    books.settle_all()
    assert books.sums(NOTHING, at=NOON) == (0, 0)
    books.settle_all()
    assert books.count("SELECT count(*) FROM account") == 0


def test_a_name_that_is_over_and_held_anew_after_a_restart_is_charged_once(
    books: FileBooks,
) -> None:
    books.settle_all(settlement("a", 7))
    books.restart()
    books.reserve("a", tokens(50))

    assert books.settle("a", Charge("minute", NOON, 50)) == "repeated"

    assert books.sums(NOTHING) == (7, 0)


# While it is written.


async def _settling(books: FileBooks, *settlements: Settlement) -> asyncio.Task[Any]:
    """Let a batch get as far as to be decided but not written. Not for the name `probe`."""
    batch = (*settlements, Settlement("probe", "acme", ()))
    task = asyncio.ensure_future(books.ledger.settle(batch))
    holdings = books.ledger._holdings  # noqa: SLF001  # nobody else knows
    await until(lambda: "probe" in holdings._settling)  # noqa: SLF001  # the same
    return task


@pytest.fixture
def slow(new_books: NewBooks) -> FileBooks:
    """Books of which a write waits until the intruder is gone."""
    return new_books(pace=UNDISTURBED._replace(busy=60))


def test_what_is_being_settled_is_held_until_it_is_written(slow: FileBooks) -> None:
    slow.reserve("a", tokens(70))

    async def run() -> None:
        slow.block()
        task = await _settling(slow, settlement("a", 20))
        ask = Reserve("b", "acme", (tokens(31),))
        assert isinstance(await slow.ledger.reserve(ask), Denied)
        assert [s[-2:] for s in slow.ledger.sums()] == [(0, 70)]
        slow.unblock()
        assert (await task)[0] == "settled"

    slow.run(run())
    assert slow.sums(NOTHING) == (20, 0)


def test_what_is_being_settled_does_not_expire(slow: FileBooks) -> None:
    for name in "abc":
        slow.reserve(name, money(100, expected=90))

    async def run() -> None:
        slow.block()
        task = await _settling(slow, *[Settlement("b", "acme", (Charge("day", NOON, 5),))])
        slow.clock.now += RESERVATION_SECONDS
        (standing,) = await slow.ledger.standing("acme", [money(0)])
        assert (standing.committed, standing.reserved) == (180, 100)
        slow.unblock()
        assert (await task)[0] == "settled"

    slow.run(run())
    assert slow.ledger.expired == 2
    assert slow.sums(money(0)) == (185, 0)
    slow.settle_all()
    slow.kill()
    assert slow.sums(money(0)) == (185, 0)


def test_what_is_being_settled_cannot_be_given_back(slow: FileBooks) -> None:
    slow.reserve("a", tokens(70))

    async def run() -> None:
        slow.block()
        task = await _settling(slow, settlement("a", 20))
        await slow.ledger.release("a")
        assert [s[-2:] for s in slow.ledger.sums()] == [(0, 70)]
        slow.unblock()
        await task

    slow.run(run())
    assert slow.sums(NOTHING) == (20, 0)


def test_what_is_overdue_while_it_is_being_settled_stays_as_it_is(slow: FileBooks) -> None:
    slow.reserve("a", tokens(70))
    slow.reserve("b", money(70))

    async def run() -> None:
        slow.block()
        task = await _settling(slow, settlement("a", 20))
        slow.clock.now += RESERVATION_SECONDS + 50
        for _ in range(2):
            await slow.ledger.release("a")
            assert isinstance(
                await slow.ledger.reserve(Reserve("a", "acme", (tokens(70),))), Reserved
            )
        assert slow.ledger.size.held == 1
        slow.clock.now = NOON + 1  # and now the clock steps back
        assert isinstance(await slow.ledger.reserve(Reserve("c", "acme", (slot(),))), Reserved)
        slow.clock.now += RESERVATION_SECONDS
        assert await slow.ledger.standing("acme", [slot()]) == (
            Standing(Balance("slots", "concurrent_requests", 2, 2, None, None), 0, 0),
        )
        slow.unblock()
        assert (await task)[0] == "settled"

    slow.run(run())
    assert slow.ledger.expired == 2
    assert slow.sums(NOTHING, at=NOON) == (20, 0)


def test_what_is_being_settled_without_being_known_is_not_held(slow: FileBooks) -> None:
    async def run() -> None:
        slow.block()
        task = await _settling(slow, settlement("a", 20))
        ask = Reserve("a", "acme", (tokens(9),))
        assert isinstance(await slow.ledger.reserve(ask), Unavailable)
        slow.unblock()
        assert (await task)[0] == "unknown"

    slow.run(run())
    assert slow.sums(NOTHING) == (20, 0)


def test_batches_that_come_meanwhile_are_written_together(slow: FileBooks) -> None:
    async def run() -> None:
        slow.block()
        first = await _settling(slow, settlement("a", 20))
        before = slow.commits
        rest = [
            asyncio.ensure_future(slow.ledger.settle([settlement(name, 2)]))
            for name in ("a", "b", "c", "c", *map(str, range(200)))
        ]
        await asyncio.sleep(0)
        slow.unblock()
        assert (await first)[0] == "unknown"
        taken = [settled for (settled,) in await asyncio.gather(*rest)]
        assert taken == ["repeated", "unknown", "unknown", "repeated", *["unknown"] * 200]
        assert slow.commits == before + 2

    slow.run(run())
    assert slow.sums(NOTHING) == (20 + 2 * 202, 0)


def test_no_more_than_so_many_are_written_together(
    slow: FileBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "WRITTEN_TOGETHER_MAX", 10)

    async def run() -> None:
        slow.block()
        first = await _settling(slow)
        before = slow.commits
        rest = [
            asyncio.ensure_future(
                slow.ledger.settle([settlement(f"{batch}-{n}") for n in range(size)])
            )
            for batch, size in enumerate((5, 5, 1, 30, 1))
        ]
        await asyncio.sleep(0)
        slow.unblock()
        await asyncio.gather(first, *rest)
        assert slow.commits == before + 1 + 4

    slow.run(run())


def test_beyond_those_that_wait_a_batch_has_to_come_again(
    slow: FileBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "WAITING_MAX", 3)

    async def run() -> None:
        slow.block()
        first = await _settling(slow)
        many = [settlement(f"{n}") for n in range(5)]
        large = asyncio.ensure_future(slow.ledger.settle(many))
        await asyncio.sleep(0)
        assert await slow.ledger.settle([settlement("a")]) == ("unavailable",)
        slow.unblock()
        await first
        assert await large == ("unknown",) * 5
        assert await slow.ledger.settle([settlement("a")]) == ("unknown",)

    slow.run(run())


def test_notes_that_wait_together_have_room_together(
    slow: FileBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "NOTES_MAX", 2)

    async def run() -> None:
        slow.block()
        first = await _settling(slow)
        changes: list[dict[str, str | None]] = [{"a": "", "b": ""}, {"c": ""}, {"a": None}]
        rest = [
            asyncio.ensure_future(slow.ledger.settle([settlement(f"{number}")], change))
            for number, change in enumerate([*changes, changes[1]])
        ]
        await asyncio.sleep(0)
        slow.unblock()
        await first
        taken = [settled for (settled,) in await asyncio.gather(*rest)]
        assert taken == ["unknown", "unavailable", "unknown", "unknown"]

    slow.run(run())
    assert slow.ledger.notes("") == {"b": "", "c": ""}


def test_whoever_gives_up_waiting_finds_it_written(slow: FileBooks) -> None:
    async def run() -> None:
        slow.block()
        first = await _settling(slow, settlement("a"))
        second = asyncio.ensure_future(slow.ledger.settle([settlement("b")]))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        slow.unblock()
        assert await slow.ledger.settle([settlement("a"), settlement("b")]) == ("repeated",) * 2

    slow.run(run())
    assert slow.sums(NOTHING) == (2, 0)


def test_all_that_waits_is_written_when_it_closes(slow: FileBooks) -> None:
    async def run() -> None:
        slow.block()
        await _settling(slow, settlement("a"))
        asyncio.ensure_future(slow.ledger.settle([settlement("b")]))  # noqa: RUF006  # below
        await asyncio.sleep(0)
        slow.unblock()

    slow.run(run())
    slow.restart()
    assert slow.sums(NOTHING) == (2, 0)


def test_what_falls_due_while_the_last_batch_is_written_is_charged(slow: FileBooks) -> None:
    slow.reserve("a", money(100, expected=90))

    async def run() -> None:
        slow.block()
        await _settling(slow)
        slow.clock.now += RESERVATION_SECONDS
        end = asyncio.ensure_future(slow.end())
        await asyncio.sleep(0)
        slow.unblock()
        await end

    slow.run(run())
    slow.restart()
    assert slow.sums(money(0)) == (90, 0)


def test_after_it_closes_nothing_is_taken(books: FileBooks) -> None:
    ledger = books.ledger
    books.restart()

    assert books.run(ledger.settle([settlement("a")])) == ("unavailable",)


# Where nothing can be written.


def test_a_batch_that_cannot_be_written_changes_nothing(books: FileBooks) -> None:
    books.reserve("a", tokens(70))
    books.settle_all(settlement("z"), notes={"n": "1"})
    books.block()

    taken = books.settle_all(settlement("a", 5), settlement("b"), settlement("z"), notes={"n": "2"})

    assert taken == ("unavailable",) * 3
    assert books.ledger.health() == (
        f"{books.path}: database is locked. Another program has locked it: end that"
    )
    assert books.sums(NOTHING) == (1, 70)
    assert books.ledger.notes("") == {"n": "1"}

    books.unblock()
    again = books.settle_all(settlement("a", 5), settlement("b"), settlement("z"), notes={"n": "2"})
    assert again == ("settled", "unknown", "repeated")
    assert books.ledger.health() == ""
    assert books.sums(NOTHING) == (7, 0)
    assert books.ledger.notes("") == {"n": "2"}


def test_what_could_not_be_settled_expires_as_any_other(books: FileBooks) -> None:
    for name in "abc":
        books.reserve(name, money(100, expected=90))
    books.block()
    books.settle("b", Charge("day", NOON, 5))
    books.clock.now += RESERVATION_SECONDS

    assert books.sums(money(0)) == (270, 0)
    assert books.settle("b", Charge("day", NOON, 5)) == "unavailable"
    assert books.sums(money(0)) == (270, 0)

    books.unblock()
    assert books.settle("b", Charge("day", NOON, 5)) == "late"
    books.kill()
    assert books.sums(money(0)) == (185, 0)


def test_what_falls_due_while_its_settlement_fails_is_held_a_while_longer(
    new_books: NewBooks,
) -> None:
    books = new_books(pace=UNDISTURBED._replace(busy=0.3))
    books.reserve("a", money(100, expected=90))
    books.clock.now += 50
    books.reserve("b", money(10, expected=9))

    async def run() -> None:
        books.block()
        task = await _settling(books, Settlement("a", "acme", (Charge("day", NOON, 5),)))
        books.clock.now = NOON + RESERVATION_SECONDS
        await books.ledger.standing("acme", [money(0)])
        assert (await task)[0] == "unavailable"

    books.run(run())
    books.clock.now = NOON + RESERVATION_SECONDS + 49
    assert books.sums(money(0)) == (0, 110)
    books.clock.now += 1
    assert books.sums(money(0)) == (99, 0)


def test_what_memory_has_forgotten_before_it_could_be_written_is_known(
    new_books: NewBooks,
) -> None:
    books = new_books(bounds=Bounds(remembered=1))
    for name in "ab":
        books.reserve(name, money(100, expected=90))
    books.clock.now += RESERVATION_SECONDS
    assert books.sums(money(0)) == (180, 0)
    assert books.ledger.size.remembered == 1

    assert books.settle("a", Charge("day", NOON, 5)) == "late"

    assert books.sums(money(0)) == (95, 0)


def test_reservations_go_on_from_memory(new_books: NewBooks) -> None:
    books = new_books(when_unavailable="allow")
    books.settle_all(settlement("a", 60))
    books.block()
    books.settle_all(settlement("b", 60))

    assert isinstance(books.reserve("c", tokens(40)), Reserved)
    assert isinstance(books.reserve("d", tokens(1)), Denied)


def test_reservations_are_unavailable_where_that_is_wished(new_books: NewBooks) -> None:
    books = new_books(when_unavailable="deny")
    assert isinstance(books.reserve("a", tokens(1)), Reserved)
    books.block()
    books.settle_all(settlement("a"))

    denied = Unavailable(books.ledger.health(), "deny")
    assert books.reserve("c", tokens(40)) == denied
    assert books.peek("c", tokens(40)) == denied
    assert books.ledger.without_store == {"deny": 1}

    books.unblock()
    books.settle_all()
    assert isinstance(books.reserve("c", tokens(40)), Reserved)


def test_a_disk_that_does_not_answer_is_no_longer_well(new_books: NewBooks) -> None:
    books = new_books(pace=UNDISTURBED._replace(busy=60, slow=0.01), when_unavailable="deny")

    async def run() -> None:
        books.block()
        task = await _settling(books)
        await until(lambda: bool(books.ledger.health()))
        assert books.ledger.health() == f"{books.path}: the disk has not answered for 0 s"
        ask = Reserve("a", "acme", (tokens(1),))
        assert isinstance(await books.ledger.reserve(ask), Unavailable)
        books.unblock()
        await task
        assert books.ledger.health() == ""

    books.run(run())


def test_it_gets_well_without_being_asked(new_books: NewBooks) -> None:
    books = new_books(pace=Pace(busy=0, tick=0.01), when_unavailable="deny")
    books.block()
    books.settle_all(settlement("a"))

    async def run() -> None:
        await until(lambda: not books.ledger.health())

    books.unblock()
    books.run(run())
    assert isinstance(books.reserve("c", tokens(40)), Reserved)


def test_what_expires_is_written_soon_though_nobody_asks(new_books: NewBooks) -> None:
    books = new_books(pace=Pace(tick=0.01))
    books.reserve("a", money(700, expected=300))
    books.clock.now += RESERVATION_SECONDS

    async def run() -> None:
        await until(lambda: books.count("SELECT count(*) FROM past") == 1)

    books.run(run())
    assert books.count("SELECT committed FROM account") == 300


def test_it_says_so_when_it_begins_and_when_it_ends(
    books: FileBooks, caplog: pytest.LogCaptureFixture
) -> None:
    (made,) = caplog.get_records("setup")
    assert made.message == f"a new ledger, with empty budgets, was made at {books.path}"
    books.block()
    books.settle_all(settlement("a"))
    books.settle_all(settlement("a"))
    books.unblock()
    books.settle_all(settlement("a"))
    books.restart()

    said = [(record.levelno, record.message.partition(":")[0]) for record in caplog.records]
    assert said == [
        (logging.ERROR, "the ledger can't be written"),
        (logging.WARNING, "the ledger is written again"),
    ]


def test_what_cannot_be_written_at_the_end_is_said(
    books: FileBooks, caplog: pytest.LogCaptureFixture
) -> None:
    books.reserve("a", money(700, expected=300))
    books.clock.now += RESERVATION_SECONDS
    books.block()

    books.run(books.end())

    assert "1 expired reservations were not written" in caplog.text
    books.restart()
    assert books.sums(money(0)) == (0, 0)


def test_beyond_what_waits_to_be_written_no_reservations_are_taken(
    books: FileBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "UNWRITTEN_MAX", 2)
    for name in "ab":
        books.reserve(name, money(10))
    books.clock.now += RESERVATION_SECONDS
    books.ledger.sums()

    assert books.reserve("c", money(10)) == Unavailable("2 expired reservations wait to be written")

    books.settle_all()
    assert isinstance(books.reserve("c", money(10)), Reserved)


def test_more_than_are_written_at_once_are_written_one_after_another(
    books: FileBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unwritten, "WRITTEN_AT_ONCE", 10)
    for number in range(25):
        books.reserve(f"r{number}", money(10, expected=2))
    books.clock.now += RESERVATION_SECONDS

    assert books.settle("r24", Charge("day", NOON, 1)) == "late"
    assert books.count("SELECT count(*) FROM past") == 11
    assert books.count("SELECT committed FROM account") == 21

    books.restart()
    assert books.count("SELECT count(*) FROM past") == 25
    assert books.sums(money(0)) == (49, 0)


def test_a_bug_lets_nobody_wait(books: FileBooks, caplog: pytest.LogCaptureFixture) -> None:
    books.settle_all(settlement("a"))

    def broken() -> float:
        msg = "no time"
        raise RuntimeError(msg)

    books.ledger._unwritten.clock = broken  # noqa: SLF001  # as good a bug as any

    assert books.settle_all(settlement("b")) == ("unavailable",)
    assert books.settle_all(settlement("b")) == ("unavailable",)
    assert "a bug ended all writing: RuntimeError('no time')" in books.ledger.health()
    assert "Traceback" in caplog.text
    assert books.sums(NOTHING) == (1, 0)
    books.restart()
    assert books.settle_all(settlement("a"), settlement("b")) == ("repeated", "unknown")


def test_a_bug_lets_nobody_wait_who_comes_after_it(
    slow: FileBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "WRITTEN_TOGETHER_MAX", 1)

    async def run() -> None:
        slow.block()
        first = await _settling(slow)
        rest = [asyncio.ensure_future(slow.ledger.settle([settlement(name)])) for name in "ab"]
        await asyncio.sleep(0)
        monkeypatch.setattr(slow.ledger._unwritten, "clock", None)  # noqa: SLF001  # a bug
        slow.unblock()
        assert await first == ("unknown",)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await asyncio.gather(*rest) == [("unavailable",), ("unavailable",)]

    slow.run(run())


# What is kept how long.


@pytest.fixture
def pruned(new_books: NewBooks) -> FileBooks:
    """Books that are pruned after every write, before the next."""
    return new_books(pace=UNDISTURBED._replace(prune=0))


def test_a_settlement_is_known_until_its_last_window_is_over_and_a_while_longer(
    pruned: FileBooks,
) -> None:
    books = pruned
    books.reserve("a", month(1))
    books.settle("a", Charge("month", MONTH_START, 1))
    books.settle("b", Charge("minute", NOON, 1))
    books.clock.now = MONTH_END + unwritten.ID_KEPT_SECONDS - 1
    books.restart()
    books.settle_all()
    books.settle_all()
    assert books.settle("a", Charge("month", MONTH_START, 1)) == "repeated"
    assert books.ledger.remembers_since() == 0.0
    books.clock.now += 1

    for _ in range(3):
        books.settle_all()

    assert books.ledger.remembers_since() == MONTH_END
    books.restart()
    assert books.ledger.remembers_since() == MONTH_END
    assert books.settle("a") == "unknown"


def test_the_file_is_looked_through_only_now_and_then(books: FileBooks) -> None:
    books.settle("a")
    books.clock.now += unwritten.ID_KEPT_SECONDS
    for _ in range(3):
        books.settle_all()

    assert books.count("SELECT count(*) FROM past") == 1


def test_what_expired_without_windows_is_known_for_two_hours(books: FileBooks) -> None:
    books.reserve("a", slot())
    books.clock.now += RESERVATION_SECONDS
    books.settle_all()

    until_ = books.clock.now + unwritten.ID_KEPT_SECONDS
    assert books.count("SELECT keep_until FROM past") == until_


def test_a_settlement_without_windows_is_known_for_two_hours(pruned: FileBooks) -> None:
    books = pruned
    books.settle("a")
    books.clock.now += unwritten.ID_KEPT_SECONDS - 1
    books.restart()
    for _ in range(3):
        books.settle_all()
    assert books.settle("a") == "repeated"
    books.clock.now += 1

    for _ in range(3):
        books.settle_all()

    books.restart()
    assert books.ledger.remembers_since() == NOON
    assert books.settle("a") == "unknown"


def test_what_a_reservation_held_counts_for_how_long_it_is_known(books: FileBooks) -> None:
    books.reserve("a", money(1))
    books.settle("a")
    books.reserve("b", money(1))
    books.clock.now += RESERVATION_SECONDS
    books.settle_all()

    until_ = DAY.span(NOON).end + unwritten.ID_KEPT_SECONDS
    assert books.count(f"SELECT count(*) FROM past WHERE keep_until = {until_:.0f}") == 2  # noqa: S608


def test_a_window_that_new_settings_make_longer_is_kept_longer(books: FileBooks) -> None:
    books.reserve("a", tokens(60))
    books.settle("a", Charge("minute", NOON, 60))
    longer = tokens(0)._replace(window=Window(seconds=3600))
    books.reserve("b", longer)
    books.settle_all()
    books.clock.now = NOON + 3600 + KEPT_SECONDS_MIN

    books.kill()

    assert books.sums(longer, at=NOON) == (60, 0)


@restarts
def test_a_window_of_which_only_the_start_is_known_lasts_as_long_as_those_before(
    books: FileBooks, restart: Restart
) -> None:
    books.settle_all(settlement("b", 1, NOON - 120))
    books.reserve("a", tokens(1))
    books.settle("a", Charge("minute", NOON, 1), Charge("unseen", NOON, 1))
    for name in ("c", "d"):
        restart(books)

        books.settle(name, Charge("minute", NOON + 60, 1), Charge("other", NOON, 1))

        spans = {(s.budget, s.start): s.end - s.start for s in books.ledger.sums()}
        assert spans == {
            ("minute", NOON - 120): WINDOW_SECONDS_MAX,
            ("minute", NOON): 60,
            ("unseen", NOON): WINDOW_SECONDS_MAX,
            ("other", NOON): WINDOW_SECONDS_MAX,
        }
    books.clock.now = NOON + 60
    assert Sum("acme", "minute", NOON + 60, NOON + 120, 2, 0) in books.ledger.sums()


def test_of_several_lengths_before_a_restart_the_longest_counts(books: FileBooks) -> None:
    for name, seconds in (("a", 60), ("b", 3600), ("c", 60)):
        claim = tokens(1)._replace(window=Window(seconds=seconds))
        answer = books.reserve(name, claim)
        assert isinstance(answer, Reserved)
        books.settle(name, Charge("minute", 0, 1))
        books.clock.now += {"a": 1200, "b": 1260, "c": 1}[name]
    books.restart()

    books.settle("d", Charge("minute", NOON + 3660, 1))

    assert books.count("SELECT max(window_end) FROM account") == NOON + 2 * 3600 + 60


def test_slots_leave_nothing_in_the_file(books: FileBooks) -> None:
    books.reserve("a", slot())
    books.release("a")
    books.clock.now += KEPT_SECONDS_MIN
    books.reserve("b", slot())

    books.settle_all()

    assert books.count("SELECT count(*) FROM account") == 0


def test_what_was_forgotten_does_not_come_again_with_what_expired_in_it(
    books: FileBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unwritten, "WRITTEN_AT_ONCE", 1)
    for tenant in ("umbra", "weyland"):
        books.reserve(tenant, tokens(9, expected=5), tenant=tenant)
        books.reserve(f"{tenant} 2", money(1), tenant=tenant)
    books.reserve("a", tokens(9, expected=5))
    for later in (100.0, 60 + KEPT_SECONDS_MIN):
        books.clock.now = NOON + later
        books.ledger.sums()
    assert books.settle_all(settlement("b", 2)) == ("unknown",)  # opens it anew
    for _ in range(5):
        assert (
            books.count("SELECT committed FROM account WHERE tenant = 'acme' AND budget = 'minute'")
            == 2
        )
        books.settle_all()


def test_an_account_that_was_forgotten_and_comes_again_begins_at_nothing(
    new_books: NewBooks,
) -> None:
    books = new_books(bounds=Bounds(accounts=1))
    books.settle_all(settlement("a", 7))
    books.reserve("b", tokens(1))
    books.release("b")
    books.clock.now = NOON + 60 + KEPT_SECONDS_MIN
    books.ledger.sums()

    books.settle_all(settlement("c", 2))

    books.kill()
    assert books.sums(NOTHING, at=NOON) == (2, 0)


def test_what_could_not_be_forgotten_in_the_file_is_forgotten_later(books: FileBooks) -> None:
    books.settle_all(settlement("a", 7))
    books.reserve("b", tokens(1))
    books.release("b")
    books.clock.now = NOON + 60 + KEPT_SECONDS_MIN
    books.block()
    books.settle_all()
    books.unblock()

    books.settle_all()

    assert books.count("SELECT count(*) FROM account") == 0


def test_what_cannot_be_opened_for_want_of_accounts_is_not_charged(new_books: NewBooks) -> None:
    books = new_books(bounds=Bounds(accounts=1))
    charges = (Charge("minute", NOON, 1), Charge("day", NOON, 1))

    taken = books.settle_all(Settlement("a", "acme", charges), settlement("b", 5), notes={"n": "1"})

    assert taken == ("unavailable", "unknown")
    assert books.ledger.notes("") == {}
    books.kill()
    assert books.sums(NOTHING) == (5, 0)
    assert books.settle_all(settlement("a", 2), settlement("b", 5)) == ("unknown", "repeated")
