"""The comparison: what tenants owe beside what they were charged."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from chaos.client import Ending
from chaos.dues import Price, Range, due_of, sums
from chaos.ledger_file import Contents
from extproc.demo.books import Answer


class Findings(NamedTuple):
    """What the comparison has shown. All is well if there are no `differences`."""

    reached: int
    """Requests that came to a model."""
    completed: int
    """Those whose answer the client has whole, and that cost something."""
    lost: int
    """Completed ones of which the ledger knows nothing, or no more than that they expired."""
    charged_twice: int
    expired: int
    """Reservations that were charged what they expected, since nobody said what became of them."""
    differences: tuple[str, ...]
    """Where a tenant's sums are not what is owed."""
    open_tokens: Range
    """How far apart the bounds are: what is owed by requests that broke off."""


class Seen(NamedTuple):
    """All that is known of a run. Answers and reservations are by step."""

    endings: Sequence[Ending]
    answers: Mapping[str, Answer]
    reservations: Mapping[str, str]
    prices: Mapping[str, Price]


def compare(seen: Seen, ledger: Contents) -> Findings:
    """Hold the ledger to what models and clients say."""
    owed = sums(seen.endings, seen.answers, seen.prices)
    differences = []
    twice = 0
    for (tenant, unit), bounds in sorted(owed.items()):
        charged = ledger.settled_for(tenant, unit)
        if not bounds.low <= charged <= bounds.high:
            differences.append(f"{tenant}: {charged} {unit} charged, {_said(bounds)} owed")
        if unit == "requests":
            twice += max(0, charged - bounds.high)
    completed = [ending.call.step for ending in seen.endings if _is_paid(ending, seen)]
    lost = [step for step in completed if seen.reservations.get(step) not in ledger.settled]
    differences += [f"{step} was completed and is not settled" for step in lost[:10]]
    return Findings(
        reached=sum(ending.call.step in seen.answers for ending in seen.endings),
        completed=len(completed),
        lost=len(lost),
        charged_twice=twice,
        expired=len(ledger.expired),
        differences=tuple(differences),
        open_tokens=_sum(bounds for (_, unit), bounds in owed.items() if unit == "tokens"),
    )


def _is_paid(ending: Ending, seen: Seen) -> bool:
    """Whether a client has the whole answer of a model that wants to be paid."""
    due = due_of(ending, seen.answers.get(ending.call.step), Price())
    return ending.is_whole and due.requests.low > 0


def _sum(ranges: Iterable[Range]) -> Range:
    total = Range(0, 0)
    for bounds in ranges:
        total += bounds
    return total


def _said(bounds: Range) -> str:
    return str(bounds.low) if bounds.is_exact else f"{bounds.low} to {bounds.high}"
