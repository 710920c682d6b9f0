"""Audit lines compared with what a provider says: per UTC day and model, where they differ."""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from extproc.bookkeeping.invoices import NOTHING, Row, Used
from extproc.bookkeeping.lines import AuditLine, Broken
from extproc.bookkeeping.names import match
from extproc.bookkeeping.seen import Seen

ALL_MODELS: Final = "(all models)"
"""Where an export sums up over its models."""

COST_FLOOR_MICRO_USD: Final = 10_000
"""Costs are exported in cents: a day that differs by one does not differ."""

PROGRESS_LINES: Final = 100_000

Key = tuple[dt.date, str]

Sums = tuple[int, int, int, int]
"""Requests, input tokens, output tokens, cost: in the order of `Used`."""

ZERO: Final[Sums] = (0, 0, 0, 0)

KINDS: Final[Mapping[str, Callable[[AuditLine], bool]]] = {
    "estimated": lambda line: line.source == "estimated",
    "aborted": lambda line: line.aborted,
    "late": lambda line: line.settled == "late",
    "unsettled": lambda line: line.kind == "call" and not line.settled,
    "unattributed": lambda line: line.kind == "unattributed",
}
"""What kinds of lines may explain a difference; one line may be of several."""


class Difference(NamedTuple):
    """One quantity of a day and model that is not the same."""

    day: dt.date
    model: str
    what: str
    ours: int
    theirs: int
    explained: Mapping[str, int]
    """How much of ours is of which kind."""

    @property
    def share(self) -> float:
        """The difference as a share of the larger of the two."""
        return abs(self.ours - self.theirs) / max(abs(self.ours), abs(self.theirs))

    def is_above(self, tolerance: float) -> bool:
        """Whether it is more than rounding."""
        if self.what == "cost_micro_usd" and abs(self.ours - self.theirs) <= COST_FLOOR_MICRO_USD:
            return False
        return self.share > tolerance


class Books:
    """What the audit lines say."""

    def __init__(self) -> None:
        self.lines = 0
        self.repeated = 0
        self.broken = 0
        self.sums: dict[Key, Sums] = {}
        self.kinds: dict[Key, dict[str, Sums]] = defaultdict(dict)

    def add(self, line: AuditLine) -> None:
        """Take into account what a provider charges for."""
        self.lines += 1
        if line.source in ("", "zero"):
            return
        key = (line.started.astimezone(dt.UTC).date(), line.model)
        used = (
            1,
            line.prompt_tokens or 0,
            line.completion_tokens or 0,
            line.cost_micro_usd or 0,
        )
        self.sums[key] = _plus(self.sums.get(key, ZERO), used)
        for kind, is_one in KINDS.items():
            if is_one(line):
                self.kinds[key][kind] = _plus(self.kinds[key].get(kind, ZERO), used)


class Comparison(NamedTuple):
    """All of it. The differences are the largest first."""

    differences: Sequence[Difference]
    compared: int
    """Quantities of days and models that both have."""
    not_invoiced: Mapping[str, Sums]
    """Our models that the invoice does not know, of the same days."""
    other_days: int
    """Calls of ours on days that the invoice is not about."""
    first: dt.date | None
    last: dt.date | None

    def as_dict(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "first_day": self.first and self.first.isoformat(),
            "last_day": self.last and self.last.isoformat(),
            "compared": self.compared,
            "differences": [
                {
                    "day": found.day.isoformat(),
                    "model": found.model,
                    "what": found.what,
                    "ours": found.ours,
                    "invoice": found.theirs,
                    "share": round(found.share, 6),
                    "explained": dict(found.explained),
                }
                for found in self.differences
            ],
            "not_invoiced": {
                model: dict(zip(Used._fields, sums, strict=True))
                for model, sums in sorted(self.not_invoiced.items())
            },
            "calls_on_other_days": self.other_days,
        }


