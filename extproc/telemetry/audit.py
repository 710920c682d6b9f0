"""One JSON line for each LLM call: who, what, why, how much, and all that is needed to charge it.

Never a prompt, an answer, a key or a token: a record holds none. Lines are plain ASCII, so that
nothing a client sends can end one early. A line is written after the ledger's commit, and again if
Envoy brings its record again: a process may have died in between. `docs/audit.md` names the fields.
"""

import datetime as dt
import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog

from extproc.exchange.holds import holds_of
from extproc.exchange.outcome import Outcome
from extproc.exchange.settling import Bill, Summary, settlement_of
from extproc.llm.dialects import dialect_of
from extproc.telemetry.lines import ALONE, FileLines, StreamLines
from extproc.telemetry.span import readable, tokens_per_second
from extproc.telemetry.turns import Turn

VERSION: Final = 1
"""Of the fields. A field may be added without a new one."""

WAITING_MAX: Final = 10_000
"""Lines kept while they can't be written, some 15 MB. What comes beyond it is lost."""

STDOUT: Final = "stdout"
OFF: Final = "off"

CHANGED: Final = b'{"budget_change":1,'
"""What a line about a changed budget begins with; its fields follow."""

_STDOUT_DESCRIPTOR: Final = 1


class Audit:
    """Writes a line for each call that it observes.

    `write` takes a whole line, or raises OSError or ValueError and will be given the same line
    again. Lines that can't be written wait for those that come after them.
    """

    def __init__(self, write: Callable[[bytes], object], close: Callable[[], object] = int) -> None:
        self._write = write
        self._close = close
        self._waiting: deque[bytes] = deque()
        self._lost = 0

    @property
    def lost(self) -> int:
        """How many lines will never be written."""
        return self._lost

    @property
    def waiting(self) -> int:
        """How many lines could not be written yet."""
        return len(self._waiting)

    def observe(self, summary: Summary) -> None:
        """Write the call's line, or keep it for later. Whatever fails, this does not."""
        if summary.kind == "other":
            return
        self._keep(line_of(summary))

    def changed(self, fields: Mapping[str, Any]) -> None:
        """Write that somebody has changed a budget, or keep it for later."""
        self._keep(CHANGED + _json(dict(fields))[1:] + b"\n")

    def _keep(self, line: bytes) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._lost += 1
        else:
            self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as that goes now."""
        while self._waiting:
            try:
                self._write(self._waiting[0])
            except (OSError, ValueError):  # the latter: a file object that is closed
                return
            self._waiting.popleft()

    def close(self) -> None:
        """Write what waits for the last time, and let go of the file."""
        self.flush()
        self._lost += len(self._waiting)
        self._waiting.clear()
        self._close()


def open_audit(target: str, turn: Turn = ALONE) -> Audit:
    """An audit that writes to `target`: `stdout`, `off`, or a file, which is appended to.

    `turn` is for several processes that write to the same.

    Raises:
        OSError: the file can't be opened.
    """
    if target == OFF:
        return Audit(len)
    lines = StreamLines(_STDOUT_DESCRIPTOR, turn) if target == STDOUT else FileLines(target, turn)
    return Audit(lines.write, lines.close)


def line_of(summary: Summary) -> bytes:
    """The call's line, its end included."""
    rendered = _RENDER(None, "", fields_of(summary))
    return (rendered if isinstance(rendered, bytes) else rendered.encode()) + b"\n"


def _json(fields: dict[str, Any], **_: object) -> bytes:
    """Plain ASCII: U+2028 and the like end lines too, and half a character is no UTF-8."""
    with suppress(UnicodeEncodeError):
        text = msgspec.json.encode(fields)
        if text.isascii():
            return text
    return json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode()


_RENDER: Final = structlog.processors.JSONRenderer(serializer=_json)


