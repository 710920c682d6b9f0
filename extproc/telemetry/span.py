"""What the span of one call says: pure, and decided by its `Summary` alone.

The names are those of OpenTelemetry's conventions for generative AI where these have one, and
`llm.*` else. Never a prompt or an answer: a record holds none.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from extproc.exchange.outcome import Outcome, Trace
from extproc.exchange.settling import Bill, Summary
from extproc.llm.dialects import Dialect, dialect_of

TEXT_CHARS_MAX: Final = 256
"""Of a name or a cause that a client or an upstream chose; the rest is cut off."""

FIRST_EVENT: Final = "gen_ai.first_token"
"""The event's name."""

ERROR_STATUS_MIN: Final = 400

_SCOPE: Final = InstrumentationScope("llm-extproc")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_TRACE_DIGITS: Final = 32
_SPAN_DIGITS: Final = 16

_OPERATIONS: Final = {
    Dialect.OPENAI_COMPLETIONS: "text_completion",
    Dialect.OPENAI_EMBEDDINGS: "embeddings",
    Dialect.ANTHROPIC_COUNT_TOKENS: "count_tokens",
}
"""The conventions have no word for the last. All others are chats."""

Value = str | bool | int | float


def span_of(summary: Summary, resource: Resource) -> ReadableSpan | None:
    """Build the call's span; None if it is no call, or its caller's trace is not sampled.

    Its id follows from its parent's: a record that comes again makes the same span.
    """
    outcome = summary.outcome
    ids = _ids(outcome.trace)
    if summary.kind == "other" or ids is None:
        return None
    trace_id, parent_id, span_id = ids
    start = round(outcome.started * 1e6) * 1000
    error = _error(outcome)
    return ReadableSpan(
        name=f"{_operation(outcome)} {readable(outcome.noted.requested_model)}".strip(),
        context=SpanContext(trace_id, span_id, is_remote=False, trace_flags=_SAMPLED),
        parent=SpanContext(trace_id, parent_id, is_remote=True, trace_flags=_SAMPLED),
        kind=SpanKind.CLIENT if outcome.place.host else SpanKind.INTERNAL,
        resource=resource,
        instrumentation_scope=_SCOPE,
        attributes=_attributes(summary, error),
        events=_events(outcome, start),
        status=Status(StatusCode.ERROR, _cause(outcome)) if error else Status(StatusCode.UNSET),
        start_time=start,
        end_time=start + outcome.timing.ended * 1000,
    )


def tokens_per_second(outcome: Outcome, bill: Bill | None) -> float | None:
    """Output tokens a second of a stream, after its first byte; None where there is no such thing.

    An answer that is no stream was made before its first byte came.
    """
    first = outcome.timing.first_byte
    if bill is None or not bill.usage.completion or not outcome.noted.stream or first is None:
        return None
    microseconds = outcome.timing.ended - first
    return round(bill.usage.completion * 1e6 / microseconds, 1) if microseconds > 0 else None


