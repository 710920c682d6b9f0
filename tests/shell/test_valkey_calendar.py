"""The window that the store's clock chooses is the one that the policy's calendar says.

The scripts know no calendar: a replica names the windows around its own time, and the store takes
the one that lies around its. Here the replica's clock is wrong, and the store's is imposed.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import product
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from valkey import Valkey

from extproc.ledger.lease_book import Book
from extproc.ledger.lease_messages import Instant, Keeping, Question, Rules, micros
from extproc.policy.budgets import Answer, Claim, Reserve, Reserved
from extproc.policy.windows import Window
from tests import valkeys
from tests.lease_world import CONTACT, World

KEEPING: Final = Keeping(reservation_seconds=600.0, remembered_seconds=4000.0)
CALENDARS: Final = ("minute", "hour", "day", "week", "month", "year")
MOMENTS: Final = (
    ("UTC", "2027-02-28T23:59:59", "a month of 28 days ends"),
    ("UTC", "2028-02-28T23:59:59", "a leap day begins"),
    ("UTC", "2028-02-29T23:59:59", "a leap day ends"),
    ("UTC", "2027-12-31T23:59:59", "a year ends"),
    ("Asia/Shanghai", "2027-04-30T23:59:59", "a month ends, 8 hours before UTC's"),
    ("Pacific/Auckland", "2027-12-31T23:59:59", "a year ends while it is summer"),
    ("Asia/Kolkata", "2027-01-15T11:59:59", "an hour ends at half past"),
    ("Europe/Berlin", "2027-03-28T01:59:59", "the hour from 2 to 3 is skipped"),
    ("Europe/Berlin", "2027-10-31T01:59:59", "the hour from 2 to 3 comes twice"),
    ("Europe/Berlin", "2027-10-31T02:59:59", "and ends for the first time"),
    ("America/New_York", "2027-03-14T01:59:59", "the same, behind UTC"),
    ("America/New_York", "2027-11-07T01:59:59", "and back"),
    ("Australia/Lord_Howe", "2027-04-04T01:59:59", "half an hour comes twice"),
    ("America/Havana", "2027-03-13T23:59:59", "midnight is skipped"),
    ("America/Havana", "2027-11-07T00:59:59", "the hour after midnight comes twice"),
    ("Pacific/Apia", "2011-12-29T23:59:59", "a day is skipped"),
)
ROWS: Final = [
    pytest.param(zone, calendar, text, id=f"{zone} {calendar}: {about}")
    for (zone, text, about), calendar in product(MOMENTS, CALENDARS)
]
BESIDE: Final = (-1.0, 0.0, 0.999999, 1.0, 1.000001, 2.0, 1800.0, 3601.0)
"""Instants around each moment, in seconds."""

SKEWS: Final = (-30.0, 0.0, 30.0)
"""By how much the replica's clock is wrong."""


@pytest.fixture(scope="module")
def client() -> Iterator[Valkey]:
    with valkeys.running() as server, server.client as client:
        yield client


def claim(window: Window) -> Claim:
    return Claim("budget", "tokens", 10**9, window, 1, 1)


def contact(book: Book, name: str, window: Window, clock: float) -> Any:
    at = Instant(clock, clock)
    ask = Reserve(name, book.tenant, (claim(window),))
    book.ask(Question(ask, lambda _: None, at.steady, is_kept=True), at)
    found = book.compose(at)
    assert found is not None
    found.body["valid_until"] = micros(clock + 3600)  # however late: only windows matter here
    return found


def chosen(world: World, window: Window, now: float, skew: float) -> Reserved:
    """What the store reserves at `now` for a replica whose clock is wrong."""
    world.now = now
    book = Book(f"tenant{now}{skew}", "replica", KEEPING, Rules())
    asked = contact(book, "a", window, now + skew)
    ((_, answer),) = book.take(asked, world.call(CONTACT, book.tenant, asked.body), asked.sent)
    assert isinstance(answer, Reserved)
    return answer


@pytest.mark.parametrize(("zone", "calendar", "text"), ROWS)
def test_the_store_chooses_the_window_that_the_calendar_says(
    client: Valkey, zone: str, calendar: Any, text: str
) -> None:
    client.flushall()
    world = World(client, KEEPING, Rules())
    window = Window(calendar=calendar, timezone=zone)
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()

    for seconds, skew in product(BESIDE, SKEWS):
        now = moment + seconds
        span = window.span(round(now, 6))

        answer = chosen(world, window, now, skew)

        assert answer.window_starts == (span.start,), (seconds, skew)
        (balance,) = answer.balances
        assert balance.window_seconds == span.end - span.start
        assert balance.reset_seconds == pytest.approx(max(0.0, span.end - (now + skew)), abs=1e-3)


@pytest.mark.parametrize(("zone", "calendar", "text"), ROWS)
def test_what_is_settled_in_another_window_is_charged_to_that_of_its_admission(
    client: Valkey, zone: str, calendar: Any, text: str
) -> None:
    client.flushall()
    world = World(client, KEEPING, Rules())
    window = Window(calendar=calendar, timezone=zone)
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()
    before, after = window.span(moment).start, window.span(moment + 1).start
    world.now = moment
    book = Book("acme", "replica", KEEPING, Rules())
    for name in ("settled", "expired"):
        asked = contact(book, name, window, moment)
        book.take(asked, world.call(CONTACT, "acme", asked.body), asked.sent)

    world.now = moment + 1  # over the moment
    later = contact(book, "later", window, world.now)
    book.take(later, world.call(CONTACT, "acme", later.body), later.sent)
    assert world.settle("acme", "settled", [("budget", after, 5)]) == "settled"
    world.now = moment + KEEPING.reservation_seconds  # what nobody settled expires

    sums = {field: one[:2] for field, one in world.accounts("acme").items()}
    one_more = (0, 1) if before != after else None
    committed = {f"{micros(before)}:budget": (6, 0) if one_more else (6, 1)}
    if one_more:
        committed[f"{micros(after)}:budget"] = one_more
    assert sums == committed


def test_months_of_a_year_are_as_long_as_they_are(client: Valkey) -> None:
    """Each instant of a leap year, every six hours, in a zone that changes its clocks."""
    client.flushall()
    world = World(client, KEEPING, Rules())
    window = Window(calendar="month", timezone="America/New_York")
    at = datetime(2028, 1, 1, tzinfo=ZoneInfo("America/New_York")).timestamp()
    found: dict[float, float | None] = {}
    for number in range(4 * 366):
        answer: Answer = chosen(world, window, at + number * 21600.0, 0.0)
        assert isinstance(answer, Reserved)
        found[answer.window_starts[0]] = answer.balances[0].window_seconds

    days = [round((seconds or 0) / 86400, 3) for seconds in found.values()]
    hour = round(1 / 24, 3)
    assert days == [31, 29, round(31 - hour, 3), 30, 31, 30, 31, 31, 30, 31, 30 + hour, 31]
