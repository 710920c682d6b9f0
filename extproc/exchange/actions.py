"""What we want done about an event."""

from collections.abc import Mapping
from typing import Any

from extproc.llm.record import Record
from extproc.policy.budgets import Reserve

Header = tuple[str, bytes]


class PassThrough(Record, frozen=True):
    """Not an LLM call: let it go at once, without buffering its body."""

    remove_headers: tuple[str, ...]


class ReadBody(Record, frozen=True):
    """Hold the request until its body is there."""


class Route(Record, frozen=True):
    """Let the request go with these headers, choose its route anew, remember the metadata."""

    set_headers: tuple[Header, ...]
    remove_headers: tuple[str, ...]
    metadata: Mapping[str, Any]
    body: bytes | None
    """The body to send instead, or None to leave it as it came."""


class Reject(Record, frozen=True):
    """Answer the client ourselves; the upstream never hears of it."""

    status: int
    headers: tuple[Header, ...]
    body: bytes
    details: str
    metadata: Mapping[str, Any]


class Keep(Record, frozen=True):
    """The host of this attempt serves the model that was meant: let the request go as it is."""

    metadata: Mapping[str, Any]


class Replace(Record, frozen=True):
    """The host of this attempt serves another model: send it a body that names that one."""

    body: bytes | None
    """None: the body names it already, or no model at all."""
    metadata: Mapping[str, Any]


Verdict = PassThrough | Route | Reject
"""What becomes of a request."""

Final = Verdict | Keep | Replace
"""The actions that end an exchange."""


def told(action: Final) -> tuple[str, str]:
    """Name what became of the request, and why if it was refused: for those who count."""
    match action:
        case PassThrough():
            return "passed", ""
        case Route():
            return "routed", ""
        case Reject():
            return "refused", action.metadata["reason"]
        case Keep():
            return "attempt_kept", ""
        case Replace():
            return "attempt_replaced", ""


Action = Final | ReadBody | Reserve
