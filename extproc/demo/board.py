"""What the screen shows, gathered from Envoy's access log and from the SDKs. No drawing here."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from extproc.demo.accesslog import Record
from extproc.demo.clients import Outcome
from extproc.demo.steps import Step

RECORDS_SHOWN_MAX: Final = 100


class Tally:
    """One tenant's requests so far."""

    def __init__(self) -> None:
        self.requests = 0
        self.tiers: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.downgrades = 0
        self.prompt_tokens = 0
        self.budget = ""

    def add(self, record: Record) -> None:
        """Count one more."""
        llm = record.llm
        self.requests += 1
        if tier := llm.get("tier"):
            self.tiers[tier] += 1
            self.prompt_tokens += int(llm.get("prompt_tokens", 0))
        if record.details.startswith("llm_"):
            self.refusals[record.details.removeprefix("llm_")] += 1
        self.downgrades += "downgraded_from" in llm
        if limit := llm.get("budget_limit"):
            share = llm["budget_remaining"] / limit
            self.budget = f"{llm['budget_policy']} {max(0.0, share):.0%} left"


class Stream(NamedTuple):
    """An answer that is arriving: its pieces, each with the second in which it came."""

    title: str
    pieces: tuple[tuple[str, float], ...] = ()

    @property
    def text(self) -> str:
        """What has arrived."""
        return "".join(piece for piece, _ in self.pieces)

    def pace(self) -> str:
        """Say when the pieces came."""
        if not self.pieces:
            return "waiting for the first event"
        first, last = self.pieces[0][1], self.pieces[-1][1]
        return (
            f"first event after {first * 1000:.0f} ms, {len(self.pieces)} events so far,"
            f" the latest after {last * 1000:.0f} ms"
        )


class Verdict(NamedTuple):
    """A step that is over, or several of one kind; `problems` is empty if all went well."""

    title: str
    tenant: str
    seen: str
    problems: tuple[str, ...]


class Board:
    """Everything so far."""

    def __init__(self, steps_total: int) -> None:
        self.steps_total = steps_total
        self.title = ""
        self.tallies: dict[str, Tally] = {}
        self.records: deque[Record] = deque(maxlen=RECORDS_SHOWN_MAX)
        self.stream: Stream | None = None
        self.verdicts: list[Verdict] = []

    def take(self, records: Iterable[Record]) -> None:
        """Add what Envoy logged."""
        for record in records:
            self.records.append(record)
            tenant = record.llm.get("tenant", "unknown")
            if record.llm:
                self.tallies.setdefault(tenant, Tally()).add(record)

    def hear(self, title: str, piece: str, seconds: float) -> None:
        """Add a piece of a streamed answer."""
        if self.stream is None or self.stream.title != title:
            self.stream = Stream(title)
        pieces = (*self.stream.pieces, (piece, seconds))
        self.stream = self.stream._replace(pieces=pieces)

    @property
    def problems(self) -> list[str]:
        """All that was not as expected."""
        return [f"{v.title}: {problem}" for v in self.verdicts for problem in v.problems]


def seen_of(step: Step, outcome: Outcome, records: Sequence[Record]) -> str:
    """What came of a step, in one line."""
    if not records:
        return outcome.error or "Envoy logged nothing"
    last = records[-1]
    attempts = "" if len(records) == 1 else f" after {len(records)} attempts"
    if outcome.error:
        wait = f", try again in {outcome.retry_after} s" if outcome.retry_after else ""
        return f"{last.code} {outcome.error}{attempts}: {why(last)}{wait}"
    if step.ask.is_streamed and outcome.arrivals:
        first, final = outcome.arrivals[0] * 1000, outcome.arrivals[-1] * 1000
        pieces = len(outcome.arrivals)
        return f"{way(last)}, {pieces} events, first {first:.0f} ms, last {final:.0f} ms"
    return way(last) + attempts


def way(record: Record) -> str:
    """Which tier and which upstream a request went to."""
    if not record.was_forwarded:
        return f"{record.code} {record.details[:60]}"
    tier = record.llm.get("tier")
    if tier is None:
        return f"{record.cluster}, untouched"
    downgraded_from = record.llm.get("downgraded_from")
    return f"{downgraded_from} > {tier}" if downgraded_from else str(tier)


def why(record: Record) -> str:
    """Why a request was refused or served by another tier, or empty."""
    return str(record.llm.get("reason", ""))
