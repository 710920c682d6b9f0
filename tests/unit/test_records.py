"""extproc/wire/records.py."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from extproc.exchange.outcome import Noted, Outcome, Place, Timing, Trace
from extproc.llm.dialects import Dialect
from extproc.wire.records import ATTRIBUTES, Unreadable, outcome_of

NOTED = {
    "outcome": "routed",
    "tenant": "acme",
    "dialect": "openai_chat",
    "prompt_tokens": 12,
    "reservation": "r1",
    "reserved": "minute tokens 100 50 60",
    "usage": '{"prompt_tokens":12}',
    "events": 3,
    "budget_reset": 12.5,
    "something_new": [1],
}
WHOLE = {
    "llm": json.dumps(NOTED),
    "stream_id": "5f3c",
    "method": "POST",
    "path": "/v1/chat/completions",
    "status": "200",
    "flags": "-",
    "details": "via_upstream",
    "route": "premium",
    "cluster": "gpt4-adapter",
    "host": "127.0.0.1:8080",
    "workload": "-",
    "attempts": "1",
    "bytes_received": "120",
    "bytes_sent": "4000",
    "timing": "150 2100 50000 - 90000 90",
    "traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
}


def record(**changes: str | None) -> LogRecord:
    told = {name: value for name, value in (WHOLE | changes).items() if value is not None}
    return LogRecord(
        time_unix_nano=1_789_041_600_250_000_000,
        trace_id=bytes.fromhex("0123456789abcdef0123456789abcdef"),
        span_id=bytes.fromhex("fedcba9876543210"),
        attributes=[
            KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in told.items()
        ],
    )


def test_a_record_tells_everything() -> None:
    assert outcome_of(record()) == Outcome(
        stream_id="5f3c",
        started=1_789_041_600.25,
        method="POST",
        path="/v1/chat/completions",
        status=200,
        flags="-",
        details="via_upstream",
        bytes_received=120,
        bytes_sent=4000,
        noted=Noted(
            outcome="routed",
            tenant="acme",
            dialect=Dialect.OPENAI_CHAT,
            prompt_tokens=12,
            reservation="r1",
            reserved="minute tokens 100 50 60",
            usage='{"prompt_tokens":12}',
            events=3,
        ),
        place=Place("premium", "gpt4-adapter", "127.0.0.1:8080", "", 1),
        timing=Timing(150, 2100, 50000, None, 90000),
        trace=Trace("0123456789abcdef0123456789abcdef", "fedcba9876543210", is_sampled=True),
    )


def test_every_attribute_is_in_the_example() -> None:
    assert set(WHOLE) == set(ATTRIBUTES)


def found(**changes: str | None) -> Outcome:
    outcome = outcome_of(record(**changes))
    assert isinstance(outcome, Outcome)
    return outcome


def test_without_metadata_it_is_a_record_all_the_same() -> None:
    assert found(llm="-").noted == Noted()
    assert found(llm=None).noted == Noted()


def test_the_end_is_that_of_the_request_where_no_last_byte_was_sent() -> None:
    assert found(timing="150 2100 - - - 31").timing == Timing(150, 2100, None, None, 31_000)


@pytest.mark.parametrize("flag", ["00", "", "-"])
def test_sampling_follows_the_caller(flag: str) -> None:
    assert not found(traceparent=f"00-0123-4567-{flag}").trace.is_sampled


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"llm": "{"}, "llm"),
        ({"llm": "[]"}, "llm"),
        ({"llm": '{"tenant": 5}'}, "llm"),
        ({"llm": '{"prompt_tokens": -1}'}, "llm"),
        ({"llm": '{"prompt_tokens": 1.5}'}, "llm"),
        ({"llm": '{"dialect": "klingon"}'}, "llm"),
        ({"llm": "[" * 20_000}, "llm"),
        ({"llm": json.dumps({"usage": "x" * 40_000})}, "llm"),
        ({"llm": "\x00"}, "llm"),
        ({"status": "two"}, "numbers"),
        ({"status": "-5"}, "numbers"),
        ({"status": "²"}, "numbers"),
        ({"status": "9" * 19}, "numbers"),
        ({"status": None}, "numbers"),
        ({"attempts": "1e3"}, "numbers"),
        ({"timing": "1 2 3"}, "numbers"),
        ({"timing": "1 2 3 4 5 6 7"}, "numbers"),
        ({"timing": "1 2 3 4 five 6"}, "numbers"),
    ],
)
def test_garbage_is_a_value(changes: dict[str, Any], reason: str) -> None:
    assert outcome_of(record(**changes)) == Unreadable(reason)


def test_too_many_attributes_are_garbage() -> None:
    assert outcome_of(record(**{f"x{n}": "1" for n in range(64)})) == Unreadable("attributes")


def test_an_attribute_that_is_no_text_counts_as_empty() -> None:
    other = LogRecord(attributes=[KeyValue(key="status", value=AnyValue(int_value=200))])

    assert isinstance(outcome_of(other), Outcome)


def test_long_texts_are_cut() -> None:
    assert len(found(details="x" * 5000).details) == 1024


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    try:
        message = LogRecord.FromString(data)
    except Exception:  # noqa: BLE001  # protobuf's own refusal, made before us
        return
    outcome_of(message)


@given(st.fixed_dictionaries({name: st.text(max_size=40) for name in ATTRIBUTES}))
def test_no_text_raises(told: dict[str, str]) -> None:
    outcome_of(
        record(**{name: text.encode("utf-8", "replace").decode() for name, text in told.items()})
    )
