"""extproc/policy/windows.py"""

import datetime as dt

import pytest

from extproc.policy.windows import Span, Window


def instant(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def span(start: str, end: str) -> Span:
    return Span(instant(start), instant(end))


@pytest.mark.parametrize(
    ("seconds", "at", "expected"),
    [
        pytest.param(60, 119.999, Span(60, 120), id="an end is not part of its window"),
        pytest.param(60, 120.0, Span(120, 180), id="a start is"),
        pytest.param(7, 20.5, Span(14, 21), id="windows are aligned to 1970, not to the day"),
        pytest.param(60, -0.5, Span(-60, 0), id="before 1970 too"),
        pytest.param(60, -1e-20, Span(-60, 0), id="by whatever little it is before"),
        pytest.param(366 * 86400, 1.0, Span(0, 366 * 86400), id="a year and a day"),
        pytest.param(
            1, 1_789_000_000.9999998, Span(1_789_000_000, 1_789_000_001), id="never rounded up"
        ),
    ],
)
def test_windows_of_seconds(seconds: int, at: float, expected: Span) -> None:
    assert Window(seconds=seconds).span(at) == expected


@pytest.mark.parametrize(
    ("calendar", "zone", "at", "start", "end"),
    [
        pytest.param(
            "minute", "UTC", "2026-01-01 00:00:59.999999+00:00",
            "2026-01-01 00:00+00:00", "2026-01-01 00:01+00:00",
            id="a minute",
        ),
        pytest.param(
            "hour", "Asia/Kathmandu", "2026-05-05 10:20+05:45",
            "2026-05-05 10:00+05:45", "2026-05-05 11:00+05:45",
            id="an hour begins by the local clock, also 45 minutes off",
        ),
        pytest.param(
            "day", "Asia/Shanghai", "2026-05-04 23:00+00:00",
            "2026-05-05 00:00+08:00", "2026-05-06 00:00+08:00",
            id="a day begins at local midnight",
        ),
        pytest.param(
            "week", "UTC", "2026-03-01 12:00+00:00",
            "2026-02-23 00:00+00:00", "2026-03-02 00:00+00:00",
            id="a week begins on Monday, so Sunday ends it",
        ),
        pytest.param(
            "week", "UTC", "2027-01-01 12:00+00:00",
            "2026-12-28 00:00+00:00", "2027-01-04 00:00+00:00",
            id="a week goes over the turn of the year",
        ),
        pytest.param(
            "month", "UTC", "2028-02-29 23:59+00:00",
            "2028-02-01 00:00+00:00", "2028-03-01 00:00+00:00",
            id="February has its leap day",
        ),
        pytest.param(
            "month", "UTC", "2026-01-31 00:00+00:00",
            "2026-01-01 00:00+00:00", "2026-02-01 00:00+00:00",
            id="the month after the 31st is the next one",
        ),
        pytest.param(
            "month", "America/New_York", "2027-01-01 04:59+00:00",
            "2026-12-01 00:00-05:00", "2027-01-01 00:00-05:00",
            id="December ends at local midnight",
        ),
        pytest.param(
            "year", "Europe/Berlin", "2028-07-01 00:00+02:00",
            "2028-01-01 00:00+01:00", "2029-01-01 00:00+01:00",
            id="a year",
        ),
        pytest.param(
            "day", "Europe/Berlin", "2026-03-29 12:00+02:00",
            "2026-03-29 00:00+01:00", "2026-03-30 00:00+02:00",
            id="a day of 23 hours",
        ),
        pytest.param(
            "day", "America/New_York", "2026-11-01 12:00-05:00",
            "2026-11-01 00:00-04:00", "2026-11-02 00:00-05:00",
            id="a day of 25 hours",
        ),
        pytest.param(
            "hour", "Europe/Berlin", "2026-10-25 02:30+02:00",
            "2026-10-25 02:00+02:00", "2026-10-25 02:00+01:00",
            id="an hour that comes twice, the first time",
        ),
        pytest.param(
            "hour", "Europe/Berlin", "2026-10-25 02:30+01:00",
            "2026-10-25 02:00+01:00", "2026-10-25 03:00+01:00",
            id="an hour that comes twice, the second time",
        ),
        pytest.param(
            "hour", "America/New_York", "2026-03-08 03:15-04:00",
            "2026-03-08 03:00-04:00", "2026-03-08 04:00-04:00",
            id="the hour after one that is skipped",
        ),
        pytest.param(
            "hour", "Australia/Lord_Howe", "2026-04-05 01:45+11:00",
            "2026-04-05 01:00+11:00", "2026-04-05 02:00+11:00",
            id="half an hour comes twice, the first time",
        ),
        pytest.param(
            "hour", "Australia/Lord_Howe", "2026-04-05 01:45+10:30",
            "2026-04-05 01:30+10:30", "2026-04-05 02:00+10:30",
            id="half an hour comes twice: the second time is a window of its own",
        ),
        pytest.param(
            "hour", "Australia/Lord_Howe", "2026-10-04 02:45+11:00",
            "2026-10-04 02:30+11:00", "2026-10-04 03:00+11:00",
            id="half an hour is skipped: what is left of it is a window",
        ),
        pytest.param(
            "hour", "Asia/Kathmandu", "1985-12-31 23:50+05:30",
            "1985-12-31 23:00+05:30", "1986-01-01 00:00+05:30",
            id="before the clock went on by a quarter",
        ),
        pytest.param(
            "hour", "Asia/Kathmandu", "1986-01-01 00:20+05:45",
            "1986-01-01 00:15+05:45", "1986-01-01 01:00+05:45",
            id="after the clock went on by a quarter",
        ),
        pytest.param(
            "day", "America/Sao_Paulo", "2018-11-04 12:00-02:00",
            "2018-11-04 01:00-02:00", "2018-11-05 00:00-02:00",
            id="midnight is skipped: the day begins at one",
        ),
        pytest.param(
            "day", "America/Sao_Paulo", "2018-11-03 23:59-03:00",
            "2018-11-03 00:00-03:00", "2018-11-04 00:00-03:00",
            id="the day before a midnight that is skipped",
        ),
        pytest.param(
            "day", "America/Sao_Paulo", "2018-02-17 23:30-03:00",
            "2018-02-17 00:00-02:00", "2018-02-18 00:00-03:00",
            id="the last hour of a day comes twice",
        ),
        pytest.param(
            "day", "America/Havana", "2026-11-01 00:30-05:00",
            "2026-11-01 00:00-04:00", "2026-11-02 00:00-05:00",
            id="the first hour of a day comes twice",
        ),
        pytest.param(
            "day", "America/St_Johns", "2010-11-06 23:30-03:30",
            "2010-11-07 00:00-02:30", "2010-11-08 00:00-03:30",
            id="an evening that comes again belongs to the day that had begun",
        ),
        pytest.param(
            "hour", "America/St_Johns", "2010-11-07 00:00:30-02:30",
            "2010-11-07 00:00-02:30", "2010-11-07 00:01-02:30",
            id="the clock goes back a minute into an hour: that minute is a window",
        ),
        pytest.param(
            "hour", "America/St_Johns", "2010-11-06 23:30-03:30",
            "2010-11-06 23:01-03:30", "2010-11-07 00:00-03:30",
            id="and so is what comes again of the hour before",
        ),
        pytest.param(
            "day", "America/Toronto", "1919-03-31 00:35-04:00",
            "1919-03-31 00:30-04:00", "1919-04-01 00:00-04:00",
            id="a gap around midnight",
        ),
        pytest.param(
            "day", "Pacific/Apia", "2011-12-29 23:00-10:00",
            "2011-12-29 00:00-10:00", "2011-12-31 00:00+14:00",
            id="the day before one that is skipped",
        ),
        pytest.param(
            "day", "Pacific/Apia", "2011-12-31 01:00+14:00",
            "2011-12-31 00:00+14:00", "2012-01-01 00:00+14:00",
            id="the day after one that is skipped",
        ),
        pytest.param(
            "week", "Pacific/Apia", "2011-12-31 01:00+14:00",
            "2011-12-26 00:00-10:00", "2012-01-02 00:00+14:00",
            id="a week of six days",
        ),
        pytest.param(
            "hour", "Africa/Casablanca", "2026-02-15 02:30+00:00",
            "2026-02-15 02:00+00:00", "2026-02-15 03:00+00:00",
            id="the clock goes back for Ramadan",
        ),
        pytest.param(
            "month", "Africa/Casablanca", "2026-03-22 12:00+01:00",
            "2026-03-01 00:00+00:00", "2026-04-01 00:00+01:00",
            id="and on again within a month",
        ),
    ],
)  # fmt: skip
def test_windows_of_the_calendar(calendar: str, zone: str, at: str, start: str, end: str) -> None:
    window = Window(calendar=calendar, timezone=zone)  # type: ignore[arg-type]

    assert window.span(instant(at)) == span(start, end)


def test_what_is_said_without_a_zone_is_in_utc() -> None:
    at = instant("2026-07-01 23:30+00:00")

    assert Window(calendar="day").span(at) == span(
        "2026-07-01 00:00+00:00", "2026-07-02 00:00+00:00"
    )
