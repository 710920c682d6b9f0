"""What several workers counted, as if one had: sums that never go down, and the state of now.

The ledger is shared: each worker sees all budgets, as far as it has heard. Of what they see of the
same budget the fullest counts, as it does between two windows.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
from prometheus_client.registry import Collector

from extproc.telemetry import tally
from extproc.telemetry.collectors import BudgetState, Learnt, State
from extproc.telemetry.metric_names import DECISIONS
from extproc.telemetry.metric_state import SettingsState
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.tally import Tally


class Ended(msgspec.Struct, frozen=True):
    """Counters that are read with the state."""

    expired: int = 0
    spans_dropped: int = 0
    audit_lost: int = 0


class Standing(msgspec.Struct, frozen=True):
    """How things stand for one worker."""

    budgets: list[BudgetState]
    learnt: list[Learnt]
    is_ledger_well: bool
    reservations: int
    ended: Ended
    settings: SettingsState | None


class Figures(msgspec.Struct, frozen=True):
    """One worker's. `not_ready` says why it should get no requests, empty while it should."""

    tally: Tally = tally.NOTHING
    not_ready: str = ""
    standing: Standing | None = None


def figures_of(metrics: Metrics, not_ready: str, *, is_whole: bool) -> Figures:
    """What a worker has to say; how things stand too where it `is_whole`, for milliseconds more."""
    if not is_whole:
        return Figures(metrics.tally(), not_ready)
    state, settings = metrics.read()
    standing = Standing(
        list(state.budgets),
        list(state.learnt),
        state.is_ledger_well,
        state.reservations,
        Ended(state.expired, state.spans_dropped, state.audit_lost),
        settings,
    )
    return Figures(metrics.tally(), not_ready, standing)


class _Gone(NamedTuple):
    """What those before had counted."""

    tally: Tally = tally.NOTHING
    ended: Ended = Ended()


class Together:
    """The figures of all workers, of those too that are gone."""

    def __init__(self, version: str, beside: Collector) -> None:
        self._now: dict[int, Figures] = {}
        self._gone: dict[int, _Gone] = {}
        self._metrics = Metrics(
            version=version,
            tenants=frozenset,
            models=self._models,
            tiers=frozenset,
            state=self._state,
            settings=self._settings,
        )
        self._metrics.show_too(beside)

    def take(self, number: int, figures: Figures) -> None:
        """A worker has answered; where it did not say how things stand, they stand as before."""
        before = self._now.get(number)
        if figures.standing is None and before is not None:
            figures = msgspec.structs.replace(figures, standing=before.standing)
        self._now[number] = figures

    def died(self, number: int) -> None:
        """What it had counted when it answered last stays counted; it stands for nothing more."""
        last = self._now.pop(number, None)
        if last is not None:
            before = self._gone.get(number, _Gone())
            ended = last.standing.ended if last.standing is not None else Ended()
            self._gone[number] = _Gone(
                tally.total((before.tally, last.tally)), _sum((before.ended, ended))
            )

    def not_ready(self) -> dict[int, str]:
        """Why workers should get no requests, or empty, as they said last."""
        return {number: figures.not_ready for number, figures in self._now.items()}

    def decisions(self) -> Mapping[int, float]:
        """How many exchanges each worker has seen, with those before it of its number."""
        found: dict[int, float] = {}
        gone = [(number, part.tally) for number, part in self._gone.items()]
        now = [(number, part.tally) for number, part in self._now.items()]
        for number, part in (*gone, *now):
            counts = part.counts.get(DECISIONS, {})
            found[number] = found.get(number, 0) + sum(counts.values())
        return found

    @property
    def reservations(self) -> int:
        """How many are held by any worker."""
        return sum(standing.reservations for standing in self._standings())

    @property
    def ended(self) -> Ended:
        """Of all workers there ever were."""
        now = [standing.ended for standing in self._standings()]
        return _sum((*(gone.ended for gone in self._gone.values()), *now))

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All of it as text, and the content type, in the format that `accept` asks for."""
        gone = [part.tally for part in self._gone.values()]
        now = [part.tally for part in self._now.values()]
        self._metrics.show(tally.total((*gone, *now)))
        return self._metrics.expose(accept)

    def _standings(self) -> list[Standing]:
        found = (figures.standing for figures in self._now.values())
        return [standing for standing in found if standing is not None]

    def _models(self) -> frozenset[str]:
        return frozenset(known.model for standing in self._standings() for known in standing.learnt)

    def _state(self) -> State:
        found, ended = self._standings(), self.ended
        learnt = {known.model: known for standing in found for known in standing.learnt}
        return State(
            budgets=[budget for standing in found for budget in standing.budgets],
            learnt=list(learnt.values()),
            is_ledger_well=all(standing.is_ledger_well for standing in found),
            reservations=self.reservations,
            expired=ended.expired,
            spans_dropped=ended.spans_dropped,
            audit_lost=ended.audit_lost,
        )

    def _settings(self) -> SettingsState | None:
        """The worst of them: the oldest that are in force anywhere."""
        settings = (standing.settings for standing in self._standings())
        found = [one for one in settings if one is not None]
        if not found:
            return None
        return SettingsState(
            all(one.is_ok for one in found),
            min(one.loaded for one in found),
            max(one.needing_restart for one in found),
        )


def _sum(parts: Iterable[Ended]) -> Ended:
    found = list(parts)
    return Ended(
        sum(part.expired for part in found),
        sum(part.spans_dropped for part in found),
        sum(part.audit_lost for part in found),
    )