def readable(text: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    """The text, bounded; what is no character becomes U+FFFD."""
    text = text[:chars_max]
    return text if text.isascii() else text.encode(errors="surrogatepass").decode(errors="replace")


def _ids(trace: Trace) -> tuple[int, int, int] | None:
    """Of the trace, of Envoy's server span, and of ours; None where none is wanted."""
    if not trace.is_sampled:
        return None
    if len(trace.trace_id) != _TRACE_DIGITS or len(trace.span_id) != _SPAN_DIGITS:
        return None
    try:
        trace_id, parent_id = int(trace.trace_id, 16), int(trace.span_id, 16)
    except ValueError:
        return None
    if not (trace_id and parent_id):
        return None
    name = f"{trace_id:032x}{parent_id:016x}".encode()
    digest = hashlib.blake2b(name, digest_size=8, person=b"llm-extproc").digest()
    return trace_id, parent_id, int.from_bytes(digest) or 1


def _attributes(summary: Summary, error: str) -> dict[str, Value]:
    outcome, kind, bill, settled = summary
    noted, place, dialect = outcome.noted, outcome.place, _dialect(outcome)
    found: dict[str, Value | None] = {
        "gen_ai.operation.name": _operation(outcome),
        "gen_ai.provider.name": dialect and ("anthropic" if dialect.is_anthropic else "openai"),
        "gen_ai.request.model": noted.requested_model,
        "gen_ai.request.temperature": noted.temperature,
        "gen_ai.request.max_tokens": noted.output_tokens_max,
        "gen_ai.request.stream": noted.stream,
        "http.response.status_code": outcome.status or None,
        "error.type": error,
        "error": bool(error),
        "llm.kind": kind,
        "llm.model": bill.model if bill is not None else noted.model or noted.requested_model,
        "llm.temperature": noted.temperature,
        "llm.tenant_id": noted.tenant,
        "llm.identity": noted.identity,
        "llm.plan": noted.plan,
        "llm.tier": noted.tier,
        "llm.reason": noted.reason,
        "llm.downgraded_from": noted.downgraded_from,
        "llm.complexity": noted.complexity,
        "llm.prompt.tokens.estimated": noted.prompt_tokens,
        "llm.prompt.tokens": noted.prompt_tokens,
        "llm.latency.ms": outcome.timing.ended / 1000,
        "llm.attempts": place.attempts,
        "llm.upstream": place.upstream,
        "llm.aborted": outcome.is_aborted,
        "llm.settled": settled,
    }
    found |= _address(place.host)
    if outcome.timing.first_byte is not None and noted.stream:
        found["gen_ai.response.time_to_first_chunk"] = outcome.timing.first_byte / 1e6
    if bill is not None:
        found |= _used(outcome, bill)
    return _told(found)


def _used(outcome: Outcome, bill: Bill) -> dict[str, Value | None]:
    usage = bill.usage
    return {
        "gen_ai.response.model": bill.model,
        "gen_ai.usage.input_tokens": usage.prompt,
        "gen_ai.usage.output_tokens": usage.completion,
        "gen_ai.usage.cache_read.input_tokens": usage.cached,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
        "llm.prompt.tokens": usage.prompt,
        "llm.completion.tokens": usage.completion,
        "llm.total.tokens": usage.total,
        "llm.tokens.per.second": tokens_per_second(outcome, bill),
        "llm.cost.micro_usd": bill.cost_micro_usd,
        "llm.usage.source": bill.source,
    }


def _told(found: Mapping[str, Value | None]) -> dict[str, Value]:
    """What there is; a text that is empty says nothing."""
    return {
        name: readable(value) if isinstance(value, str) else value
        for name, value in found.items()
        if value is not None and value != ""
    }


def _address(host: str) -> dict[str, Value | None]:
    """`10.0.0.1:8080` or `[::1]:8080`, as Envoy says who served."""
    address, _, port = host.rpartition(":")
    if not address or not (port.isascii() and port.isdigit()):
        return {"server.address": host}
    return {"server.address": address.strip("[]"), "server.port": int(port[:5])}


def _events(outcome: Outcome, start: int) -> tuple[Event, ...]:
    first = outcome.timing.first_byte
    if first is None or not (outcome.noted.stream and outcome.was_answered):
        return ()
    return (Event(FIRST_EVENT, timestamp=start + first * 1000),)


def _error(outcome: Outcome) -> str:
    """Which kind of error it was, of few; empty if there was none."""
    if outcome.noted.outcome == "refused":
        return outcome.noted.reason or "refused"
    if outcome.is_aborted:
        return outcome.flags if outcome.flags not in ("", "-") else "aborted"
    return str(outcome.status) if outcome.status >= ERROR_STATUS_MIN else ""


def _cause(outcome: Outcome) -> str:
    """The same for people, with what Envoy says of it."""
    flags = "" if outcome.flags == "-" else outcome.flags
    if outcome.noted.outcome == "refused":
        return readable(f"refused: {outcome.noted.reason}")
    told = (str(outcome.status or "no answer"), flags, outcome.details)
    return readable(" ".join(filter(None, told)))


def _operation(outcome: Outcome) -> str:
    dialect = _dialect(outcome)
    return _OPERATIONS.get(dialect, "chat") if dialect else "chat"


def _dialect(outcome: Outcome) -> Dialect | None:
    """Where the filter did not see the call, its path tells."""
    return outcome.noted.dialect or dialect_of(outcome.path)
