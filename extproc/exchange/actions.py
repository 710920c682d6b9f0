"""What we want done about an event."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from extproc.policy.budgets import Reserve

Header = tuple[str, bytes]


class PassThrough(NamedTuple):
    """Not an LLM call: let it go at once, without buffering its body."""

    remove_headers: tuple[str, ...]


class ReadBody(NamedTuple):
    """Hold the request until its body is there."""


class Route(NamedTuple):
    """Let the request go with these headers, choose its route anew, remember the metadata."""

    set_headers: tuple[Header, ...]
    remove_headers: tuple[str, ...]
    metadata: Mapping[str, Any]
    body: bytes | None
    """The body to send instead, or None to leave it as it came."""


class Reject(NamedTuple):
    """Answer the client ourselves; the upstream never hears of it."""

    status: int
    headers: tuple[Header, ...]
    body: bytes
    details: str
    metadata: Mapping[str, Any]


Final = PassThrough | Route | Reject
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


Action = Final | ReadBody | Reserve
