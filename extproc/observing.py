"""Those who observe finished requests, put together: metrics, spans, audit, the last minutes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final, NamedTuple

from extproc.ledger.port import OpenLedger
from extproc.server.desk import LEARNT, Observer, experiences
from extproc.server.rulebook import Rulebook
from extproc.telemetry import lines
from extproc.telemetry.audit import Audit, open_audit
from extproc.telemetry.collectors import BudgetState, Learnt, State
from extproc.telemetry.metric_state import SettingsState
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.recent import Recent
from extproc.telemetry.spans import Spans
from extproc.telemetry.turns import Turn

BUDGETS_MAX: Final = 2000
"""Budgets in use that have metrics of their own; the admin page finds the others."""


class Common(NamedTuple):
    """What those have in common that observe in several processes."""

    turn: Turn = lines.ALONE
    """To write audit lines."""
    since: float | None = None
    """When all of them began, in seconds since 1970: so what they see can be put together."""


ALONE: Final = Common()


class Observing(NamedTuple):
    """All of them. `observers` are told of each request once."""

    metrics: Metrics
    recent: Recent
    audit: Audit
    observers: Sequence[Observer]


@contextmanager
def observing(
    rulebook: Rulebook,
    ledger: OpenLedger,
    clock: Callable[[], float],
    version: str,
    common: Common = ALONE,
) -> Iterator[Observing]:
    """Open what the settings ask for, and close it when the block ends.

    Raises:
        OSError: the audit's file can't be opened.
    """
    wanted = rulebook.loaded.settings.telemetry
    audit = open_audit(wanted.audit, common.turn)
    spans = Spans(wanted.spans, version=version) if wanted.spans else None

    def state() -> State:
        return State(
            budgets=islice(_budgets(rulebook, ledger), BUDGETS_MAX),
            learnt=_learnt(ledger),
            is_ledger_well=not ledger.health(),
            without_store=ledger.without_store,
            reservations=ledger.size.held,
            expired=ledger.expired,
            spans_dropped=spans.dropped if spans is not None else 0,
            audit_lost=audit.lost,
        )

    metrics = Metrics(
        version=version,
        tenants=lambda: rulebook.loaded.settings.tenants,
        models=lambda: rulebook.loaded.settings.models,
        tiers=lambda: rulebook.loaded.settings.tiers,
        state=state,
        settings=lambda: _settings(rulebook),
    )
    recent = Recent(clock, common.since)
    observers: list[Observer] = [metrics, recent]
    if spans is not None:
        observers.append(spans)
    try:
        yield Observing(metrics, recent, audit, observers)
    finally:
        audit.close()
        if spans is not None:
            spans.close()


def _budgets(rulebook: Rulebook, ledger: OpenLedger) -> Iterator[BudgetState]:
    """Budgets in use that the rules still have, with the limits that hold now."""
    tenants = rulebook.rules.policy.tenants
    for found in ledger.sums():
        budgets = tenants[found.tenant].budgets if found.tenant in tenants else ()
        for budget in budgets:
            if budget.id == found.budget:
                yield BudgetState(
                    found.tenant,
                    found.budget,
                    budget.unit,
                    budget.limit_units,
                    found.committed,
                    found.reserved,
                )


def _settings(rulebook: Rulebook) -> SettingsState:
    attempt = rulebook.last_attempt
    is_ok = attempt is None or not attempt.problems
    return SettingsState(is_ok, rulebook.since, len(rulebook.needs_restart))


def _learnt(ledger: OpenLedger) -> Iterator[Learnt]:
    for model, known in experiences(ledger.notes(LEARNT)).items():
        yield Learnt(model, known.prompt_ratio, known.output_tokens)
