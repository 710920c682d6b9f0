"""Audit lines charged to a ledger that has lost them: each once, however often they are read.

A ledger charges a settlement if it does not know its reservation. It knows those that were settled
for a few hours, and says since when it knows all of them. A request that ended before that may
have been charged or not: nothing is added for it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, TypeVar

from extproc.bookkeeping.lines import AuditLine, Broken
from extproc.ledger.port import OpenLedger
from extproc.policy.budgets import Settled, Settlement

BATCH: Final = 5000
"""Settlements given to the ledger at once: each batch is one write that is synced."""

SHARED_BATCH: Final = 200
"""The same where a service decides meanwhile: no call of it waits long behind one batch."""

CLOCK_SKEW_SECONDS: Final = 60.0
"""By how much Envoy's clock, which is in the lines, and the ledger's may differ."""

WINDOWS_MAX: Final = 100_000
"""Windows told apart. What comes beyond is summed up in one row."""

BROKEN_NAMED_MAX: Final = 100
"""Broken lines whose places are kept."""

PROGRESS_LINES: Final = 100_000

T = TypeVar("T")

Window = tuple[str, str, str, int]
"""Tenant, budget, unit, and the start of the window."""

OTHERS: Final[Window] = ("(others)", "", "", 0)


What = Literal["charged", "known", "too_old", "refused"]
"""What became of a line: charged now; before; nobody can tell; no ledger can keep it."""


@dataclass(slots=True)
class Tally:
    """What became of the lines of one window. Amounts are in the budget's unit."""

    charged: int = 0
    charged_amount: int = 0
    known: int = 0
    too_old: int = 0
    too_old_amount: int = 0
    refused: int = 0

    def add(self, what: What, amount: int = 0) -> None:
        """Count a line."""
        match what:
            case "charged":
                self.charged += 1
                self.charged_amount += amount
            case "known":
                self.known += 1
            case "too_old":
                self.too_old += 1
                self.too_old_amount += amount
            case "refused":
                self.refused += 1


class Report:
    """What became of all lines."""

    def __init__(self) -> None:
        self.lines = 0
        """Audit lines, whatever they are about."""
        self.requests = Tally()
        """Requests, however many budgets they are about. Amounts are not summed up here."""
        self.windows: dict[Window, Tally] = {}
        self.broken = 0
        self.broken_at: list[Broken] = []
        self.trouble = ""
        """Why the ledger took no more, if so."""
        self.remembers_since = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether every line could be used."""
        return not (self.broken or self.requests.too_old or self.requests.refused or self.trouble)

    def note_broken(self, broken: Broken) -> None:
        """Count a line that can't be read."""
        self.broken += 1
        if len(self.broken_at) < BROKEN_NAMED_MAX:
            self.broken_at.append(broken)

    def note(self, line: AuditLine, what: What) -> None:
        """Count a line, and what it says of each of its windows."""
        self.requests.add(what)
        for charge in line.charges:
            if not charge.window_start:
                continue  # of what is in flight nothing is kept
            window: Window = (line.tenant, charge.budget, charge.unit, charge.window_start)
            if window not in self.windows and len(self.windows) >= WINDOWS_MAX:
                window = OTHERS
            self.windows.setdefault(window, Tally()).add(what, charge.amount)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for programs."""
        names = ("tenant", "budget", "unit", "window_start")
        return {
            "lines": self.lines,
            "requests": asdict(self.requests),
            "broken": self.broken,
            "broken_at": [broken._asdict() for broken in self.broken_at],
            "trouble": self.trouble,
            "remembers_since": self.remembers_since,
            "windows": [
                dict(zip(names, window, strict=True)) | asdict(tally)
                for window, tally in sorted(self.windows.items())
            ],
        }


class _Case(NamedTuple):
    line: AuditLine
    settlement: Settlement


async def replay(
    ledger: OpenLedger,
    lines: Iterable[AuditLine | Broken],
    *,
    batch_max: int = BATCH,
    progress: Callable[[int], object] = int,
) -> Report:
    """Charge the lines that `ledger` does not know.

    Nobody else may settle in a ledger that is a file meanwhile. `progress` is told the number of
    lines, now and then.
    """
    report = Report()
    met: set[str] = set()
    for cases in _batches(_chargeable(lines, report, progress), batch_max):
        report.remembers_since = await _remembers_since(ledger, cases, met)
        batch = list(_young(cases, report))
        for case, taken in zip(batch, await _settle(ledger, batch), strict=True):
            report.note(case.line, _OUTCOMES[taken])
            if taken == "unavailable":
                report.trouble = ledger.health() or "the ledger takes no more"
        if report.trouble:
            break
    return report


_OUTCOMES: Final[dict[Settled | None, What]] = {
    "settled": "charged",
    "late": "charged",
    "unknown": "charged",
    "repeated": "known",
    "unavailable": "refused",
    None: "refused",
}


def _chargeable(
    lines: Iterable[AuditLine | Broken], report: Report, progress: Callable[[int], object]
) -> Iterator[_Case]:
    """Those that are about a reservation."""
    for number, line in enumerate(lines, 1):
        if number % PROGRESS_LINES == 0:
            progress(number)
        if isinstance(line, Broken):
            report.note_broken(line)
            continue
        report.lines += 1
        settlement = line.settlement()
        if settlement is not None:
            yield _Case(line, settlement)


async def _remembers_since(ledger: OpenLedger, cases: list[_Case], met: set[str]) -> float:
    """Since when the ledger knows all; one in a server says so of each tenant that it is asked of.

    `met` are those that it was asked of, and become more.
    """
    for tenant in {case.line.tenant for case in cases} - met:
        await ledger.standing(tenant, ())
        met.add(tenant)
    return ledger.remembers_since()


def _young(cases: list[_Case], report: Report) -> Iterator[_Case]:
    """Those young enough to be told from one that was charged."""
    known_from = report.remembers_since and report.remembers_since + CLOCK_SKEW_SECONDS
    for case in cases:
        if case.line.ended < known_from:
            report.note(case.line, "too_old")
        else:
            yield case


async def _settle(ledger: OpenLedger, batch: list[_Case]) -> tuple[Settled | None, ...]:
    """Settle all; None for what no ledger can keep, which must not hold up the rest."""
    try:
        return await ledger.settle([case.settlement for case in batch])
    except ValueError:
        answers: list[Settled | None] = []
        for case in batch:
            try:
                answers += await ledger.settle([case.settlement])
            except ValueError:
                answers.append(None)
        return tuple(answers)


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch
