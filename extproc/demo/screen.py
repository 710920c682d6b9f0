"""The live screen, and lines for where there is no terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from extproc.demo.accesslog import Record
from extproc.demo.board import Board, Stream, Verdict, way, why

REFRESHES_PER_SECOND: Final = 12
_LINES_BESIDE_REQUESTS: Final = 22
_REQUESTS_SHOWN_MIN: Final = 2
_REQUESTS_SHOWN_MAX: Final = 20
_TIMELINE_WIDTH: Final = 60
_COLOURS: Final = {"premium": "magenta", "standard": "cyan", "default": "green"}


class Screen(Protocol):
    """Somebody to show the board to."""

    def changed(self) -> None:
        """Something on the board is new."""

    def judged(self, verdict: Verdict) -> None:
        """A step is over."""


class Lines:
    """One line for each step: for logs, pipes and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def changed(self) -> None:
        """Lines are for what is over."""

    def judged(self, verdict: Verdict) -> None:
        """Print it."""
        mark = "NO " if verdict.problems else "ok "
        self._console.print(
            f"{mark} {verdict.title:<55} {verdict.tenant:<9} {verdict.seen}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


class Picture:
    """Everything at a glance, drawn again many times a second."""

    def __init__(self, live: Live, board: Board, versions: str) -> None:
        self._live = live
        self._board = board
        self._versions = versions

    def changed(self) -> None:
        """Draw anew."""
        self._live.update(draw(self._board, self._versions, self._live.console.size.height))

    def judged(self, verdict: Verdict) -> None:
        """The picture shows the verdicts itself."""
        del verdict
        self.changed()


@contextmanager
def screen(console: Console, board: Board, *, versions: str, plain: bool) -> Iterator[Screen]:
    """A live picture on a terminal; lines elsewhere, or where `plain` asks for them."""
    if plain or not console.is_terminal:
        yield Lines(console)
        return
    with Live(console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True) as live:
        yield Picture(live, board, versions)


def draw(board: Board, versions: str, height: int) -> RenderableType:
    """The whole picture, for a terminal of `height` lines."""
    room = min(_REQUESTS_SHOWN_MAX, max(_REQUESTS_SHOWN_MIN, height - _LINES_BESIDE_REQUESTS))
    return Group(
        _headline(board, versions),
        _requests(list(board.records)[-room:]),
        _tenants(board),
        _streaming(board.stream),
    )


def _headline(board: Board, versions: str) -> RenderableType:
    done = len(board.verdicts)
    failed = sum(1 for verdict in board.verdicts if verdict.problems)
    line = Table.grid(expand=True)
    line.add_column(ratio=1)
    line.add_column(justify="right")
    state = f"{done} of {board.steps_total} steps"
    state += f", {failed} not as expected" if failed else ", all as expected"
    line.add_row(Text(board.title, style="bold"), Text(state, style="red" if failed else "green"))
    bar = ProgressBar(total=board.steps_total, completed=done, width=None)
    return Panel(Group(line, bar), title=versions, border_style="blue")


def _requests(records: list[Record]) -> RenderableType:
    table = _table("Requests, as Envoy logged them")
    for name in ("tenant", "path", "tokens", "tier", "served by", "code", "ms", "why"):
        is_number = name in ("tokens", "code", "ms")
        table.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=True,
            ratio=1 if name == "why" else None,
        )
    for record in records:
        table.add_row(*_cells(record))
    return table


def _table(title: str) -> Table:
    # No lines: the picture must fit 24 of them.
    return Table(
        title=title, title_justify="left", title_style="blue", box=None, expand=True, pad_edge=False
    )


def _cells(record: Record) -> tuple[RenderableType, ...]:
    llm = record.llm
    code_style = "green" if record.code < 400 else "red"  # noqa: PLR2004  # HTTP's own border
    tokens = llm.get("prompt_tokens")
    return (
        Text(llm.get("tenant", "")),
        Text(record.path.removeprefix("/v1")),
        Text("" if tokens is None else f"{tokens:.0f}"),
        Text(way(record), style=_COLOURS.get(llm.get("tier", ""), ""))
        if llm.get("tier")
        else Text(""),
        Text(record.cluster if record.was_forwarded else ""),
        Text(str(record.code), style=code_style),
        Text(str(record.duration_ms)),
        Text(why(record), style="yellow"),
    )


def _tenants(board: Board) -> RenderableType:
    table = _table("Tenants")
    names = ("tenant", "calls", *_COLOURS, "prompt tokens", "downgraded", "refused", "budget")
    for name in names:
        left = name in ("tenant", "refused", "budget")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for tenant, tally in sorted(board.tallies.items()):
        refusals = ", ".join(f"{n} {reason}" for reason, n in tally.refusals.items())
        table.add_row(
            tenant,
            str(tally.requests),
            *(Text(str(tally.tiers[tier] or ""), style=c) for tier, c in _COLOURS.items()),
            str(tally.prompt_tokens),
            str(tally.downgrades or ""),
            Text(refusals, style="red"),
            tally.budget,
        )
    return table


def _streaming(stream: Stream | None) -> RenderableType:
    if stream is None:
        return Panel(Text("none yet", style="dim"), title="Latest streamed answer")
    body = Group(Text(stream.text), Text(_timeline(stream), style="cyan"), Text(stream.pace()))
    return Panel(body, title=f"Latest streamed answer: {stream.title}", border_style="cyan")


def _timeline(stream: Stream) -> str:
    """A mark for each event, where it lies between the request and the latest event."""
    last = stream.pieces[-1][1] if stream.pieces else 1.0
    marks = [" "] * (_TIMELINE_WIDTH + 1)
    for _, seconds in stream.pieces:
        marks[int(seconds / last * _TIMELINE_WIDTH)] = "|"
    return "".join(marks)
