"""Metrics for Prometheus: what was decided, used, charged and how long it took.

Labels are names of the settings or of Envoy's clusters, capped; never free text of a client.
"""

from collections.abc import Callable, Container
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from extproc.exchange.outcome import Outcome
from extproc.exchange.settling import Bill, Summary
from extproc.llm.dialects import Dialect
from extproc.telemetry import metric_names as names
from extproc.telemetry.collectors import State
from extproc.telemetry.labels import OTHER, Capped, one_of
from extproc.telemetry.metric_names import BORN, METER_REASONS
from extproc.telemetry.metric_state import (
    Families,
    SettingsState,
    build_info,
    read_settings,
    read_state,
)
from extproc.telemetry.metric_store import Counts, Key, LabelSets, Spread
from extproc.telemetry.tally import Tally

TENANT_SETS_MAX: Final = 1000
"""Of tenant, tier and model together. About a dozen series each."""

GEN_AI_SETS_MAX: Final = 100
"""Of models and operations together. About a hundred series each."""

OPERATIONS: Final = {
    Dialect.OPENAI_CHAT: "chat",
    Dialect.OPENAI_RESPONSES: "chat",
    Dialect.ANTHROPIC_MESSAGES: "chat",
    Dialect.OPENAI_COMPLETIONS: "text_completion",
    Dialect.OPENAI_EMBEDDINGS: "embeddings",
    Dialect.ANTHROPIC_COUNT_TOKENS: "count_tokens",
}
"""`gen_ai.operation.name`; the last is ours, the conventions have no word for it."""

METER_ERRORS: Final = frozenset(METER_REASONS)


