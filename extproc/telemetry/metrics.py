"""Metrics for Prometheus: what was decided, used, charged and how long it took.

Labels are names of the settings or of Envoy's clusters, capped; never free text of a client.
"""

from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from extproc.exchange.outcome import Outcome
from extproc.exchange.settling import Bill, Summary
from extproc.llm.dialects import Dialect
from extproc.llm.usage import Usage
from extproc.telemetry import metric_names as names
from extproc.telemetry.labels import Capped, one_of

OPERATIONS: Final = {
    Dialect.OPENAI_CHAT: "chat",
    Dialect.OPENAI_RESPONSES: "chat",
    Dialect.ANTHROPIC_MESSAGES: "chat",
    Dialect.OPENAI_COMPLETIONS: "text_completion",
    Dialect.OPENAI_EMBEDDINGS: "embeddings",
    Dialect.ANTHROPIC_COUNT_TOKENS: "count_tokens",
}
"""`gen_ai.operation.name`; the last is ours, the conventions have no word for it."""

METER_ERRORS: Final = frozenset(
    {"encoded", "usage_too_long", "usage_garbled", "too_complex", "tail_lost", "bug"}
    | {"unobserved", "cut_short"}
)


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
    reservations: int = 0
    expired: int = 0
    spans_dropped: int = 0
    audit_lost: int = 0


