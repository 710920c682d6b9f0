"""What several workers counted, as if one had: sums that never go down, and the state of now.

The ledger is shared: each worker sees all budgets, as far as it has heard. Of what they see of the
same budget the fullest counts, as it does between two windows.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from extproc.telemetry import tally
from extproc.telemetry.collectors import BudgetState, Learnt, State
from extproc.telemetry.metric_names import DECISIONS
from extproc.telemetry.metric_state import SettingsState
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.tally import Tally


class Gauges(msgspec.Struct, frozen=True):
    """How things stand for one worker."""

    budgets: list[BudgetState]
    learnt: list[Learnt]
    is_ledger_well: bool
    reservations: int
    settings: SettingsState | None


class Figures(msgspec.Struct, frozen=True):
    """One worker's. `not_ready` says why it should get no requests, empty while it should."""

    tally: Tally = tally.NOTHING
    expired: int = 0
    spans_dropped: int = 0
    audit_lost: int = 0
    not_ready: str = ""
    gauges: Gauges | None = None


def figures_of(metrics: Metrics, not_ready: str, *, is_whole: bool) -> Figures:
    """What a worker has to say; its state too where it `is_whole`, which costs milliseconds."""
    state, settings = metrics.read()
    gauges = None
    if is_whole:
        gauges = Gauges(
            list(state.budgets),
            list(state.learnt),
            state.is_ledger_well,
            state.reservations,
            settings,
        )
    return Figures(
        metrics.tally(),
        state.expired,
        state.spans_dropped,
        state.audit_lost,
        not_ready,
        gauges,
    )


class Together:
    """The figures of all workers, of those too that are gone."""

    def __init__(self, version: str) -> None:
        self._now: dict[int, Figures] = {}
        self._gone: dict[int, Figures] = {}
        self._metrics = Metrics(
            version=version,
            tenants=frozenset,
            models=self._models,
            tiers=frozenset,
            state=self._state,
            settings=self._settings,
        )

    def take(self, number: int, figures: Figures) -> None:
        """A worker has answered."""
        self._now[number] = figures

    def died(self, number: int) -> None:
        """What it had counted when it answered last stays counted; what it held is not its any more."""
        last = self._now.pop(number, None)
        if last is not None:
            before = self._gone.get(number, NOTHING)
            self._gone[number] = Figures(
                tally.total((before.tally, last.tally)),
                before.expired + last.expired,
                before.spans_dropped + last.spans_dropped,
                before.audit_lost + last.audit_lost,
            )

    def decisions(self) -> Mapping[int, float]:
        """How many exchanges each worker has seen, with those before it of its number."""
        found: dict[int, float] = {}
        for part in (self._gone, self._now):
            for number, figures in part.items():
                counts = figures.tally.counts.get(DECISIONS, {})
                found[number] = found.get(number, 0) + sum(counts.values())
        return found

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All of it as text, and the content type, in the format that `accept` asks for."""
        self._metrics.show(tally.total(figures.tally for figures in self._all()))
        return self._metrics.expose(accept)

    def _all(self) -> Iterable[Figures]:
        return (*self._gone.values(), *self._now.values())

    def _gauges(self) -> list[Gauges]:
        return [figures.gauges for figures in self._now.values() if figures.gauges is not None]

    def _models(self) -> frozenset[str]:
        return frozenset(known.model for gauges in self._gauges() for known in gauges.learnt)

    def _state(self) -> State:
        found = self._gauges()
        learnt = {known.model: known for gauges in found for known in gauges.learnt}
        return State(
            budgets=[budget for gauges in found for budget in gauges.budgets],
            learnt=list(learnt.values()),
            is_ledger_well=all(gauges.is_ledger_well for gauges in found),
            reservations=sum(gauges.reservations for gauges in found),
            expired=sum(figures.expired for figures in self._all()),
            spans_dropped=sum(figures.spans_dropped for figures in self._all()),
            audit_lost=sum(figures.audit_lost for figures in self._all()),
        )

    def _settings(self) -> SettingsState | None:
        """The worst of them: the oldest that are in force anywhere."""
        found = [gauges.settings for gauges in self._gauges() if gauges.settings is not None]
        if not found:
            return None
        return SettingsState(
            all(settings.is_ok for settings in found),
            min(settings.loaded for settings in found),
            max(settings.needing_restart for settings in found),
        )


NOTHING: Final = Figures()
