"""Pictures of results, as PNG. Needs matplotlib, which only benches do.

    bars(path, "CPU a request", unit="µs", series={"16 connections": {"ours": Spread(...)}})
    lines(path, "Latency", x="requests/s", y="ms", series={"ours, p99": [(100, Spread(...))]})

Colours are told apart by the colour-blind, and the first series of any picture has the first.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import Spread

COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
"""Okabe and Ito's, and grey; then from the beginning."""

_GRID: Final = "#dddddd"
_WHISKER: Final = "#444444"
_WIDTH_INCHES: Final = 8.0
_HEIGHT_INCHES: Final = 4.5
_BAR_INCHES: Final = 0.28
_DOTS_PER_INCH: Final = 120


def bars(path: Path, title: str, *, unit: str, series: Mapping[str, Mapping[str, Spread]]) -> None:
    """Draw a bar for each label, as long as its median, with a whisker from low to high.

    `series` has values by label. Labels stand in the order of their first appearance, from the
    top; a series may lack some.
    """
    labels = list(dict.fromkeys(label for values in series.values() for label in values))
    height = len(labels) * (len(series) * _BAR_INCHES + 0.15) + 1.2
    figure, axes = _canvas(title, height)
    axes.grid(color=_GRID, axis="x")
    thickness = 0.8 / len(series)
    for number, (name, colour) in enumerate(zip(series, cycle(COLOURS), strict=False)):
        above = (number - (len(series) - 1) / 2) * thickness
        values = {labels.index(label) + above: value for label, value in series[name].items()}
        _draw_bars(axes, values, thickness, name=name, colour=colour)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    if len(series) > 1:
        axes.legend(frameon=False)
    _write(figure, path)


def _draw_bars(
    axes: Axes, values: Mapping[float, Spread], thickness: float, *, name: str, colour: str
) -> None:
    """Draw one series, each of its values at its place."""
    spreads = values.values()
    whiskers = (
        [value.median - value.low for value in spreads],
        [value.high - value.median for value in spreads],
    )
    axes.barh(
        list(values),
        [value.median for value in spreads],
        thickness,
        xerr=whiskers,
        label=name,
        color=colour,
        ecolor=_WHISKER,
        capsize=2,
    )
    for place, value in values.items():
        axes.annotate(
            f"{value.median:.3g}" if value.median < 999.5 else f"{value.median:.0f}",
            (value.high, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )


def lines(  # noqa: PLR0913  # all are named, and each says itself what it is
    path: Path,
    title: str,
    *,
    x: str,
    y: str,
    series: Mapping[str, Sequence[tuple[float, Spread]]],
    logarithmic: Literal["", "x", "y", "xy"] = "",
) -> None:
    """Draw a line through the medians of each series, in a band from low to high.

    `x` and `y` say what the axes are, with units; `logarithmic` names those that are.
    """
    figure, axes = _canvas(title, _HEIGHT_INCHES)
    axes.grid(color=_GRID)
    for name, colour in zip(series, cycle(COLOURS), strict=False):
        places = [place for place, _ in series[name]]
        values = [value for _, value in series[name]]
        medians = [value.median for value in values]
        axes.plot(places, medians, marker="o", markersize=4, label=name, color=colour)
        low, high = [value.low for value in values], [value.high for value in values]
        axes.fill_between(places, low, high, alpha=0.15, color=colour, linewidth=0)
    axes.set(xlabel=x, ylabel=y)
    if "x" in logarithmic:
        axes.set_xscale("log")
    if "y" in logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _write(figure, path)


def _canvas(title: str, height_inches: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_axisbelow(True)
    axes.spines[["right", "top"]].set_visible(False)
    return figure, axes


def _write(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})
