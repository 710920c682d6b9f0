"""extproc/bookkeeping/reconcile.py: where audit lines and invoices differ."""

import datetime as dt
from typing import Any

import pytest

from extproc.bookkeeping import reconcile as module
from extproc.bookkeeping.invoices import NOTHING, Row, Used
from extproc.bookkeeping.lines import AuditLine, Broken, parse
from extproc.bookkeeping.reconcile import ALL_MODELS, Books, Comparison, compare, read_books
from extproc.bookkeeping.seen import nothing_seen
from extproc.bookkeeping.texts import ROWS_SHOWN, comparison_text
from tests.unit.test_bookkeeping_lines import changed

DAY = dt.date(2026, 9, 10)
NEXT = dt.date(2026, 9, 11)


def call(name: str = "r", **fields: Any) -> AuditLine:
    """100 input tokens, 20 of output, 4,200 micro-dollars."""
    about = {"model": "gpt-4", "started": "2026-09-10T12:00:00Z", "reservation": name}
    found = parse(changed(**about | fields))
    assert found is not None
    return found


def books(*lines: AuditLine | Broken) -> Books:
    with nothing_seen() as seen:
        return read_books(lines, seen)


def compared(ours: Books, *rows: Row, **named: str) -> Comparison:
    return compare(ours, rows, named)


def found(comparison: Comparison) -> list[tuple[str, str, str, int, int]]:
    return [
        (one.day.isoformat(), one.model, one.what, one.ours, one.theirs)
        for one in comparison.differences
    ]


SAME = Row(DAY, "gpt-4", Used(1, 100, 20, 4200))


def test_what_is_the_same_differs_nowhere() -> None:
    comparison = compared(books(call()), SAME)

    assert comparison == Comparison([], 4, {}, 0, DAY, DAY)


def test_differences_are_the_largest_first_and_money_before_tokens() -> None:
    row = SAME._replace(used=Used(2, 1100, 21, 5000))
    other = Row(NEXT, "gpt-4", Used(0, 0, 0, 9000))

    assert found(compared(books(call()), row, other)) == [
        ("2026-09-11", "gpt-4", "cost_micro_usd", 0, 9000),
        ("2026-09-10", "gpt-4", "cost_micro_usd", 4200, 5000),
        ("2026-09-10", "gpt-4", "input_tokens", 100, 1100),
        ("2026-09-10", "gpt-4", "requests", 1, 2),
        ("2026-09-10", "gpt-4", "output_tokens", 20, 21),
    ]


def test_only_what_an_invoice_tells_is_compared() -> None:
    row = Row(DAY, "gpt-4", Used(None, 100, None, None))

    assert compared(books(call()), row).compared == 1


def test_exports_of_tokens_and_of_costs_are_put_together() -> None:
    tokens = Row(DAY, "gpt-4-0613", Used(1, 60, 20, None))
    rest = Row(DAY, "gpt-4-0125", Used(0, 40, 0, None))
    cost = Row(DAY, "GPT 4", Used(None, None, None, 4200))

    assert compared(books(call()), tokens, rest, cost) == Comparison([], 4, {}, 0, DAY, DAY)


def test_a_day_that_an_invoice_leaves_out_was_not_used() -> None:
    later = call("late", started="2026-09-11T00:00:00Z")
    end = Row(dt.date(2026, 9, 12), "gpt-4", Used(0, 0, 0, 0))

    assert found(compared(books(call(), later), SAME, end)) == [
        ("2026-09-11", "gpt-4", "cost_micro_usd", 4200, 0),
        ("2026-09-11", "gpt-4", "input_tokens", 100, 0),
        ("2026-09-11", "gpt-4", "output_tokens", 20, 0),
        ("2026-09-11", "gpt-4", "requests", 1, 0),
    ]


def test_costs_that_leave_out_a_day_of_usage_say_that_it_cost_nothing() -> None:
    later = call("late", started="2026-09-11T00:00:00Z")
    usage = Row(NEXT, "gpt-4", Used(1, 100, 20, None))

    assert found(compared(books(call(), later), SAME, usage)) == [
        ("2026-09-11", "gpt-4", "cost_micro_usd", 4200, 0)
    ]


def test_a_model_that_only_the_invoice_knows_was_used_without_us() -> None:
    assert found(compared(books(call()), SAME, Row(DAY, "gpt-4-turbo", Used(3, 0, 0, 0)))) == [
        ("2026-09-10", "gpt-4-turbo", "requests", 0, 3)
    ]


def test_a_model_that_the_invoice_does_not_know_is_anothers() -> None:
    others = (call("l", model="local"), call("m", model="local"), call("n", model="near"))
    comparison = compared(books(call(), *others), SAME)

    assert comparison.differences == []
    assert comparison.not_invoiced == {"local": (2, 200, 40, 8400), "near": (1, 100, 20, 4200)}


def test_calls_on_other_days_are_counted_and_not_compared() -> None:
    other = call("o", started="2026-08-31T23:59:59Z")

    comparison = compared(books(call(), other), SAME)

    assert comparison.differences == []
    assert comparison.other_days == 1


