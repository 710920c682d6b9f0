"""How the transport knows that it is late, and what becomes of those who come then."""

from itertools import count
from typing import Any

import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from hyperframe.frame import DataFrame, PingFrame, RstStreamFrame

from extproc.server.h2.decision import FAILS_OPEN
from extproc.server.h2.limits import Held, Limits
from extproc.server.h2.waits import ASKED_MAX
from tests.h2.peer import HEADERS, Peer, brief, message
from tests.h2.test_decision import BODY, HEAD, Desk, Noted, kinds
from tests.scenarios.harness import Bare
from tests.scenarios.table import Call, chat
from tests.shell.harness import head_of

ELSEWHERE = Call(chat(), path="/healthz")


@pytest.fixture(scope="module")
def bare() -> Bare:
    return Bare()


@pytest.fixture
def desk(bare: Bare) -> Desk:
    return Desk(bare, Noted(bare))


class Envoy:
    """A peer with a call open, which answers PINGs when told to: in their order, as one must."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.pings: list[PingFrame] = []
        self.ids = count(1, 2)
        self.open()

    def open(self, *more: tuple[str, str]) -> int:
        """Begin a call."""
        stream_id = next(self.ids)
        self._take(self.peer.send(self.peer.headers_frame(stream_id, [*HEADERS, *more])))
        return stream_id

    def data(self, stream_id: int, payload: bytes) -> list[Any]:
        """Send a message."""
        return self._take(self.peer.data(stream_id, payload))

    def wait(self, seconds: float) -> None:
        """Let time pass, as one does who has more to say."""
        for _ in range(round(seconds * 10)):
            self.peer.now += 0.1001
            self._take(self.peer.send(PingFrame(0, b"whatever")))

    def answer(self, pings: int = 1) -> None:
        """Answer so many of what was asked."""
        for _ in range(pings):
            asked = self.pings.pop(0)
            self._take(self.peer.send(PingFrame(0, asked.opaque_data, flags=["ACK"])))

    def fall_behind(self) -> None:
        """Leave all for a second, and then answer what was asked first."""
        self.wait(1.0)
        self.answer(2)

    def _take(self, frames: list[Any]) -> list[Any]:
        pings = [one for one in frames if isinstance(one, PingFrame) and "ACK" not in one.flags]
        self.pings += pings
        return [one for one in frames if not isinstance(one, PingFrame)]


def is_late(peer: Peer) -> bool:
    found: bool = peer.handlers[0].call.is_late
    return found


def test_a_peer_is_asked_now_and_then_as_long_as_it_says_something() -> None:
    envoy = Envoy(Peer())

    envoy.wait(0.5)

    assert len(envoy.pings) == 5
    assert len({ping.opaque_data for ping in envoy.pings}) == 5
    assert envoy.peer.tick(30) == []


def test_calls_are_late_when_two_pings_in_a_row_were() -> None:
    envoy = Envoy(Peer())
    envoy.wait(1.0)
    assert not is_late(envoy.peer)

    envoy.answer()
    after_one = is_late(envoy.peer)
    envoy.answer()

    assert (after_one, is_late(envoy.peer)) == (False, True)


def test_they_are_no_longer_once_one_ping_was_in_time() -> None:
    envoy = Envoy(Peer())
    envoy.fall_behind()
    assert is_late(envoy.peer)

    envoy.answer(7)

    assert len(envoy.pings) == 1
    assert not is_late(envoy.peer)


def test_a_peer_that_stood_still_itself_makes_nobody_late() -> None:
    """It says nothing in that time, so it is asked but once."""
    envoy = Envoy(Peer())
    envoy.wait(0.1)
    envoy.peer.now += 5

    envoy.answer()
    envoy.wait(0.1)

    assert not is_late(envoy.peer)


def test_what_was_late_once_says_nothing_after_all_is_answered() -> None:
    envoy = Envoy(Peer())
    envoy.fall_behind()
    envoy.peer.now += 1
    while envoy.pings:
        envoy.answer()

    envoy.peer.now += 60
    envoy.open()

    assert not envoy.peer.handlers[-1].call.is_late


def test_calls_are_late_when_more_was_asked_for_than_can_be_done_in_time() -> None:
    """Of what was asked for before the PING whose answer came last, nothing is left to come."""
    envoy = Envoy(Peer(Limits(wait_seconds_max=0.5)))
    call = envoy.peer.handlers[0].call
    for _ in range(1_000):
        call.took(0.01)
    for _ in range(50):
        call.expect()
    at_50 = call.is_late
    envoy.wait(0.1)
    call.expect()
    at_51 = call.is_late

    envoy.answer()
    after = call.is_late
    for _ in range(50):
        call.expect()

    assert (at_50, at_51, after, call.is_late) == (False, True, False, True)


def test_what_has_come_makes_nobody_late() -> None:
    call = Envoy(Peer()).peer.handlers[0].call
    call.took(64.0)
    for _ in range(100):
        call.expect()
        call.expect_no_more()

    assert not call.is_late


def test_long_messages_are_soon_forgotten() -> None:
    held = Held()
    for _ in range(1_000):
        held.took(0.1)
    for _ in range(64):
        held.took(0.001)

    assert 0.001 < held.seconds < 0.005


@pytest.mark.parametrize("end", ["body", "reset", "half-closed", "lost", "nonsense"])
def test_nothing_is_awaited_of_a_call_that_is_over(desk: Desk, end: str) -> None:
    held = desk.peer.connection.held
    desk.peer.open(1)
    desk.peer.data(1, HEAD)
    assert held.awaited == 1

    match end:
        case "body":
            desk.peer.data(1, BODY)
        case "reset":
            desk.peer.send(RstStreamFrame(1))
        case "half-closed":
            desk.peer.data(1, b"", "END_STREAM")
        case "lost":
            desk.peer.connection.lost()
        case _:
            desk.peer.data(1, message(b"\xff"))

    assert (held.asked, held.awaited) == (1, 0)
    assert (held.seconds > 0) == (end == "body")


def test_what_others_asked_for_takes_the_same_time() -> None:
    held = Held()
    envoy, other = (Envoy(Peer(held=held)) for _ in range(2))
    for peer in (envoy, other):
        peer.wait(0.1)
        peer.answer()
    held.took(64.0)
    other.peer.handlers[0].call.expect()

    assert is_late(envoy.peer)


def test_a_peer_that_was_away_is_not_late_for_what_others_asked_for() -> None:
    held = Held()
    envoy, other = (Envoy(Peer(held=held)) for _ in range(2))
    held.took(64.0)
    other.peer.handlers[0].call.expect()
    envoy.peer.now += 60

    envoy.open()

    assert not is_late(envoy.peer)
    assert not is_late(Envoy(Peer(held=held)).peer)


def test_a_peer_that_never_answers_is_asked_so_often() -> None:
    envoy = Envoy(Peer())

    envoy.wait(2 * ASKED_MAX / 10)

    assert len(envoy.pings) == ASKED_MAX


def test_one_long_wait_after_all_was_answered_is_one_alone() -> None:
    envoy = Envoy(Peer())
    envoy.fall_behind()
    while envoy.pings:
        envoy.answer()
    envoy.wait(1.0)

    envoy.answer()

    assert not is_late(envoy.peer)


def test_an_answer_out_of_turn_tells_nothing() -> None:
    envoy = Envoy(Peer())
    envoy.wait(1.0)
    last = envoy.pings[-1].opaque_data

    for _ in range(2):
        envoy.peer.send(PingFrame(0, last, flags=["ACK"]))

    assert not is_late(envoy.peer)


def test_answers_to_what_nobody_asked_count_as_any_frame() -> None:
    envoy = Envoy(Peer())
    envoy.wait(0.2)
    asked = envoy.pings[1]  # the second comes before the first
    frames: list[Any] = []
    for _ in range(1_100):
        frames = envoy.peer.send(PingFrame(0, asked.opaque_data, flags=["ACK"]))

    assert brief(frames) == []
    assert envoy.peer.connection.is_over


def test_a_late_call_is_refused_before_its_body_is_read(desk: Desk) -> None:
    envoy = Envoy(desk.peer)
    begun = envoy.open()
    envoy.data(begun, HEAD)
    envoy.fall_behind()

    late = envoy.data(envoy.open(), HEAD)
    rest = envoy.data(begun, BODY)

    assert kinds(late) == ["immediate_response"]
    (data,) = (one.data[5:] for one in late if isinstance(one, DataFrame))
    refusal = ProcessingResponse.FromString(data).immediate_response
    assert (refusal.status.code, refusal.details) == (503, "llm_overloaded")
    names = {each.header.key: each.header.raw_value for each in refusal.headers.set_headers}
    assert 1 <= int(names["retry-after"]) <= 5
    assert kinds(rest) == ["request_body"]
    assert desk.told == [("refused", "overloaded"), ("routed", "")]


def test_a_late_call_of_no_model_passes(desk: Desk) -> None:
    envoy = Envoy(desk.peer)
    envoy.fall_behind()

    late = envoy.data(envoy.open(), message(head_of(ELSEWHERE).SerializeToString()))

    assert kinds(late) == ["request_headers"]
    assert desk.told == [("passed", "")]


def test_a_late_call_of_a_filter_that_fails_open_is_failed(desk: Desk) -> None:
    envoy = Envoy(desk.peer)
    envoy.fall_behind()
    name, value = FAILS_OPEN

    late = envoy.data(envoy.open((name.decode(), value.decode())), HEAD)

    assert desk.status(late) == ("14", "overloaded")
    assert desk.told == [("turned_away", "")]
