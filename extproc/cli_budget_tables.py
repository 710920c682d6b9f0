"""Budgets as plain text, one a line, and as JSON."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

from extproc.budgets_api import budgets_pb2 as pb
from extproc.policy.budgets import MICRO_USD_PER_USD

HEADINGS: Final = ("TENANT", "BUDGET", "USED", "HELD", "LEFT", "LIMIT", "GRANTED", "UNIT", "ENDS")
_AMOUNTS: Final = range(2, 7)
"""The columns that are aligned on the right."""

_UNITS: Final = {
    pb.UNIT_TOKENS: "tokens",
    pb.UNIT_MICRO_USD: "usd",
    pb.UNIT_REQUESTS: "requests",
    pb.UNIT_CONCURRENT_REQUESTS: "concurrent_requests",
}


def row(budget: pb.Budget) -> tuple[str, ...]:
    """One budget's cells, as `HEADINGS` names them."""
    amounts = (
        budget.committed,
        budget.reserved,
        budget.remaining,
        budget.limit,
        budget.granted,
    )
    return (
        _plain(budget.tenant),
        _plain(budget.budget),
        *(_amount(amount, budget.unit) for amount in amounts),
        _UNITS.get(budget.unit, "?"),
        shown_at(budget.window.end) if budget.HasField("window") else "-",
    )


def table(rows: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> list[str]:
    """Lines whose columns are as wide as their widest cell, and at least `widths`."""
    least = widths or [0] * len(HEADINGS)
    wide = [max(w, *map(len, cells)) for w, *cells in zip(least, *rows, strict=True)]
    return [_line(cells, wide) for cells in rows]


def details(budget: pb.Budget) -> list[str]:
    """What adds to the limit, one grant a line."""
    return [
        f"  {_plain(grant.id)}: {_amount(grant.amount, budget.unit)} until {shown_at(grant.until)},"
        f" by {_plain(grant.by)}: {_plain(grant.reason)}"
        for grant in budget.grants
    ]


def budget_told(budget: pb.Budget) -> dict[str, Any]:
    """One budget for programs: amounts are whole numbers, dollars in millionths."""
    has_window = budget.HasField("window")
    return {
        "tenant": budget.tenant,
        "budget": budget.budget,
        "unit": "micro_usd" if budget.unit == pb.UNIT_MICRO_USD else _UNITS.get(budget.unit, ""),
        "limit": budget.limit,
        "granted": budget.granted,
        "committed": budget.committed,
        "reserved": budget.reserved,
        "remaining": budget.remaining,
        "window_start": budget.window.start if has_window else None,
        "window_end": budget.window.end if has_window else None,
        "on_exhausted": budget.on_exhausted,
        "grants": [
            {
                "id": grant.id,
                "amount": grant.amount,
                "until": grant.until,
                "reason": grant.reason,
                "by": grant.by,
                "at": grant.at,
                "is_reset": grant.is_reset,
            }
            for grant in budget.grants
        ],
    }


def shown_at(instant: float) -> str:
    """An instant in UTC, to the second."""
    try:
        return f"{dt.datetime.fromtimestamp(instant, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return f"{instant:.0f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if column in _AMOUNTS else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _amount(amount: int, unit: int) -> str:
    if unit != pb.UNIT_MICRO_USD:
        return str(amount)
    dollars, millionths = divmod(amount, MICRO_USD_PER_USD)
    return f"{dollars}.{millionths:06}"


def _plain(text: str) -> str:
    """Without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)
