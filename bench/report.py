"""Where results go: JSON and pictures in `results/`, tables between marks in `README.md`.

A table is written from the JSON alone, so that the page can't say what was not measured:
`save` first, then `fill_in`. The marks are HTML comments, `<!-- NAME -->` and `<!-- /NAME -->`,
one a line.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

RESULTS: Final = Path(__file__).parent / "results"
PAGE: Final = Path(__file__).parent / "README.md"


class Spread(NamedTuple):
    """What repeated measurements came to."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 0) -> str:
        """Say it as tables do: median (low..high)."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    """Sum up one figure for each round. There must be one."""
    found = sorted(values)
    return Spread(statistics.median(found), found[0], found[-1])


def ratios(these: Sequence[float], others: Sequence[float]) -> Spread:
    """Sum up `these` over `others`, round by round: the machine's mood cancels out."""
    return spread(one / other for one, other in zip(these, others, strict=True))


def save(name: str, result: Mapping[str, Any], *, results: Path = RESULTS) -> Path:
    """Write `results/NAME.json`; return where."""
    path = results / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table."""
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill_in(name: str, text: str, *, page: Path = PAGE) -> None:
    """Put `text` between the marks of `name`, in place of what is there.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, found, rest = page.read_text().partition(begin)
    _, found_too, after = rest.partition(end)
    if not (found and found_too):
        msg = f"{page.name} has no marks for {name}"
        raise ValueError(msg)
    page.write_text(f"{before}{begin}\n{text}\n\n{end}{after}")
