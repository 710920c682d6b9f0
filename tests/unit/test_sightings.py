"""extproc/exchange/sightings.py: which records need one, and what they make of it."""

from typing import Any

import pytest

from extproc.exchange.outcome import Outcome
from extproc.exchange.sightings import EVENT_BYTES, Sighting, merged, needs_sighting
from extproc.llm.dialects import Dialect
from extproc.llm.sse import Seen
from tests.unit.test_desk import record

USAGE = '{"prompt_tokens": 100, "completion_tokens": 20}'
SEEN = Seen(USAGE, "", 20, 1_000)


def call(name: str = "r1", *, sent: int = 1_000, flags: str = "-", **noted: Any) -> Outcome:
    known: dict[str, Any] = {
        "outcome": "routed",
        "meter": "observe",
        "reservation": name,
        "dialect": Dialect.OPENAI_CHAT,
        "stream": True,
    }
    return record(**(known | noted))._replace(bytes_sent=sent, flags=flags)


def seen_in(outcome: Outcome) -> Seen:
    noted = outcome.noted
    return Seen(noted.usage, noted.usage_start, noted.events, noted.bytes, noted.meter_error)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param(call(), True, id="an observed call"),
        pytest.param(call(flags="DC"), True, id="one that its client left"),
        pytest.param(call(meter=""), False, id="one whose meter is in Envoy"),
        pytest.param(call(outcome="refused"), False, id="a refusal"),
        pytest.param(call()._replace(status=429), False, id="an error"),
        pytest.param(call()._replace(status=0), False, id="one that was never answered"),
        pytest.param(call(name=""), False, id="one without a reservation"),
        pytest.param(call(name="r" * 64), True, id="a long name"),
        pytest.param(call(name="r" * 65), False, id="a name too long to be ours"),
        pytest.param(call(bytes=1), False, id="one that was metered all the same"),
        pytest.param(call(usage=USAGE), False, id="one whose usage is known"),
        pytest.param(call(meter_error="encoded"), False, id="one that its meter gave up on"),
    ],
)
def test_only_what_can_be_settled_by_a_sighting_waits_for_one(
    outcome: Outcome, *, expected: bool
) -> None:
    assert needs_sighting(outcome) is expected


@pytest.mark.parametrize(
    ("outcome", "sighting", "expected"),
    [
        pytest.param(call(), Sighting("r1", SEEN, is_whole=True), SEEN, id="all was seen"),
        pytest.param(
            call(sent=900, flags="DC"),
            Sighting("r1", Seen("", "{}", 5, 700), is_whole=False),
            Seen("", "{}", 5, 700),
            id="of an aborted one, what was seen",
        ),
        pytest.param(
            call(sent=4_000),
            Sighting("r1", Seen("", "{}", 5, 1_000), is_whole=False),
            Seen("", "{}", 20, 4_000, "cut_short"),
            id="the rest in proportion",
        ),
        pytest.param(
            call(sent=4_000),
            Sighting("r1", Seen("", "", 5, 1_000, "too_complex"), is_whole=False),
            Seen("", "", 20, 4_000, "too_complex"),
            id="the first reason stays",
        ),
        pytest.param(
            call(sent=4_000),
            Sighting("r1", Seen(), is_whole=False),
            Seen("", "", 4_000 // EVENT_BYTES, 4_000, "cut_short"),
            id="only the head was seen",
        ),
        pytest.param(
            call(),
            Sighting("r1", Seen("", "", 5, 1_000), is_whole=False),
            Seen("", "", 5, 1_000),
            id="all but the end was seen",
        ),
        pytest.param(
            call(sent=EVENT_BYTES * 7 + 1),
            None,
            Seen("", "", 7, EVENT_BYTES * 7 + 1, "unobserved"),
            id="of a stream nothing was seen",
        ),
        pytest.param(
            call(sent=1_000, stream=False),
            None,
            Seen("", "", 0, 1_000, "unobserved"),
            id="of JSON nothing was seen",
        ),
    ],
)
def test_what_was_seen_is_noted_as_by_the_meter_in_envoy(
    outcome: Outcome, sighting: Sighting | None, expected: Seen
) -> None:
    found = merged(outcome, sighting)

    assert seen_in(found) == expected
    assert found.noted.reservation == "r1"
    assert found._replace(noted=outcome.noted) == outcome
