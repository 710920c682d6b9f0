"""Windows: which stretch of time an instant belongs to, for budgets that start anew."""

import datetime as dt
import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from extproc.policy.section import Section

Calendar = Literal["minute", "hour", "day", "week", "month", "year"]

_SKIPPED_SECONDS_MAX: Final = 2 * 86400
"""Where a zone crossed the date line, a clock change skipped a day."""


class Span(NamedTuple):
    """One window: from `start` (included) to `end` (not included), in seconds since 1970."""

    start: float
    end: float


class Window(Section, frozen=True, kw_only=True):
    """How long a budget lasts: `seconds`, aligned to 1970, or a `calendar` unit in a time zone.

    Its spans leave no gap and never overlap, whatever is done to the clocks of the zone.
    """

    seconds: Annotated[int, msgspec.Meta(ge=1, le=366 * 86400)] | None = None
    calendar: Calendar | None = None
    timezone: str = "UTC"

    def span(self, at: float) -> Span:
        """Return the window that `at`, in seconds since 1970, lies in.

        Spans begin and end at whole seconds. `at` lies between the years 2 and 9998.
        """
        whole = math.floor(at)
        if self.seconds is not None:
            start = float(whole - whole % self.seconds)
            return Span(start, start + self.seconds)
        zone = _zone(self.timezone)
        match self.calendar:
            case "minute":
                return _clock_span(zone, whole, 60)
            case "hour":
                return _clock_span(zone, whole, 3600)
            case _:
                return _day_span(self.calendar or "day", zone, whole)


_zone = lru_cache(maxsize=1024)(ZoneInfo)  # ZoneInfo's own cache forgets, and reads files anew


def _clock_span(zone: ZoneInfo, at: int, seconds: int) -> Span:
    """The local minute or hour: one that a clock change repeats is two, one it cuts is shorter."""
    offset = _offset(zone, at)
    start = at - (at + offset) % seconds
    end = start + seconds
    if _offset(zone, start) != offset:
        start = _first(start, at, lambda t: _offset(zone, t) == offset)
    if _offset(zone, end - 1) != offset:
        end = _first(at, end, lambda t: _offset(zone, t) != offset)
    return Span(float(start), float(end))


def _offset(zone: ZoneInfo, at: int) -> int:
    """Seconds that the local clock is ahead of UTC."""
    ahead = dt.datetime.fromtimestamp(at, zone).utcoffset() or dt.timedelta()
    return ahead.days * 86400 + ahead.seconds


def _day_span(calendar: Calendar, zone: ZoneInfo, at: int) -> Span:
    """The day or span of days.

    Where the clock is put back over midnight, the evening that comes again belongs to the day
    that had begun: days don't alternate.
    """
    day = dt.datetime.fromtimestamp(at, zone).date()
    span = _span_of_date(calendar, zone, day)
    if at >= span.end:
        return _span_of_date(calendar, zone, day + dt.timedelta(days=1))
    return span


@lru_cache(maxsize=4096)
def _span_of_date(calendar: Calendar, zone: ZoneInfo, day: dt.date) -> Span:
    match calendar:
        case "week":
            start = day - dt.timedelta(days=day.weekday())
            end = start + dt.timedelta(days=7)
        case "month":
            start = day.replace(day=1)
            end = (start + dt.timedelta(days=32)).replace(day=1)
        case "year":
            start = day.replace(month=1, day=1)
            end = start.replace(year=start.year + 1)
        case _:
            start = day
            end = day + dt.timedelta(days=1)
    return Span(float(_day_start(start, zone)), float(_day_start(end, zone)))


def _day_start(day: dt.date, zone: ZoneInfo) -> int:
    """The first instant of a local day; where midnight is skipped, the first that exists."""

    def has_begun(at: int) -> bool:
        return dt.datetime.fromtimestamp(at, zone).date() >= day

    midnight = int(dt.datetime.combine(day, dt.time(), zone).timestamp())
    if not has_begun(midnight - 1):
        return midnight
    return _first(midnight - _SKIPPED_SECONDS_MAX, midnight, has_begun)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first from `low` on for which `holds`, which stays true once it is; else `high`."""
    return low + bisect_left(range(low, high), True, key=holds)  # noqa: FBT003
