"""extproc/ledger/memory.py and extproc/ledger/accounts.py"""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext

import pytest

from extproc.ledger import accounts, holdings, remembered
from extproc.ledger.bounds import Bounds
from extproc.ledger.memory import MemoryLedger
from extproc.ledger.port import OpenLedger, Size
from extproc.policy.budgets import Charge, Claim, Denied, Reserved, Unavailable
from extproc.policy.windows import Window
from tests.ledger_books import DAY, NOON, RESERVATION_SECONDS, Books, Clock, money, slot, tokens
from tests.ledger_contract import LedgerContract


class TestMemoryLedger(LedgerContract):
    def opened(
        self, clock: Clock, reservation_seconds: float
    ) -> AbstractAsyncContextManager[OpenLedger]:
        return nullcontext(MemoryLedger(clock, reservation_seconds))


class Limited(Books):
    """Books of a memory ledger with limits of its own."""

    def __init__(self, **limits: int) -> None:
        super().__init__(lambda clock, seconds: nullcontext(self._new(clock, seconds, limits)))

    def _new(self, clock: Clock, seconds: float, limits: dict[str, int]) -> MemoryLedger:
        self.memory = MemoryLedger(clock, seconds, Bounds(**limits))
        return self.memory


NewBooks = Callable[..., Limited]


@pytest.fixture
def new_books() -> Iterator[NewBooks]:
    with ExitStack() as opened:

        def new(**limits: int) -> Limited:
            books = Limited(**limits)
            opened.callback(books.close)
            return books

        yield new


@pytest.fixture
def books(new_books: NewBooks) -> Limited:
    return new_books()


def test_beyond_its_reservations_a_ledger_takes_no_more(new_books: NewBooks) -> None:
    books = new_books(reservations=2)
    books.reserve("a", slot(of=9))
    books.reserve("b", slot(of=9))

    assert isinstance(books.reserve("c", slot(of=9)), Unavailable)
    assert books.sums(slot()) == (0, 2)

    books.release("a")
    assert isinstance(books.reserve("c", slot(of=9)), Reserved)


def test_reservations_that_have_expired_make_room_for_others(new_books: NewBooks) -> None:
    books = new_books(reservations=1)
    books.reserve("a", slot())
    books.clock.now += RESERVATION_SECONDS

    assert isinstance(books.reserve("b", slot()), Reserved)


def test_beyond_its_accounts_a_ledger_opens_no_more_and_holds_nothing(new_books: NewBooks) -> None:
    books = new_books(accounts=2)

    assert isinstance(books.reserve("a", tokens(1), money(1), slot()), Unavailable)
    assert books.memory.size == Size(held=0, remembered=0, accounts=2)
    assert books.sums(tokens(0)) == (0, 0)
    assert isinstance(books.reserve("a", tokens(1), money(1)), Reserved)


def test_what_cannot_be_charged_for_want_of_an_account_is_not_taken_at_all(
    new_books: NewBooks,
) -> None:
    books = new_books(accounts=1)
    books.reserve("a", tokens(5))

    settlement = ("a", Charge("minute", NOON, 5), Charge("day", NOON, 7))
    assert books.settle(*settlement) == "unavailable"
    assert books.sums(tokens(0)) == (0, 5)

    assert books.settle("a", Charge("minute", NOON, 5)) == "settled"


def test_beyond_what_it_remembers_a_ledger_forgets_the_oldest(new_books: NewBooks) -> None:
    books = new_books(remembered=2)
    for name in ("a", "b", "c"):
        books.settle(name, Charge("minute", NOON, 1))

    assert books.memory.size.remembered == 2
    assert books.ledger.remembers_since() == NOON
    assert books.settle("b") == "repeated"
    assert books.settle("a") == "unknown"


def test_an_account_counts_to_its_end_and_no_further(
    books: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "SUM_MAX", 100)
    books.settle("a", Charge("minute", NOON, 60))
    books.settle("b", Charge("minute", NOON, 60))
    assert books.sums(tokens(0)) == (100, 0)

    books.reserve("c", money(70, expected=70))
    books.reserve("d", money(60, expected=60))
    books.clock.now += RESERVATION_SECONDS
    assert books.sums(money(0)) == (100, 0)
    books.settle("c")
    assert books.sums(money(0)) == (30, 0)


def test_settlements_are_forgotten_after_a_while(books: Limited) -> None:
    for name in ("a", "b", "c"):
        books.settle(name, Charge("minute", NOON, 1))
    books.clock.now += remembered.REMEMBERED_SECONDS - 1
    assert books.settle("a") == "repeated"

    books.clock.now += 1
    books.settle("d")
    books.settle("e")

    assert books.memory.size.remembered == 2
    assert books.settle("d") == "repeated"


def test_a_late_settlement_is_remembered_from_then_on(books: Limited) -> None:
    books.reserve("a", tokens(1))
    books.clock.now += RESERVATION_SECONDS
    books.reserve("b", tokens(1))
    books.clock.now += remembered.REMEMBERED_SECONDS - 1
    assert books.settle("a") == "late"

    books.clock.now += remembered.REMEMBERED_SECONDS - 1
    books.settle("c")

    assert books.settle("a") == "repeated"


def test_what_was_settled_late_is_not_forgotten_before_what_expired_with_it(
    new_books: NewBooks,
) -> None:
    books = new_books(remembered=2)
    books.reserve("a", tokens(1))
    books.reserve("b", tokens(1))
    books.clock.now += RESERVATION_SECONDS
    books.settle("a")

    books.settle("c")

    assert books.settle("a") == "repeated"