class Metrics:
    """All of them, in a registry of their own. Feed it; `expose` says how things stand.

    Fed from one thread. None of what it is fed with can make it fail, or grow without limit.
    """

    def __init__(  # noqa: PLR0913  # names and readers, each of one thing
        self,
        *,
        version: str,
        tenants: Callable[[], Container[str]],
        models: Callable[[], Container[str]],
        tiers: Callable[[], Container[str]],
        state: Callable[[], State],
        settings: Callable[[], SettingsState | None] = lambda: None,
    ) -> None:
        self._registry = CollectorRegistry()
        self._counters: dict[str, Counts] = {}
        self._spreads: dict[str, Spread] = {}
        self._state = state
        self._settings = settings
        self._build = build_info(version)
        self._is_model = one_of(models)
        self._tenant = Capped(one_of(tenants))
        self._model = Capped(self._is_model)
        self._tier = Capped(one_of(tiers))
        self._cluster = Capped()
        self._whose = LabelSets(TENANT_SETS_MAX)
        self._moved = LabelSets(TENANT_SETS_MAX)
        self._about = LabelSets(GEN_AI_SETS_MAX)
        self._count_what_is_decided()
        self._count_what_is_used()
        self._count_what_is_settled()

    def _count_what_is_decided(self) -> None:
        self._decisions = self._counts(names.DECISIONS, "Exchanges, and what became of them")
        self._decision_seconds = self._spread(
            names.DECISION_SECONDS, "Our work on an exchange, the ledger's included"
        )
        self._loop_lag = self._spread(names.LOOP_LAG_SECONDS, "How late the event loop wakes up")
        self._reloads = self._counts(names.SETTINGS_RELOADS, "Reloads of the settings")
        self._downgrades = self._counts(names.DOWNGRADES, "Calls served in a cheaper tier")

    def _count_what_is_used(self) -> None:
        self._tokens = self._counts(names.TOKENS, "Tokens, by kind; parts count within wholes")
        self._cost = self._counts(names.COST, "What was charged, in US dollars")
        self._usage = self._spread(names.TOKEN_USAGE, "Tokens a call")
        self._request = self._spread(names.REQUEST_SECONDS, "From the request to the last byte")
        self._first = self._spread(names.FIRST_TOKEN_SECONDS, "To the first byte of a stream")
        self._per_token = self._spread(
            names.OUTPUT_TOKEN_SECONDS, "For each token of a stream after the first"
        )
        self._rate = self._spread(names.TOKENS_PER_SECOND, "Output tokens a second of a stream")
        self._estimate = self._spread(
            names.ESTIMATE_RATIO, "Prompt tokens the provider counted to those we reserved by"
        )
        self._hop = self._spread(names.HOP_SECONDS, "How long an upstream took, whole answer")
        self._attempts = self._counts(names.HOP_ATTEMPTS, "Attempts at an upstream")
        self._unattributed = self._counts(
            names.UNATTRIBUTED, "Tokens of calls that passed a filter which failed open"
        )

    def _count_what_is_settled(self) -> None:
        self._calls = self._counts(names.CALLS, "Calls that ended, and how")
        self._settlements = self._counts(names.SETTLEMENTS, "Settlements, and how they were taken")
        self._records = self._counts(names.RECORDS, "Records of the access log")
        self._lag = self._spread(
            names.RECORD_LAG_SECONDS, "From the end of a request to its record"
        )
        self._meter_errors = self._counts(names.METER_ERRORS, "Answers the meter gave up on")
        self._observed = self._counts(
            names.OBSERVED, "Copied answers, and how they met the records of their requests"
        )

    def decided(self, outcome: str, reason: str, seconds: float) -> None:
        """Count an exchange. On the hot path: integers in a dict and a list, and no more."""
        self._decisions.add_one_of((outcome, reason), (OTHER, OTHER))
        self._decision_seconds.add((), seconds)

    def record(self, kind: str, lag_seconds: float | None) -> None:
        """Count a record of the access log, and how late it came."""
        self._records.add_one_of((kind,), (names.BUG,))
        if lag_seconds is not None:
            self._lag.add((), lag_seconds)

    def observed(self, case: str) -> None:
        """Count what became of a copied answer, or of a record that needed one."""
        self._observed.add_one_of((case,), (OTHER,))

    def reloaded(self, result: str) -> None:
        """Count a reload of the settings: `taken` or `refused`."""
        self._reloads.add((result,))

    def loop_lag(self, seconds: float) -> None:
        """Note how late the event loop woke up."""
        self._loop_lag.add((), seconds)

    def observe(self, summary: Summary) -> None:
        """Take a finished request into account."""
        outcome, kind, bill, settled = summary
        self._observe_hop(outcome)
        if bill is None:
            return
        if kind == "unattributed":
            for name, tokens in zip(bill.usage._fields, bill.usage, strict=True):
                self._unattributed.add((name,), tokens)
            return
        self._observe_call(outcome, bill)
        self._settlements.add_one_of((bill.source, settled or "unsettleable"), (bill.source, OTHER))

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """All of it as text, and the content type, in the format that `accept` asks for."""
        return self.exposition(accept)()

    def exposition(self, accept: str = "") -> Callable[[], tuple[bytes, str]]:
        """Read the state now, and give what writes all of it down: in any thread.

        Writing takes about 10 us a series, so that a service with many tenants does well not to
        do it in the thread that decides.
        """
        encode, content_type = choose_encoder(accept)
        read = [
            self._build,
            *read_state(self._state(), self._is_model),
            *read_settings(self._settings()),
        ]
        return lambda: (encode(Families(self._registry.collect(), read)), content_type)

    def tally(self) -> Tally:
        """Everything that was counted so far, for whoever adds it to what others counted."""
        return Tally(
            {name: counter.figures() for name, counter in self._counters.items()},
            {name: spread.figures() for name, spread in self._spreads.items()},
        )

    def read(self) -> tuple[State, SettingsState | None]:
        """The state now, with the models that the settings have."""
        state = self._state()
        learnt = [known for known in state.learnt if self._is_model(known.model)]
        return state._replace(learnt=learnt), self._settings()

    def show_too(self, collector: Collector) -> None:
        """Expose what it collects beside the rest."""
        self._registry.register(collector)

    def show(self, tally: Tally) -> None:
        """Have counted this, instead of what was fed."""
        for name, counts in tally.counts.items():
            self._counters[name].show(counts)
        for name, rows in tally.spreads.items():
            self._spreads[name].show(rows)

    def _observe_hop(self, outcome: Outcome) -> None:
        place, timing = outcome.place, outcome.timing
        upstream = place.upstream
        if not upstream or not place.attempts:
            return
        cluster = self._cluster(upstream)
        self._attempts.add((cluster, _code_class(outcome.status)), place.attempts)
        ended = timing.answer_received or timing.ended
        self._hop.add((cluster,), max(0, ended - (timing.request_sent or 0)) / 1e6)

    def _observe_call(self, outcome: Outcome, bill: Bill) -> None:
        noted = outcome.noted
        tier, model = self._tier(noted.tier), self._model(bill.model)
        tenant = self._tenant(noted.tenant)
        whose = self._whose((tenant, tier, model))
        self._calls.add((*whose, _ended(outcome)))
        if noted.downgraded_from:
            self._downgrades.add(self._moved((tenant, self._tier(noted.downgraded_from), tier)))
        if noted.meter_error:
            self._meter_errors.add_one_of((noted.meter_error,), (OTHER,))
        dialect = noted.dialect
        about = self._about(
            (
                self._model(noted.requested_model),
                model,
                OPERATIONS[dialect] if dialect else OTHER,
                ("anthropic" if dialect.is_anthropic else "openai") if dialect else OTHER,
            )
        )
        self._request.add((*about, _error_type(outcome)), outcome.timing.ended / 1e6)
        if bill.source == "zero":
            return
        for name, tokens in zip(bill.usage._fields, bill.usage, strict=True):
            self._tokens.add((*whose, name), tokens)
        self._cost.add(whose, bill.cost_micro_usd / 1e6)
        self._usage.add((*about, "input"), bill.usage.prompt)
        self._usage.add((*about, "output"), bill.usage.completion)
        is_told = bill.source == "usage" and bill.model == noted.model
        if is_told and noted.prompt_tokens and bill.usage.prompt:
            self._estimate.add((model,), bill.usage.prompt / noted.prompt_tokens)
        if noted.stream:
            self._observe_stream(outcome, bill.usage.completion, model, about)

    def _observe_stream(self, outcome: Outcome, tokens: int, model: str, about: Key) -> None:
        first_byte = outcome.timing.first_byte
        if first_byte is None:
            return
        self._first.add(about, first_byte / 1e6)
        seconds = (outcome.timing.ended - first_byte) / 1e6
        if tokens > 1 and seconds > 0:
            self._per_token.add(about, seconds / (tokens - 1))
            self._rate.add((model,), tokens / seconds)

    def _counts(self, name: str, about: str) -> Counts:
        counts = self._counters[name] = Counts(name, about, BORN.get(name, ()))
        self._registry.register(counts)
        return counts

    def _spread(self, name: str, about: str) -> Spread:
        spread = self._spreads[name] = Spread(name, about)
        self._registry.register(spread)
        return spread


def _code_class(status: int) -> str:
    """The class of a status, for a label: what is no status at all is `none`."""
    return f"{status // 100}xx" if 100 <= status < 600 else "none"  # noqa: PLR2004  # RFC 9110


def _ended(outcome: Outcome) -> str:
    if outcome.is_aborted:
        return "aborted"
    return "answered" if outcome.was_answered else "failed"


def _error_type(outcome: Outcome) -> str:
    """`error.type`, of few; empty for what ended well."""
    ended = _ended(outcome)
    if ended != "failed":
        return ended if ended == "aborted" else ""
    return "429" if outcome.status == 429 else _code_class(outcome.status)  # noqa: PLR2004  # the quota is gone
