"""extproc/telemetry/span.py: what the span of a call says."""

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from extproc.exchange.outcome import Outcome, Place, Timing, Trace
from extproc.exchange.settling import Bill, Kind, Summary
from extproc.llm.dialects import Dialect
from extproc.llm.usage import Usage
from extproc.telemetry.span import TEXT_CHARS_MAX, readable, span_of, tokens_per_second
from tests.unit.test_settling import ended

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACE = Trace(TRACE_ID, PARENT_ID, is_sampled=True)
BILL = Bill("usage", "gpt-3.5-turbo", Usage(100, 20, 40, 10, 5), 4200)
STARTED = 1_789_041_600.123456
TIMING = Timing(1000, 2000, 500_000, 2_400_000, 2_500_000)


def called(**fields: Any) -> Outcome:
    about: dict[str, Any] = {"started": STARTED, "trace": TRACE}
    about |= {name: fields.pop(name) for name in ("started", "trace", "details") if name in fields}
    settings: dict[str, Any] = {"timing": TIMING, "stream": True}
    return ended(**settings | fields)._replace(**about)


def span(outcome: Outcome, kind: Kind = "call", bill: Bill | None = BILL) -> ReadableSpan:
    found = span_of(Summary(outcome, kind, bill, "settled"), Resource({}))
    assert found is not None
    return found


def test_a_span_is_a_child_of_the_proxys_in_the_callers_trace() -> None:
    found = span(called())

    assert found.parent is not None
    assert found.parent.is_remote
    assert f"{found.parent.trace_id:032x} {found.parent.span_id:016x}" == f"{TRACE_ID} {PARENT_ID}"
    assert found.context.trace_id == found.parent.trace_id
    assert found.context.span_id not in (0, found.parent.span_id)
    assert found.context.trace_flags.sampled


def test_a_record_that_comes_again_makes_the_same_span() -> None:
    other = called(trace=TRACE._replace(span_id="0" * 15 + "1"))

    assert span(called()).context == span(called()).context
    assert span(called()).context.span_id != span(other).context.span_id


def test_a_span_has_the_true_times() -> None:
    found = span(called())

    assert found.start_time == 1_789_041_600_123_456_000
    assert found.end_time == found.start_time + 2_500_000_000
    assert [(event.name, event.timestamp) for event in found.events] == [
        ("gen_ai.first_token", found.start_time + 500_000_000)
    ]


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(called(stream=False), id="what is no stream"),
        pytest.param(called(status=500), id="an error's body"),
        pytest.param(called(timing=TIMING._replace(first_byte=None)), id="no answer"),
    ],
)
def test_what_has_no_first_token_has_no_event(outcome: Outcome) -> None:
    assert span(outcome).events == ()


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(TRACE._replace(is_sampled=False), id="not sampled"),
        pytest.param(Trace("", "", is_sampled=True), id="no trace"),
        pytest.param(TRACE._replace(trace_id="0" * 32), id="an invalid trace"),
        pytest.param(TRACE._replace(span_id="0" * 16), id="an invalid parent"),
        pytest.param(TRACE._replace(trace_id="0" + TRACE_ID), id="too long"),
        pytest.param(TRACE._replace(span_id=PARENT_ID[1:]), id="too short"),
        pytest.param(TRACE._replace(span_id="g" * 16), id="no number"),
    ],
)
def test_without_a_sampled_trace_there_is_no_span(trace: Trace) -> None:
    assert span_of(Summary(called(trace=trace), "call", BILL, "settled"), Resource({})) is None


def test_what_is_no_call_has_no_span() -> None:
    assert span_of(Summary(called(), "other", None, None), Resource({})) is None


def test_a_span_says_everything_of_a_call_in_both_vocabularies() -> None:
    outcome = called(
        plan="gold",
        identity="header x-tenant-id",
        tier="standard",
        temperature=0.0,
        output_tokens_max=64,
        downgraded_from="premium",
        reason="budget_exhausted",
        complexity=0.25,
        place=Place("r", "c", "[::1]:8080", "pod-1;models;gpt35;v1;Kubernetes", 2),
    )

    assert span(outcome).attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "gpt-3.5-turbo",
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 40,
        "gen_ai.usage.cache_creation.input_tokens": 10,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "server.address": "::1",
        "server.port": 8080,
        "http.response.status_code": 200,
        "error": False,
        "llm.kind": "call",
        "llm.model": "gpt-3.5-turbo",
        "llm.temperature": 0.0,
        "llm.tenant_id": "acme",
        "llm.identity": "header x-tenant-id",
        "llm.plan": "gold",
        "llm.tier": "standard",
        "llm.reason": "budget_exhausted",
        "llm.downgraded_from": "premium",
        "llm.complexity": 0.25,
        "llm.prompt.tokens.estimated": 90,
        "llm.prompt.tokens": 100,
        "llm.completion.tokens": 20,
        "llm.total.tokens": 120,
        "llm.tokens.per.second": 10.0,
        "llm.latency.ms": 2500.0,
        "llm.attempts": 2,
        "llm.upstream": "gpt35",
        "llm.aborted": False,
        "llm.settled": "settled",
        "llm.cost.micro_usd": 4200,
        "llm.usage.source": "usage",
    }
    assert span(outcome).name == "chat gpt-4"
    assert span(outcome).kind is SpanKind.CLIENT
    assert span(outcome).status.status_code is StatusCode.UNSET


