"""What a provider says was used, read from its export: CSV or JSON, of any layout that is known."""

import csv
import datetime as dt
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, NamedTuple

from extproc.bookkeeping.layouts import Layout, layout_of, looked_for, rows_of
from extproc.bookkeeping.lines import BooksError
from extproc.bookkeeping.tables import plain

BYTES_MAX: Final = 256 << 20
"""Of one export. Months of days are a thousandth of it."""

COLUMNS_NAMED_MAX: Final = 20
DIGITS_MAX: Final = 30
"""Of a number."""

SECONDS_DIGITS_MIN: Final = 9
"""Seconds since 1970 have so many digits; `20261123` is a date."""

DELIMITERS: Final = ",;\t"


class Used(NamedTuple):
    """What a row says; None where its export does not tell."""

    requests: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_micro_usd: int | None


class Row(NamedTuple):
    """One day and model. `model` is empty where the export sums up over all of them."""

    day: dt.date
    model: str
    used: Used


NOTHING: Final = Used(None, None, None, None)


def read_invoice(path: Path) -> list[Row]:
    """Read an export.

    Raises:
        BooksError: it can't be read, or is of no layout that is known.
    """
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise BooksError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: no UTF-8 text"
        raise BooksError(msg) from error
    if len(data) > BYTES_MAX:
        msg = f"{path}: larger than {BYTES_MAX} bytes"
        raise BooksError(msg)
    is_json = text.lstrip()[:1] in ("{", "[")
    columns, rows = _from_json(path, text) if is_json else _from_csv(text)
    layout = layout_of(columns)
    if layout is None:
        named = plain(", ".join(columns[:COLUMNS_NAMED_MAX])) or "none"
        msg = f"{path}: unknown columns: {named}. Looked for: {looked_for()}"
        raise BooksError(msg)
    return [_row(path, number, row, layout) for number, row in rows]


Numbered = Iterator[tuple[int, Mapping[str, Any]]]


def _from_csv(text: str) -> tuple[Sequence[str], Numbered]:
    head = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    return reader.fieldnames, ((reader.line_num, row) for row in reader)


def _from_json(path: Path, text: str) -> tuple[Sequence[str], Numbered]:
    try:
        document = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        msg = f"{path}: no JSON"
        raise BooksError(msg) from error
    pages = document if isinstance(document, list) else [document]
    if pages and isinstance(pages[-1], dict) and pages[-1].get("has_more") is True:
        msg = f"{path}: `has_more` is true: fetch the other pages too, and put all into one list"
        raise BooksError(msg)
    rows = list(rows_of(document))
    columns = dict.fromkeys(name for row in rows for name in row)
    return list(columns), iter(enumerate(rows, 1))


def _row(path: Path, number: int, row: Mapping[str, Any], layout: Layout) -> Row:
    try:
        model = str(row.get(layout.model) or "").strip()
        if layout.is_itemized:
            model = model.partition(",")[0].strip()
        currency = str(row.get(layout.currency) or "usd") if layout.currency else "usd"
        if currency.lower() != "usd":
            msg = f"the currency is {plain(currency[:10])}, not USD"
            raise ValueError(msg)  # noqa: TRY301  # told below, with its place
        used = Used(
            _sum(row, layout.requests),
            _sum(row, layout.input_tokens),
            _sum(row, layout.output_tokens),
            _cost(row, layout),
        )
        return Row(_day(row.get(layout.day)), model, used)
    except ValueError as error:
        msg = f"{path}, row {number}: {error}"
        raise BooksError(msg) from error


def _sum(row: Mapping[str, Any], columns: Sequence[str]) -> int | None:
    if not columns:
        return None
    return int(sum(_number(row, column) for column in columns))


def _cost(row: Mapping[str, Any], layout: Layout) -> int | None:
    return round(_number(row, layout.cost) * layout.cost_scale) if layout.cost else None


def _number(row: Mapping[str, Any], column: str) -> Decimal:
    """What stands there; nothing is 0."""
    text = str(row.get(column) if row.get(column) is not None else "").strip().replace(",", "")
    try:
        number = Decimal(text.removeprefix("$") or 0)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number.adjusted()) > DIGITS_MAX:
        msg = f"{column} is no number"
        raise ValueError(msg)
    return number


def _day(value: object) -> dt.date:
    """The UTC day of a date, an instant, or seconds since 1970."""
    text = str(value if value is not None else "").strip()
    try:
        if len(text) >= SECONDS_DIGITS_MIN and text.replace(".", "", 1).isdigit():
            return dt.datetime.fromtimestamp(float(text), dt.UTC).date()
        instant = dt.datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError) as error:
        msg = "the day is no date"
        raise ValueError(msg) from error
    return (instant.astimezone(dt.UTC) if instant.tzinfo else instant).date()
