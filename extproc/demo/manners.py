"""How a request wants to be answered: what its headers tell a mock model to do.

* `x-adapter-pause-ms`: between two events of a stream (default 40)
* `x-adapter-delay-ms`: before an answer begins (default 0)
* `x-adapter-gate`: wait before every event, or before a whole answer, until a
  `POST /gates/NAME` lets one through
* `x-adapter-status`: answer with this error instead
* `x-adapter-usage`: `missing` says nothing of tokens; `details` tells cached ones and thoughts
* `x-adapter-reset`: reset the connection: `start` before the answer begins, a number after so
  many events of it (in an answer that is no stream: in the middle of its body)
* `x-adapter-only`: who is meant by all of these, one or `a,b`; the others answer as they always do
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

PAUSE_MS: Final = 40
BEFORE_ANSWER: Final = -1

Usage = Literal["plain", "missing", "details"]
"""What an answer says of its tokens."""


class Manners(NamedTuple):
    """How to answer one request."""

    pause_seconds: float
    delay_seconds: float
    gate: str | None
    status: int
    usage: Usage
    reset_after: int | None
    """So many events; `BEFORE_ANSWER`, or None for never."""


def manners_of(headers: Mapping[str, str], adapter: str) -> Manners:
    """Read what the headers ask of this adapter.

    Raises:
        ValueError: one of them says nothing that is known.
    """
    if adapter not in headers.get("x-adapter-only", adapter).split(","):
        headers = {}
    reset = headers.get("x-adapter-reset")
    return Manners(
        pause_seconds=int(headers.get("x-adapter-pause-ms", PAUSE_MS)) / 1000,
        delay_seconds=int(headers.get("x-adapter-delay-ms", 0)) / 1000,
        gate=headers.get("x-adapter-gate"),
        status=int(headers.get("x-adapter-status", 200)),
        usage=_usage(headers.get("x-adapter-usage", "plain")),
        reset_after=None if reset is None else BEFORE_ANSWER if reset == "start" else int(reset),
    )


def _usage(word: str) -> Usage:
    match word:
        case "plain" | "missing" | "details":
            return word
        case _:
            msg = f"x-adapter-usage can't be {word!r}"
            raise ValueError(msg)
