"""What was seen of an answer that Envoy copied to us, and how its record takes that in.

The record then is as if the meter in Envoy had noted it, and is settled the same way.
"""

from typing import Final, NamedTuple

import msgspec

from extproc.exchange.names import OBSERVE
from extproc.exchange.outcome import Outcome
from extproc.exchange.settling import kind_of
from extproc.llm.sse import Seen

RESERVATION_CHARS_MAX: Final = 64
"""Ours have 32; a longer one is not waited for."""

EVENT_BYTES: Final = 128
"""Of a stream that nobody saw, so much is taken for a token. Events are mostly longer."""

UNOBSERVED: Final = "unobserved"
"""`meter_error` of an answer of which nothing was seen, or nobody said in time what."""

CUT_SHORT: Final = "cut_short"
"""`meter_error` of one that went on when we did not see it any more."""


class Sighting(NamedTuple):
    """What was seen of one answer. `is_whole` if its end was."""

    reservation: str
    seen: Seen
    is_whole: bool


def needs_sighting(outcome: Outcome) -> bool:
    """Whether it depends on what was seen of the answer how much is charged."""
    noted = outcome.noted
    is_metered = bool(noted.bytes or noted.usage or noted.meter_error)
    return (
        noted.meter == OBSERVE
        and kind_of(outcome) == "call"
        and outcome.was_answered
        and 0 < len(noted.reservation) <= RESERVATION_CHARS_MAX
        and not is_metered
    )


def merged(outcome: Outcome, sighting: Sighting | None) -> Outcome:
    """Note what was seen, as the meter in Envoy would have; the unseen rest in proportion."""
    seen = Seen() if sighting is None else sighting.seen
    if sighting is None:
        seen = _to_the_end(outcome, seen, UNOBSERVED)
    elif not sighting.is_whole and not outcome.is_aborted and seen.bytes < outcome.bytes_sent:
        seen = _to_the_end(outcome, seen, CUT_SHORT)
    noted = msgspec.structs.replace(
        outcome.noted,
        usage=seen.usage,
        usage_start=seen.usage_start,
        events=seen.events,
        bytes=seen.bytes,
        meter_error=seen.error,
    )
    return outcome._replace(noted=noted)


def _to_the_end(outcome: Outcome, seen: Seen, error: str) -> Seen:
    """As if the rest of the answer had been like what was seen of it, or like any other."""
    sent, events = outcome.bytes_sent, 0
    if seen.bytes:
        events = seen.events * sent // seen.bytes
    elif outcome.noted.stream:
        events = sent // EVENT_BYTES
    return seen._replace(events=events, bytes=sent, error=seen.error or error)
