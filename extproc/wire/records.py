"""Access-log records, as OTLP logs, to `Outcome`s.

`envoy.access_loggers.open_telemetry` sends each attribute as a string that a format operator
made, `-` where there is nothing. `ATTRIBUTES` says which; the Envoy configurations of the demo
and of `istio/` carry the same table, and a test holds them to it.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from extproc.exchange.outcome import Noted, Outcome, Place, Timing, Trace

EXPORT: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"

_SINCE_BEGUN: Final = tuple(
    f"%COMMON_DURATION(DS_RX_BEG:{point}:us)%"
    for point in ("DS_RX_END", "US_TX_END", "US_RX_BEG", "US_RX_END", "DS_TX_END")
)

ATTRIBUTES: Final = {
    "llm": "%DYNAMIC_METADATA(llm)%",
    "stream_id": "%STREAM_ID%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "host": "%UPSTREAM_HOST%",
    "workload": "%UPSTREAM_METADATA(istio:workload)%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "timing": " ".join((*_SINCE_BEGUN, "%DURATION%")),
    "traceparent": "%REQ(TRACEPARENT)%",
}
"""Name to format, of every attribute that is read. Others are let be."""

ATTRIBUTES_MAX: Final = 64
TEXT_CHARS_MAX: Final = 1024
METADATA_CHARS_MAX: Final = 32_768
NUMBER_DIGITS_MAX: Final = 18

_NOTHING: Final = "-"
_NANOSECONDS: Final = 1_000_000_000
_MICROSECONDS_PER_MS: Final = 1_000
_NOTED: Final = msgspec.json.Decoder(Noted)
_TIMES: Final = 6


class Unreadable(NamedTuple):
    """A record that can never be understood, and what about it."""

    reason: str


def outcome_of(record: LogRecord) -> Outcome | Unreadable:
    """Turn one record into what happened; never raises, whatever is in it."""
    if len(record.attributes) > ATTRIBUTES_MAX:
        return Unreadable("attributes")
    told = {pair.key: pair.value.string_value for pair in record.attributes}
    noted = _noted(told.get("llm", ""))
    if noted is None:
        return Unreadable("llm")
    numbers = _numbers(told, "status", "attempts", "bytes_received", "bytes_sent")
    timing = _timing(told.get("timing", ""))
    if numbers is None or timing is None or "status" not in told:
        return Unreadable("numbers")
    status, attempts, bytes_received, bytes_sent = numbers
    route, cluster, host, workload = (
        _text(told, name) for name in ("route", "cluster", "host", "workload")
    )
    return Outcome(
        stream_id=_text(told, "stream_id"),
        started=record.time_unix_nano / _NANOSECONDS,
        method=_text(told, "method"),
        path=_text(told, "path"),
        status=status,
        flags=_text(told, "flags") or _NOTHING,
        details=_text(told, "details"),
        bytes_received=bytes_received,
        bytes_sent=bytes_sent,
        noted=noted,
        place=Place(route, cluster, host, workload, attempts),
        timing=timing,
        trace=_trace(record, told),
    )


def _noted(text: str) -> Noted | None:
    if text in ("", _NOTHING):
        return Noted()
    if len(text) > METADATA_CHARS_MAX:
        return None
    try:
        return _NOTED.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


def _text(told: Mapping[str, str], name: str) -> str:
    text = told.get(name, _NOTHING)
    return "" if text == _NOTHING else text[:TEXT_CHARS_MAX]


def _numbers(told: Mapping[str, str], *names: str) -> list[int] | None:
    found = [_number(told.get(name, _NOTHING)) for name in names]
    return None if any(number == _BROKEN for number in found) else [n or 0 for n in found]


_BROKEN: Final = -1


def _number(text: str) -> int | None:
    """None for nothing, `_BROKEN` for what is no number."""
    if text in ("", _NOTHING):
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX):
        return _BROKEN
    return int(text)


def _timing(text: str) -> Timing | None:
    if not text:
        return Timing()
    parts = text.split(" ", _TIMES)
    if len(parts) != _TIMES:
        return None
    received, sent, first, last, ended, whole_ms = map(_number, parts)
    if _BROKEN in (received, sent, first, last, ended, whole_ms):
        return None
    if ended is None:
        ended = (whole_ms or 0) * _MICROSECONDS_PER_MS
    return Timing(received, sent, first, last, ended)


def _trace(record: LogRecord, told: Mapping[str, str]) -> Trace:
    """The server span's ids; `traceparent` is what the upstream got, with the sampling flag."""
    is_sampled = told.get("traceparent", "").rpartition("-")[2] == "01"
    return Trace(record.trace_id.hex(), record.span_id.hex(), is_sampled)
