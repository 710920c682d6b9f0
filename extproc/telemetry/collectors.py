"""Figures that are no metrics until somebody scrapes: integers of the hot path, and the state."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from extproc.policy.budgets import DecidedBy
from extproc.telemetry import metric_names as names


class BudgetState(NamedTuple):
    """How one budget stands in its window of now, in its integer unit."""

    tenant: str
    budget: str
    unit: str
    limit: int
    committed: int
    reserved: int


class Learnt(NamedTuple):
    """What was learnt about a model."""

    model: str
    prompt_ratio: float
    output_tokens: float


class State(NamedTuple):
    """What is read when somebody scrapes, instead of being kept up to date."""

    budgets: Iterable[BudgetState] = ()
    learnt: Iterable[Learnt] = ()
    is_ledger_well: bool = True
    without_store: Mapping[DecidedBy, int] = MappingProxyType({})
    reservations: int = 0
    expired: int = 0
    spans_dropped: int = 0
    audit_lost: int = 0


class Decisions(Collector):
    """Counts in plain integers, and makes metrics of them when somebody asks."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._buckets = [0] * (len(names.DECISION_BUCKETS) + 1)
        self._seconds = 0.0

    def count(self, outcome: str, reason: str, seconds: float) -> None:
        """Count one."""
        key = (outcome, reason)
        self._counts[key] = self._counts.get(key, 0) + 1
        self._buckets[bisect_left(names.DECISION_BUCKETS, seconds)] += 1
        self._seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """Say how things stand, as prometheus-client asks."""
        counts = CounterMetricFamily(
            names.DECISIONS,
            "Exchanges, and what became of them",
            labels=names.LABELS[names.DECISIONS],
        )
        for key, count in self._counts.items():
            counts.add_metric(key, count)
        yield counts
        total, buckets = 0, []
        for bound, count in zip((*names.DECISION_BUCKETS, "+Inf"), self._buckets, strict=True):
            total += count
            buckets.append((str(bound), total))
        seconds = HistogramMetricFamily(
            names.DECISION_SECONDS, "Our work on an exchange, the ledger's included"
        )
        seconds.add_metric((), buckets, self._seconds)
        yield seconds


class StateReader(Collector):
    """Reads the state when somebody scrapes."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def describe(self) -> Iterator[Metric]:
        """Nothing is read at registration."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Say how things stand, as prometheus-client asks."""
        state = self._state()
        yield from _budgets(state.budgets)
        for name, about, value in (
            (names.LEDGER_UP, "Whether the ledger can commit", int(state.is_ledger_well)),
            (names.RESERVATIONS, "Reservations that are held", state.reservations),
        ):
            yield GaugeMetricFamily(name, about, value)
        for name, about, count in (
            (names.EXPIRED, "Reservations whose record never came", state.expired),
            (names.SPANS_DROPPED, "Spans that no collector took", state.spans_dropped),
            (names.AUDIT_LOST, "Audit lines that could not be written", state.audit_lost),
        ):
            yield CounterMetricFamily(name, about, count)
        without = CounterMetricFamily(
            names.WITHOUT_STORE,
            "Reservations answered by `when_unavailable`, as the ledger was away",
            labels=names.LABELS[names.WITHOUT_STORE],
        )
        for policy in names.WITHOUT_STORE_STATES:
            without.add_metric((policy,), state.without_store.get(policy, 0))
        yield without
        ratio = GaugeMetricFamily(
            names.PROMPT_RATIO,
            "Prompt tokens the provider counted to those we estimated",
            labels=names.LABELS[names.PROMPT_RATIO],
        )
        expected = GaugeMetricFamily(
            names.OUTPUT_EXPECTED,
            "Average answer to requests that named no maximum",
            labels=names.LABELS[names.OUTPUT_EXPECTED],
        )
        for model, prompt_ratio, output_tokens in state.learnt:
            ratio.add_metric((model,), prompt_ratio)
            expected.add_metric((model,), output_tokens)
        yield ratio
        yield expected


def _budgets(budgets: Iterable[BudgetState]) -> Iterator[Metric]:
    families = [
        GaugeMetricFamily(name, about, labels=names.LABELS[name])
        for name, about in (
            (names.BUDGET_LIMIT, "Limit, in the budget's unit (micro-dollars for usd)"),
            (names.BUDGET_COMMITTED, "Charged in the window of now"),
            (names.BUDGET_RESERVED, "Held for requests in flight"),
        )
    ]
    for tenant, budget, unit, *amounts in budgets:
        for family, amount in zip(families, amounts, strict=True):
            family.add_metric((tenant, budget, unit), amount)
    yield from families
