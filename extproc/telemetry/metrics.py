"""Metrics for Prometheus: what was decided, used, charged and how long it took.

Labels are names of the settings or of Envoy's clusters, capped; never free text of a client.
"""

from collections.abc import Callable, Container, Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from extproc.exchange.outcome import Outcome
from extproc.exchange.settling import Bill, Summary
from extproc.llm.dialects import Dialect
from extproc.llm.usage import Usage
from extproc.telemetry import metric_names as names
from extproc.telemetry.collectors import Decisions, State, StateReader
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
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each
        self._registry = CollectorRegistry()
        self._tenant = Capped(one_of(tenants))
        self._model = Capped(one_of(models))
        self._tier = Capped(one_of(tiers))
        self._cluster = Capped()
        self._decisions = Decisions()
        self._registry.register(self._decisions)
        self._registry.register(StateReader(state))
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
        self._say_build(version)

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

    def _say_build(self, version: str) -> None:
        name, labels = names.BUILD + "_info", names.LABELS[names.BUILD]
        Gauge(name, "Which version", labels, registry=self._registry).labels(version).set(1)

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
