"""What is read when somebody scrapes, made fit to be shown."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from extproc.telemetry import metric_names as names
from extproc.telemetry.collectors import BudgetState, State, StateReader


class SettingsState(NamedTuple):
    """How the last reload of the settings went."""

    is_ok: bool
    """False: those before it are still in force."""
    loaded: float
    """When those in force were read, in seconds since 1970."""
    needing_restart: int = 0
    """Settings that have changed in the file, and can't while the process lives."""


class Families(Collector):
    """Metrics as they were read. Whoever writes them down may do so in any thread."""

    def __init__(self, *parts: Iterable[Metric]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """All parts, as prometheus-client asks."""
        for part in self._parts:
            yield from part


def read_state(state: State, is_model: Callable[[str], bool]) -> list[Metric]:
    """The state now: one series for each budget, and of models those that the settings have."""
    learnt = [known for known in state.learnt if is_model(known.model)]
    shown = state._replace(budgets=_fullest(state.budgets), learnt=learnt)
    return list(StateReader(lambda: shown).collect())


def read_settings(settings: SettingsState | None) -> Iterator[Metric]:
    """How the last reload went, where there are reloads."""
    if settings is not None:
        about = "Whether the last reload of the settings was taken"
        yield GaugeMetricFamily(names.SETTINGS_OK, about, int(settings.is_ok))
        about = "When the settings in force were read"
        yield GaugeMetricFamily(names.SETTINGS_LOADED, about, settings.loaded)
        about = "Settings that have changed and need a restart"
        yield GaugeMetricFamily(names.SETTINGS_WAITING, about, settings.needing_restart)


def build_info(version: str) -> Metric:
    """Which version runs."""
    return InfoMetricFamily(names.BUILD, "Which version", {"version": version})


def _fullest(budgets: Iterable[BudgetState]) -> list[BudgetState]:
    """Of the windows that last now, the fullest of each budget.

    There are two while a budget's window was just changed, and Prometheus takes no series twice.
    """
    found: dict[tuple[str, str, str], BudgetState] = {}
    for budget in budgets:
        before = found.setdefault(budget[:3], budget)
        if budget.committed + budget.reserved > before.committed + before.reserved:
            found[budget[:3]] = budget
    return list(found.values())