def test_windows_that_are_over_are_forgotten(books: Limited) -> None:
    for minute in range(60):
        books.clock.now = NOON + 60 * minute
        books.reserve(f"r{minute}", tokens(1), slot(of=99))
        books.settle(f"r{minute}", Charge("minute", NOON + 60 * minute, 1))

    assert books.memory.size.accounts <= 10


def test_a_day_can_be_read_for_another_day(books: Limited) -> None:
    books.reserve("a", money(9))
    books.settle("a", Charge("day", NOON, 7))
    books.clock.now = DAY.span(NOON).end + 86399

    books.reserve("b", money(1))

    assert books.sums(money(0), at=NOON) == (7, 0)


def test_a_window_is_kept_while_something_is_held_in_it(new_books: NewBooks) -> None:
    books = new_books()
    ledger = MemoryLedger(books.clock, 10 * 3600.0)
    books.ledger = ledger
    books.reserve("a", tokens(9))
    for minute in range(1, 60):
        books.clock.now = NOON + 60 * minute
        books.reserve(f"r{minute}", tokens(1))
        books.release(f"r{minute}")

    assert books.sums(tokens(0), at=NOON) == (0, 9)
    assert ledger.size.accounts <= 10


def test_an_unknown_window_is_kept_as_long_as_it_may_last(books: Limited) -> None:
    month = Claim("month", "usd", 100, Window(calendar="month"), 0, 0)
    assert month.window is not None
    start = month.window.span(NOON).start
    books.settle("a", Charge("month", start, 100))
    books.clock.now = NOON + 5 * 86400

    books.reserve("b", tokens(1))

    assert isinstance(books.reserve("c", month._replace(amount=1)), Denied)


def test_an_unknown_charge_to_a_window_that_is_over_is_forgotten_with_it(books: Limited) -> None:
    books.clock.now += 3600
    books.reserve("a", tokens(1))
    for minute in range(10):
        books.settle(f"r{minute}", Charge("minute", NOON + 60 * minute, 1))
    books.clock.now += accounts.KEPT_SECONDS_MIN

    books.reserve("b", tokens(1))

    assert books.memory.size.accounts == 2


def test_slots_that_nobody_uses_are_forgotten(books: Limited) -> None:
    for number in range(20):
        books.reserve(f"r{number}", slot(), tenant=f"tenant{number}")
        books.release(f"r{number}")
    books.clock.now += accounts.KEPT_SECONDS_MIN

    books.reserve("a", slot(), tenant="tenant0")

    assert books.memory.size.accounts == 1
    assert books.sums(slot(), tenant="tenant0") == (0, 1)


def test_the_same_window_of_new_settings_is_the_same_window(books: Limited) -> None:
    books.reserve("a", tokens(60))
    books.clock.now += 1

    reloaded = tokens(41)._replace(window=Window(seconds=60))

    assert isinstance(books.reserve("b", reloaded), Denied)
    assert isinstance(books.reserve("c", tokens(40)), Reserved)


def test_another_window_of_new_settings_counts_by_itself(books: Limited) -> None:
    books.clock.now += 90
    books.reserve("a", tokens(60))

    longer = tokens(60)._replace(window=Window(seconds=300))

    answer = books.reserve("b", longer)
    assert isinstance(answer, Reserved)
    assert answer.balances[0].window_seconds == 300


def test_a_window_that_new_settings_make_longer_is_kept_longer(books: Limited) -> None:
    books.reserve("a", tokens(60))
    books.settle("a", Charge("minute", NOON, 60))
    longer = tokens(40)._replace(window=Window(seconds=3600))
    books.reserve("b", longer)
    books.release("b")
    books.clock.now = NOON + 60 + accounts.KEPT_SECONDS_MIN

    assert isinstance(books.reserve("c", longer._replace(amount=41)), Denied)
    assert isinstance(books.reserve("d", longer), Reserved)


def test_more_than_expire_in_one_call_still_free_room_when_it_is_wanted(books: Limited) -> None:
    many = 3 * holdings.EXPIRATIONS_PER_CALL
    for number in range(many):
        books.reserve(f"r{number}", slot(of=many))
    books.clock.now += RESERVATION_SECONDS

    assert isinstance(books.reserve("a", slot(of=1)), Reserved)
    assert books.memory.size.held == 1


def test_one_call_lets_no_more_expire_than_it_must(books: Limited) -> None:
    many = 3 * holdings.EXPIRATIONS_PER_CALL
    for number in range(many):
        books.reserve(f"r{number}", slot(of=many))
    books.clock.now += RESERVATION_SECONDS

    books.reserve("a", tokens(1))

    assert books.memory.size.held == many - holdings.EXPIRATIONS_PER_CALL + 1
    assert books.settle(f"r{many - 1}") == "late"
    assert books.memory.size.held == many - 2 * holdings.EXPIRATIONS_PER_CALL


def test_where_the_clock_steps_back_nothing_is_held_longer_than_what_came_after(
    books: Limited,
) -> None:
    books.clock.now = NOON + 86400 * 365
    books.reserve("a", slot(of=1))
    books.clock.now = NOON
    assert isinstance(books.reserve("b", slot(of=1)), Denied)
    books.reserve("c", tokens(1))

    books.clock.now += RESERVATION_SECONDS

    assert isinstance(books.reserve("b", slot(of=1)), Reserved)
