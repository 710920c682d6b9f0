"""The numbers, drawn: what a platform engineer opens when somebody asks why it is slow, or dear."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from extproc.demo.figures import BUDGET_COMPARED, Figures, Hop, Pace, Standing

_BAR_WIDTH: Final = 40
_THREE_DIGITS: Final = 1000


def open_numbers(console: Console, figures: Figures, *, plain: bool) -> None:
    """Print a table for each question."""
    for table in _tables(figures, plain=plain):
        if plain:
            console.print()
        console.print(table)
    console.print()


def _tables(figures: Figures, *, plain: bool) -> Iterator[Table]:
    yield _hops(
        figures, _table("Where is the time going? To the last byte of an answer, by hop", plain)
    )
    yield _paces(figures.paces, _table("How fast is each model?", plain))
    yield _budgets(figures, _table("What did it cost, and who pays?", plain))


def _table(title: str, plain: bool) -> Table:  # noqa: FBT001  # private
    table = Table(title=title, title_justify="left", title_style="bold blue")
    if plain:
        table.box, table.pad_edge = None, False
    return table


def _columns(table: Table, left: Sequence[str], *right: str) -> None:
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)


def _hops(figures: Figures, table: Table) -> Table:
    _columns(table, ["hop"], "requests", "p50 ms", "p95 ms")
    table.add_column("p50", no_wrap=True)
    table.caption = "a model's p95 is that of its streams, which last as long as they are written"
    if figures.replicas > 1:
        table.caption += (
            "\nseen before one replica was killed; of what they say, that of the middle one"
        )
    table.caption_justify = "left"
    slowest = figures.slowest()
    for hop in sorted(figures.hops, key=lambda hop: -(hop.p50_ms or 0.0)):
        style = "bold red" if hop == slowest else ""
        cells = (hop.name, str(hop.requests), _number(hop.p50_ms), _number(hop.p95_ms))
        table.add_row(*(Text(cell, style) for cell in cells), _bar(hop, slowest))
    return table


def _bar(hop: Hop, slowest: Hop | None) -> RenderableType:
    longest = (slowest.p50_ms if slowest is not None else None) or 1.0
    colour = "red" if hop == slowest else "cyan"
    return Bar(longest, 0, hop.p50_ms or 0.0, width=_BAR_WIDTH, color=colour)


def _paces(paces: Sequence[Pace], table: Table) -> Table:
    _columns(table, ["model"], "requests", "tokens/s of a stream", "first token ms")
    for pace in paces:
        table.add_row(
            pace.model,
            str(pace.requests),
            _number(pace.tokens_per_second),
            _number(pace.first_token_ms),
        )
    return table


def _number(value: float | None) -> str:
    """Three digits: what is told of the last minutes is right to within a few percent."""
    return "" if value is None else f"{value:.3g}" if value < _THREE_DIGITS else f"{value:.0f}"


def _budgets(figures: Figures, table: Table) -> Table:
    _columns(table, ["tenant", "budget"], "limit", "committed", "reserved", "served by the models")
    served = figures.served_tokens()
    for standing in figures.standings:
        table.add_row(
            standing.tenant,
            standing.budget,
            *(
                _amount(standing, n)
                for n in (standing.limit, standing.committed, standing.reserved)
            ),
            _said(standing, served.get(standing.tenant, 0)),
        )
    return table


def _amount(standing: Standing, number: float) -> str:
    return f"${number:.6f}" if standing.unit == "usd" else f"{number:,.0f}"


def _said(standing: Standing, served: int) -> Text:
    """What the models say, beside the budget that counts the same."""
    if standing.budget != BUDGET_COMPARED:
        return Text("")
    return Text(f"{served:,}", "green" if served == standing.committed else "bold red")
