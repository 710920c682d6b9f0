"""What a replay and a comparison found, as text for people."""

import datetime as dt
from collections.abc import Iterator

from extproc.bookkeeping.reconcile import Books, Comparison, Difference
from extproc.bookkeeping.replay import Report, Tally, Window
from extproc.bookkeeping.tables import plain, table

ROWS_SHOWN = 200
"""Of a table; `--json` has all."""

_MICRO = 1_000_000


def replay_text(report: Report, *, is_dry: bool) -> Iterator[str]:
    """Lines of text."""
    if report.windows:
        head = ("tenant", "budget", "unit", "window from (UTC)")
        counts = ("charged", "amount", "known", "too old", "amount", "refused")
        rows = sorted(report.windows.items())
        shown = [_window_row(window, tally) for window, tally in rows[:ROWS_SHOWN]]
        yield from table((*head, *counts), shown, left=len(head))
        yield from _more(len(rows))
    for broken in report.broken_at:
        yield f"{plain(broken.file)}:{broken.number}: {broken.why}"
    if report.broken > len(report.broken_at):
        yield f"... and {report.broken - len(report.broken_at):,} more broken lines"
    requests = report.requests
    yield (
        f"{report.lines:,} audit lines: {requests.charged:,} requests charged,"
        f" {requests.known:,} known already, {requests.too_old:,} too old to tell,"
        f" {requests.refused:,} refused; {report.broken:,} broken lines"
    )
    if requests.too_old:
        yield (
            f"The ledger knows all settlements since {_instant(report.remembers_since)} only."
            " Requests that ended before may have been charged: nothing was added for them."
        )
    if report.trouble:
        yield f"Stopped before the end: {report.trouble}"
    if is_dry:
        yield "This was a dry run: nothing was changed."


def comparison_text(books: Books, found: Comparison, tolerance: float) -> Iterator[str]:
    """Lines of text."""
    if found.differences:
        head = ("day (UTC)", "model", "what", "of which")
        numbers = ("ours", "invoice", "difference", "share")
        shown = [_difference_row(one, tolerance) for one in found.differences[:ROWS_SHOWN]]
        yield from table((*head, *numbers), shown, left=len(head))
        yield from _more(len(found.differences))
    for model, sums in sorted(found.not_invoiced.items()):
        yield (
            f"not on the invoice: {plain(model)}, {sums[0]:,} calls,"
            f" {sums[1]:,} input and {sums[2]:,} output tokens, {_usd(sums[3])}"
        )
    if found.other_days:
        yield f"{found.other_days:,} calls on days that the invoice is not about"
    if books.broken:
        yield f"{books.broken:,} broken lines"
    if books.repeated:
        yield f"{books.repeated:,} lines came again and count once"
    above = sum(one.is_above(tolerance) for one in found.differences)
    yield (
        f"{found.first} to {found.last}: {found.compared:,} numbers compared,"
        f" {len(found.differences):,} differ, {above:,} by more than {tolerance:g}"
    )


def _window_row(window: Window, tally: Tally) -> tuple[str, ...]:
    tenant, budget, unit, start = window
    return (
        plain(tenant),
        plain(budget),
        unit,
        _instant(start) if start else "",
        f"{tally.charged:,}",
        _amount(tally.charged_amount, unit),
        f"{tally.known:,}",
        f"{tally.too_old:,}",
        _amount(tally.too_old_amount, unit),
        f"{tally.refused:,}",
    )


def _difference_row(found: Difference, tolerance: float) -> tuple[str, ...]:
    is_cost = found.what == "cost_micro_usd"
    what = "cost" if is_cost else found.what.replace("_", " ")

    def show(amount: int) -> str:
        return _usd(amount) if is_cost else f"{amount:,}"

    kinds = sorted(found.explained.items(), key=lambda pair: -pair[1])
    mark = "" if found.is_above(tolerance) else " (tolerated)"
    difference = found.ours - found.theirs
    return (
        found.day.isoformat(),
        plain(found.model),
        what + mark,
        ", ".join(f"{kind} {show(amount)}" for kind, amount in kinds) or "-",
        show(found.ours),
        show(found.theirs),
        ("+" if difference > 0 else "-") + show(abs(difference)),
        f"{found.share:.2%}",
    )


def _more(rows: int) -> Iterator[str]:
    if rows > ROWS_SHOWN:
        yield f"... and {rows - ROWS_SHOWN:,} more rows: --json has all"


def _amount(amount: int, unit: str) -> str:
    return _usd(amount) if unit == "usd" else f"{amount:,}"


def _usd(micro_usd: int) -> str:
    return f"${micro_usd / _MICRO:,.4f}"


def _instant(seconds: float) -> str:
    at = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return at.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