def read_books(
    lines: Iterable[AuditLine | Broken], seen: Seen, *, progress: Callable[[int], object] = int
) -> Books:
    """Sum the lines up, each request once. `progress` is told the number of lines now and then."""
    books = Books()
    for number, line in enumerate(lines, 1):
        if number % PROGRESS_LINES == 0:
            progress(number)
        if isinstance(line, Broken):
            books.broken += 1
            continue
        name = line.reservation or line.stream_id
        if name and not seen.add(name):
            books.repeated += 1
            continue
        books.add(line)
    return books


def compare(books: Books, rows: Sequence[Row], named: Mapping[str, str]) -> Comparison:
    """Compare what `books` say with the rows of invoices, on the days from their first to last."""
    if not rows:
        return Comparison((), 0, {}, sum(s[0] for s in books.sums.values()), None, None)
    first, last = min(row.day for row in rows), max(row.day for row in rows)
    ours = {key: sums for key, sums in books.sums.items() if first <= key[0] <= last}
    theirs = _by_key(rows, {model for _, model in ours}, named)
    invoiced = {model for _, model in theirs} - {ALL_MODELS}
    told = _told_by_model(theirs)
    compared = 0
    found: list[Difference] = []
    for day, model in sorted({*theirs, *(key for key in ours if key[1] in invoiced)}):
        keys = [(day, model)]
        if model == ALL_MODELS:
            keys = [key for key in ours if key[0] == day and (key[1] in invoiced or not invoiced)]
        mine = _total(ours.get(key, ZERO) for key in keys)
        used = theirs.get((day, model), NOTHING)
        for index, what in enumerate(Used._fields):
            amount = used[index] if used[index] is not None else told[model][index]
            if amount is None:
                continue
            compared += 1
            if amount != mine[index]:
                explained = _explained(books, keys, index)
                found.append(Difference(day, model, what, mine[index], amount, explained))
    found.sort(key=_size, reverse=True)
    others = {model for _, model in ours if model not in invoiced}
    is_total = any(model == ALL_MODELS for _, model in theirs) and not invoiced
    return Comparison(
        found,
        compared,
        {} if is_total else {m: _total(s for k, s in ours.items() if k[1] == m) for m in others},
        sum(sums[0] for key, sums in books.sums.items() if key not in ours),
        first,
        last,
    )


def _by_key(rows: Sequence[Row], ours: set[str], named: Mapping[str, str]) -> dict[Key, Used]:
    """What the invoices say of each day and model, by our names where there are any."""
    found: dict[Key, Used] = {}
    for row in rows:
        if not row.model and not any(row.used):
            continue  # a day without use
        model = (match(row.model, ours, named) or row.model) if row.model else ALL_MODELS
        before = found.get((row.day, model), NOTHING)
        sums = [
            one if other is None else other if one is None else one + other
            for one, other in zip(before, row.used, strict=True)
        ]
        found[row.day, model] = Used(*sums)
    return found


def _told_by_model(theirs: Mapping[Key, Used]) -> dict[str, Used]:
    """What an invoice would say of a day that it leaves out: nothing of what it tells on others."""
    found: dict[str, list[int | None]] = defaultdict(lambda: [None] * len(Used._fields))
    for (_, model), used in theirs.items():
        for index, amount in enumerate(used):
            if amount is not None:
                found[model][index] = 0
    return {model: Used(*amounts) for model, amounts in found.items()}


def _explained(books: Books, keys: Sequence[Key], index: int) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for key in keys:
        for kind, sums in books.kinds.get(key, {}).items():
            found[kind] += sums[index]
    return {kind: amount for kind, amount in found.items() if amount}


def _size(found: Difference) -> tuple[bool, int]:
    """Money first, then tokens and requests by how many there are."""
    return found.what == "cost_micro_usd", abs(found.ours - found.theirs)


def _plus(one: Sums, other: Sums) -> Sums:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])


def _total(all_sums: Iterable[Sums]) -> Sums:
    total = ZERO
    for sums in all_sums:
        total = _plus(total, sums)
    return total