class Metrics:
    """All of them, in a registry of their own. Feed it; `expose` says how things stand."""

    def __init__(
        self,
        *,
        version: str,
        tenants: Callable[[], Container[str]],
        models: Callable[[], Container[str]],
        tiers: Callable[[], Container[str]],
        state: Callable[[], State],
    ) -> None:
        self._registry = CollectorRegistry()
        self._tenant = Capped(one_of(tenants))
        self._model = Capped(one_of(models))
        self._tier = Capped(one_of(tiers))
        self._cluster = Capped()
        self._decisions = _Decisions()
        self._registry.register(self._decisions)
        self._registry.register(_State(state))
        self._tokens = self._counter(names.TOKENS, "Tokens, by kind; parts count within wholes")
        self._cost = self._counter(names.COST, "What was charged, in US dollars")
        self._usage = self._histogram(names.TOKEN_USAGE, "Tokens a call", names.TOKEN_BUCKETS)
        self._request = self._histogram(
            names.REQUEST_SECONDS, "From the request to the last byte", names.SECONDS_BUCKETS
        )
        self._first = self._histogram(
            names.FIRST_TOKEN_SECONDS, "To the first byte of a stream", names.FIRST_TOKEN_BUCKETS
        )
        self._per_token = self._histogram(
            names.OUTPUT_TOKEN_SECONDS,
            "For each token of a stream after the first",
            names.OUTPUT_TOKEN_BUCKETS,
        )
        self._rate = self._histogram(
            names.TOKENS_PER_SECOND, "Output tokens a second of a stream", names.RATE_BUCKETS
        )
        self._calls = self._counter(names.CALLS, "Calls that ended, and how")
        self._downgrades = self._counter(names.DOWNGRADES, "Calls served in a cheaper tier")
        self._settlements = self._counter(names.SETTLEMENTS, "Settlements, and how they were taken")
        self._records = self._counter(names.RECORDS, "Records of the access log")
        self._lag = self._histogram(
            names.RECORD_LAG_SECONDS, "From the end of a request to its record", names.LAG_BUCKETS
        )
        self._hop = self._histogram(
            names.HOP_SECONDS, "How long an upstream took, whole answer", names.HOP_BUCKETS
        )
        self._attempts = self._counter(names.HOP_ATTEMPTS, "Attempts at an upstream")
        self._unattributed = self._counter(
            names.UNATTRIBUTED, "Tokens of calls that passed a filter which failed open"
        )
        self._meter_errors = self._counter(names.METER_ERRORS, "Answers the meter gave up on")
        self._observed = self._counter(
            names.OBSERVED, "Copied answers, and how they met the records of their requests"
        )
        self._loop_lag = self._histogram(
            names.LOOP_LAG_SECONDS, "How late the event loop wakes up", names.LOOP_BUCKETS
        )
        build = Gauge(
            names.BUILD + "_info",
            "Which version",
            names.LABELS[names.BUILD],
            registry=self._registry,
        )
        build.labels(version).set(1)

    def decided(self, outcome: str, reason: str, seconds: float) -> None:
        """Count an exchange. On the hot path: integers in a dict and a list, and no more."""
        self._decisions.count(outcome, reason, seconds)

    def record(self, kind: str, lag_seconds: float | None) -> None:
        """Count a record of the access log, and how late it came."""
        self._records.labels(kind).inc()
        if lag_seconds is not None:
            self._lag.observe(lag_seconds)

    def observed(self, case: str) -> None:
        """Count what became of a copied answer, or of a record that needed one."""
        self._observed.labels(case).inc()

    def loop_lag(self, seconds: float) -> None:
        """Note how late the event loop woke up."""
        self._loop_lag.observe(seconds)

    def observe(self, summary: Summary) -> None:
        """Take a finished request into account."""
        outcome, kind, bill, settled = summary
        self._observe_hop(outcome)
        if bill is None:
            return
        if kind == "unattributed":
            for name, tokens in _kinds(bill.usage):
                self._unattributed.labels(name).inc(tokens)
            return
        self._observe_call(outcome, bill)
        self._settlements.labels(bill.source, settled or "unsettleable").inc()

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """All of it as text, and the content type, in the format that `accept` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _observe_hop(self, outcome: Outcome) -> None:
        place, timing = outcome.place, outcome.timing
        if not place.cluster or not place.attempts:
            return
        cluster = self._cluster(place.cluster)
        code = f"{outcome.status // 100}xx" if outcome.status else "none"
        self._attempts.labels(cluster, code).inc(place.attempts)
        ended = timing.answer_received or timing.ended
        self._hop.labels(cluster).observe(max(0, ended - (timing.request_sent or 0)) / 1e6)

    def _observe_call(self, outcome: Outcome, bill: Bill) -> None:
        noted, timing = outcome.noted, outcome.timing
        tenant, tier = self._tenant(noted.tenant), self._tier(noted.tier)
        model = self._model(bill.model)
        self._calls.labels(tenant, tier, model, _ended(outcome)).inc()
        if noted.downgraded_from:
            self._downgrades.labels(tenant, self._tier(noted.downgraded_from), tier).inc()
        if noted.meter_error:
            known = noted.meter_error if noted.meter_error in METER_ERRORS else "other"
            self._meter_errors.labels(known).inc()
        if bill.source == "zero":
            return
        for name, tokens in _kinds(bill.usage):
            self._tokens.labels(tenant, tier, model, name).inc(tokens)
        self._cost.labels(tenant, tier, model).inc(bill.cost_micro_usd / 1e6)
        about = (OPERATIONS.get(noted.dialect, "other") if noted.dialect else "other", model)
        self._usage.labels(*about, "input").observe(bill.usage.prompt)
        self._usage.labels(*about, "output").observe(bill.usage.completion)
        self._request.labels(*about).observe(timing.ended / 1e6)
        if not noted.stream or timing.first_byte is None:
            return
        self._first.labels(*about).observe(timing.first_byte / 1e6)
        seconds = (timing.ended - timing.first_byte) / 1e6
        if bill.usage.completion > 1 and seconds > 0:
            self._per_token.labels(*about).observe(seconds / (bill.usage.completion - 1))
            self._rate.labels(model).observe(bill.usage.completion / seconds)

    def _counter(self, name: str, about: str) -> Counter:
        return Counter(name, about, names.LABELS[name], registry=self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, about, names.LABELS[name], buckets=buckets, registry=self._registry)


def _kinds(usage: Usage) -> Iterator[tuple[str, int]]:
    return iter(usage._asdict().items())


def _ended(outcome: Outcome) -> str:
    if outcome.is_aborted:
        return "aborted"
    return "answered" if outcome.was_answered else "failed"


class _Decisions(Collector):
    """Counts in plain integers, and makes metrics of them when somebody asks."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._buckets = [0] * (len(names.DECISION_BUCKETS) + 1)
        self._seconds = 0.0

    def count(self, outcome: str, reason: str, seconds: float) -> None:
        key = (outcome, reason)
        self._counts[key] = self._counts.get(key, 0) + 1
        self._buckets[bisect_left(names.DECISION_BUCKETS, seconds)] += 1
        self._seconds += seconds

    def collect(self) -> Iterator[Metric]:
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


class _State(Collector):
    """Reads the state when somebody scrapes."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def describe(self) -> Iterator[Metric]:
        """Nothing is read at registration."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
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