def test_a_call_belongs_to_the_day_of_utc() -> None:
    line = call(started="2026-09-11T01:00:00+02:00")

    assert list(books(line).sums) == [(DAY, "gpt-4")]


def test_a_sum_over_all_models_is_compared_with_all_of_the_invoices() -> None:
    later = call("later", started="2026-09-11T00:00:00Z")
    lines = books(call(), call("l", model="local"), later)
    total = Row(DAY, "", Used(None, None, None, 4300))

    assert found(compared(lines, SAME._replace(used=Used(1, 100, 20, None)), total)) == [
        ("2026-09-10", ALL_MODELS, "cost_micro_usd", 4200, 4300)
    ]
    alone = compared(lines, total)
    assert found(alone) == [("2026-09-10", ALL_MODELS, "cost_micro_usd", 8400, 4300)]
    assert alone.not_invoiced == {}


def test_a_day_without_use_is_a_day_that_was_told_of() -> None:
    comparison = compared(books(call()), Row(NEXT, "", Used(0, 0, 0, None)), SAME)

    assert comparison.compared == 4
    assert (comparison.first, comparison.last) == (DAY, NEXT)
    assert comparison.differences == []


def test_an_invoice_without_rows_compares_nothing() -> None:
    assert compared(books(call())) == Comparison((), 0, {}, 1, None, None)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("estimated", {"source": "estimated"}),
        ("aborted", {"aborted": True}),
        ("late", {"settled": "late"}),
        ("unsettled", {"settled": ""}),
        ("unattributed", {"kind": "unattributed", "settled": ""}),
    ],
)
def test_a_difference_says_how_much_of_ours_is_doubtful(kind: str, fields: dict[str, Any]) -> None:
    lines = books(call("a", **fields), call("b"), call("c", **fields))
    row = Row(DAY, "gpt-4", Used(None, 301, None, None))

    (one,) = compared(lines, row).differences

    assert one.explained == {kind: 200}


def test_what_costs_nothing_and_what_was_refused_does_not_count() -> None:
    lines = books(call("a", source="zero"), call("b", source="", prompt_tokens=None))

    assert (lines.lines, lines.sums) == (2, {})


def test_calls_add_up() -> None:
    nothing = call("c", prompt_tokens=0, completion_tokens=None, cost_micro_usd=0)

    assert books(call("a"), call("b"), nothing).sums == {(DAY, "gpt-4"): (3, 200, 40, 8400)}


def test_each_call_counts_once() -> None:
    broken = Broken("f", 1, "no audit line")
    other = call("", stream_id="s1", kind="unattributed")
    lines = books(call(), call(settled="repeated"), other, other, broken)

    assert (lines.lines, lines.repeated, lines.broken) == (2, 2, 1)
    assert lines.sums[DAY, "gpt-4"][0] == 2


def test_lines_without_any_name_all_count() -> None:
    line = call("", stream_id="")

    assert books(line, line).lines == 2


@pytest.mark.parametrize(
    ("what", "ours", "theirs", "is_above"),
    [
        ("requests", 99, 100, False),
        ("requests", 98, 100, True),
        ("requests", 0, -5, True),
        ("cost_micro_usd", 0, 10_000, False),
        ("cost_micro_usd", 0, 10_001, True),
        ("cost_micro_usd", 500_000, 509_000, False),
        ("cost_micro_usd", 1_000_000, 1_010_001, False),
        ("cost_micro_usd", 1_000_000, 1_020_000, True),
    ],
)
def test_a_difference_may_be_tolerated(
    what: str, ours: int, theirs: int, *, is_above: bool
) -> None:
    one = module.Difference(DAY, "m", what, ours, theirs, {})

    assert one.is_above(0.01) is is_above


def test_progress_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_LINES", 2)
    told: list[int] = []
    with nothing_seen() as seen:
        read_books([call()] * 5, seen, progress=told.append)

    assert told == [2, 4]


def test_people_are_told_what_was_not_compared() -> None:
    lines = books(
        call(),
        call("x", model="\x1b[1m"),
        call("o", started="2026-08-01T00:00:00Z"),
        Broken("f", 1, ""),
    )
    comparison = compared(lines, SAME)

    assert list(comparison_text(lines, comparison, 0.01)) == [
        "not on the invoice: ?[1m, 1 calls, 100 input and 20 output tokens, $0.0042",
        "1 calls on days that the invoice is not about",
        "1 broken lines",
        "2026-09-10 to 2026-09-10: 4 numbers compared, 0 differ, 0 by more than 0.01",
    ]


def test_a_long_list_of_differences_is_cut_and_says_so() -> None:
    rows = [Row(DAY, f"m{n}", NOTHING._replace(requests=1)) for n in range(ROWS_SHOWN + 1)]
    lines = books()
    text = list(comparison_text(lines, compared(lines, *rows), 0.01))

    assert "... and 1 more rows: --json has all" in text