def test_a_refused_call_says_what_was_asked_and_why_it_was_refused() -> None:
    outcome = called(
        outcome="refused", reason="rate_limited", status=429, model="", place=Place(), stream=False
    )
    found = span(outcome, "refused", None)

    assert found.attributes is not None
    assert found.attributes["llm.model"] == "gpt-4"
    assert found.attributes["llm.prompt.tokens"] == 90
    assert found.attributes["error.type"] == "rate_limited"
    assert "gen_ai.usage.input_tokens" not in found.attributes
    assert found.kind is SpanKind.INTERNAL
    assert (found.status.status_code, found.status.description) == (
        StatusCode.ERROR,
        "refused: rate_limited",
    )


@pytest.mark.parametrize(
    ("fields", "kind_of_error", "cause"),
    [
        pytest.param(
            {"status": 503, "flags": "UF", "details": "connection_refused"},
            "503",
            "503 UF connection_refused",
            id="nobody there",
        ),
        pytest.param({"status": 429}, "429", "429", id="the provider's own limit"),
        pytest.param({"status": 400}, "400", "400", id="the provider did not understand"),
        pytest.param({"flags": "DC"}, "DC", "200 DC", id="the client left"),
        pytest.param({"status": 0}, "aborted", "no answer", id="the client left at once"),
    ],
)
def test_an_error_has_its_cause(fields: dict[str, Any], kind_of_error: str, cause: str) -> None:
    found = span(called(**fields))

    assert found.attributes is not None
    assert found.attributes["error"] is True
    assert found.attributes["error.type"] == kind_of_error
    assert (found.status.status_code, found.status.description) == (StatusCode.ERROR, cause)


@pytest.mark.parametrize(
    ("dialect", "operation", "provider"),
    [
        (Dialect.OPENAI_CHAT, "chat", "openai"),
        (Dialect.OPENAI_RESPONSES, "chat", "openai"),
        (Dialect.OPENAI_COMPLETIONS, "text_completion", "openai"),
        (Dialect.OPENAI_EMBEDDINGS, "embeddings", "openai"),
        (Dialect.ANTHROPIC_MESSAGES, "chat", "anthropic"),
        (Dialect.ANTHROPIC_COUNT_TOKENS, "count_tokens", "anthropic"),
    ],
)
def test_a_dialect_names_operation_and_provider(
    dialect: Dialect, operation: str, provider: str
) -> None:
    attributes = span(called(dialect=dialect)).attributes or {}

    assert attributes["gen_ai.operation.name"] == operation
    assert attributes["gen_ai.provider.name"] == provider


def test_where_the_filter_did_not_see_a_call_its_path_names_the_dialect() -> None:
    outcome = called(dialect=None, outcome="", unattributed=True)._replace(path="/v1/embeddings")
    attributes = span(outcome, "unattributed").attributes or {}

    assert attributes["gen_ai.operation.name"] == "embeddings"
    assert attributes["llm.kind"] == "unattributed"


def test_what_a_client_chose_is_bounded_and_is_text() -> None:
    attributes = span(called(requested_model="\ud800" + "x" * 8000)).attributes or {}

    model = attributes["gen_ai.request.model"]
    assert isinstance(model, str)
    assert model.encode()
    assert len(model) <= TEXT_CHARS_MAX + 2
    assert TEXT_CHARS_MAX == 256
    assert readable("Grüße\ud800") == "Grüße\ufffd\ufffd\ufffd"


@pytest.mark.parametrize("host", ["pipe", "a:b", ":80"])
def test_an_address_without_a_port_is_an_address(host: str) -> None:
    attributes = span(called(place=Place("", "c", host, "", 1))).attributes or {}

    assert attributes["server.address"] == host
    assert attributes["llm.upstream"] == "c"


@pytest.mark.parametrize(
    ("outcome", "bill"),
    [
        pytest.param(called(stream=False), BILL, id="no stream"),
        pytest.param(called(), None, id="no bill"),
        pytest.param(called(), BILL._replace(usage=Usage(1)), id="no answer"),
        pytest.param(called(timing=TIMING._replace(first_byte=None)), BILL, id="no first byte"),
        pytest.param(called(timing=TIMING._replace(ended=500_000)), BILL, id="no time"),
    ],
)
def test_a_speed_needs_a_stream_tokens_and_time(outcome: Outcome, bill: Bill | None) -> None:
    assert tokens_per_second(outcome, bill) is None


def test_every_attribute_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    attributes = span(called(temperature=1.0, output_tokens_max=1, plan="p", reason="r")).attributes

    assert {name for name in attributes or () if f"`{name}`" not in text} == set()