def fields_of(summary: Summary) -> dict[str, Any]:
    """What a line says, in its order. Every line has every field."""
    outcome, kind, bill, settled = summary
    noted, place, timing = outcome.noted, outcome.place, outcome.timing
    held = _held(outcome)
    dialect = noted.dialect or dialect_of(outcome.path)
    first = timing.first_byte if noted.stream else None
    return {
        "audit": VERSION,
        "started": _instant(outcome.started),
        "kind": kind,
        "tenant": noted.tenant,
        "identity": readable(noted.identity),
        "plan": readable(noted.plan),
        "dialect": dialect.value if dialect else "",
        "path": readable(outcome.path),
        "requested_model": readable(noted.requested_model),
        "stream": noted.stream,
        "complexity": _finite(noted.complexity),
        "temperature": _finite(noted.temperature),
        "prompt_tokens_estimated": noted.prompt_tokens,
        "output_tokens_max": noted.output_tokens_max,
        "tier": readable(noted.tier),
        "tier_model": readable(noted.model),
        "priority": noted.priority,
        "downgraded_from": readable(noted.downgraded_from),
        "reason": readable(noted.reason),
        "budget_warnings": readable(noted.budget_warnings),
        "reservation": noted.reservation,
        "held": held,
        **_used(bill),
        "charges": _charges(summary, held or []),
        "settled": settled or "",
        "route": readable(place.route),
        "cluster": readable(place.cluster),
        "host": readable(place.host),
        "workload": readable(place.workload),
        "attempts": place.attempts,
        "status": outcome.status,
        "flags": readable(outcome.flags),
        "details": readable(outcome.details),
        "aborted": outcome.is_aborted,
        "meter_error": readable(noted.meter_error),
        "ttft_ms": None if first is None else first / 1000,
        "duration_ms": timing.ended / 1000,
        "tokens_per_second": tokens_per_second(outcome, bill),
        "bytes_received": outcome.bytes_received,
        "bytes_sent": outcome.bytes_sent,
        "stream_id": readable(outcome.stream_id),
        "trace_id": readable(outcome.trace.trace_id),
    }


def _used(bill: Bill | None) -> dict[str, Any]:
    """What the provider counted or we estimated; nulls where there is no bill."""
    usage = None if bill is None else bill.usage
    return {
        "source": "" if bill is None else bill.source,
        "model": "" if bill is None else readable(bill.model),
        "prompt_tokens": usage and usage.prompt,
        "cached_tokens": usage and usage.cached,
        "cache_write_tokens": usage and usage.cache_write,
        "completion_tokens": usage and usage.completion,
        "reasoning_tokens": usage and usage.reasoning,
        "cost_micro_usd": None if bill is None else bill.cost_micro_usd,
    }


def _held(outcome: Outcome) -> list[dict[str, Any]] | None:
    """What was held; null where it could not be read, so that nothing was settled."""
    holds = holds_of(outcome.noted.reserved)
    if holds is None:
        return None
    return [
        {
            "budget": hold.budget,
            "unit": hold.unit,
            "amount": hold.amount,
            "expected": hold.expected,
            "window_start": int(hold.window_start),
        }
        for hold in holds
    ]


def _charges(summary: Summary, held: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each budget was charged, and in which window: all that a ledger must be told."""
    outcome, kind, bill, _ = summary
    settlement = settlement_of(outcome, bill) if kind == "call" and bill is not None else None
    if settlement is None:
        return []
    return [
        {
            "budget": charge.budget,
            "unit": hold["unit"],
            "window_start": int(charge.window_start),
            "amount": charge.amount,
        }
        for charge, hold in zip(settlement.charges, held, strict=True)
    ]


def _instant(seconds: float) -> str:
    """RFC 3339, UTC, microseconds; an instant that no calendar has is the year 1970."""
    try:
        at = dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, ValueError, OSError):
        at = dt.datetime.fromtimestamp(0, dt.UTC)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _finite(number: float | None) -> float | None:
    """JSON has no other numbers."""
    return number if number is not None and math.isfinite(number) else None
