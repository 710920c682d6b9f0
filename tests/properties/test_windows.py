"""In any time zone, windows leave no gap, never overlap and have a length that makes sense."""

import datetime as dt
import math
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.policy.windows import Calendar, Window

HOUR: Final = 3600
DAY: Final = 24 * HOUR
FIRST: Final = -2_200_000_000
"""In 1900: before that, clocks were set to the second by the sun."""
LAST: Final = 32_000_000_000
"""In 2984."""

ZONES: Final = (
    "UTC", "Europe/Berlin", "Europe/Dublin", "America/New_York", "America/Sao_Paulo",
    "America/St_Johns", "America/Havana", "America/Toronto", "America/Caracas", "Africa/Casablanca",
    "Africa/Monrovia", "Asia/Shanghai", "Asia/Kathmandu", "Asia/Pyongyang", "Asia/Tehran",
    "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kwajalein", "Pacific/Chatham",
    "Antarctica/Troll",
)  # fmt: skip

LENGTHS: Final[dict[Calendar, tuple[float, float]]] = {
    "minute": (1, 60),
    "hour": (1, HOUR),
    "day": (20 * HOUR, 48 * HOUR),
    "week": (6 * DAY, 8 * DAY),
    "month": (27 * DAY, 32 * DAY),
    "year": (364 * DAY, 367 * DAY),
}
"""The shortest and the longest: the date line was crossed both ways."""


def _changes(zone: str) -> list[int]:
    """The instants at which the clocks of `zone` were or will be changed."""
    info = ZoneInfo(zone)

    def offset(at: int) -> dt.timedelta | None:
        return dt.datetime.fromtimestamp(at, info).utcoffset()

    found = []
    for day in range(FIRST, 2_000_000_000, DAY):
        low, high = day, day + DAY
        if offset(low) == offset(high):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
        found.append(high)
    return found


CHANGES: Final = {zone: _changes(zone) or [0] for zone in ZONES}


@st.composite
def instants(draw: st.DrawFn, zone: str) -> float:
    """Any instant, and often one around a change of the clocks."""
    if draw(st.booleans()):
        base = draw(st.sampled_from(CHANGES[zone]))
        at = base + draw(st.integers(-2 * HOUR, 2 * HOUR) | st.integers(-2 * DAY, 2 * DAY))
    else:
        at = draw(st.integers(FIRST, LAST))
    return at + draw(st.sampled_from((0.0, 0.25, 1e-6, 0.999999)))


@given(st.data(), st.sampled_from(ZONES), st.sampled_from(list(LENGTHS)))
def test_windows_of_the_calendar_partition_time(
    data: st.DataObject, zone: str, calendar: Calendar
) -> None:
    at = data.draw(instants(zone))
    window = Window(calendar=calendar, timezone=zone)

    span = window.span(at)

    shortest, longest = LENGTHS[calendar]
    assert span.start <= at < span.end
    assert shortest <= span.end - span.start <= longest
    assert window.span(span.end).start == span.end
    assert window.span(span.start - 1).end == span.start
    inside = data.draw(st.floats(span.start, math.nextafter(span.end, -math.inf)))
    assert window.span(inside) == span


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("calendar", "around"), [("minute", 150), ("hour", 2 * HOUR), ("day", 2 * DAY)]
)
def test_windows_follow_each_other_through_every_change(
    zone: str, calendar: Calendar, around: int
) -> None:
    window = Window(calendar=calendar, timezone=zone)
    for change in CHANGES[zone]:
        span = window.span(change - around)
        while span.end < change + around:
            following = window.span(span.end)

            assert following.start == span.end
            assert window.span(following.end - 1) == following
            span = following


@given(
    st.integers(1, 366 * DAY),
    st.floats(-1e11, 1e11),
    st.floats(0, 1, exclude_max=True),
)
@example(60, -1e-20, 0.0)
@example(3, 99999999999.99998, 0.5)
def test_windows_of_seconds_partition_time(seconds: int, at: float, share: float) -> None:
    window = Window(seconds=seconds)

    span = window.span(at)

    assert span.start <= at < span.end
    assert span.end - span.start == seconds
    assert span.start % seconds == 0
    assert window.span(span.end).start == span.end
    assert window.span(span.start - 0.001).end == span.start
    assert (
        window.span(min(span.start + share * seconds, math.nextafter(span.end, -math.inf))) == span
    )


@given(st.data(), st.sampled_from(ZONES))
def test_days_follow_the_local_date(data: st.DataObject, zone: str) -> None:
    at = data.draw(instants(zone))
    days = Window(calendar="day", timezone=zone)

    span = days.span(at)

    first = dt.datetime.fromtimestamp(span.start, ZoneInfo(zone)).date()
    assert first >= dt.datetime.fromtimestamp(at, ZoneInfo(zone)).date()
    assert dt.datetime.fromtimestamp(span.start - 1, ZoneInfo(zone)).date() < first
