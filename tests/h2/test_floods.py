"""A peer that means harm: its work and memory are bounded, and it is told to be calm."""

from collections.abc import Callable
from typing import Any

import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from extproc.server.h2.compression import STRINGS_MAX, Compression
from extproc.server.h2.limits import Limits
from tests.h2.peer import ECHO, Peer, Silent, brief, headers, message

CALM = 11
LIMITS = Limits(controls_burst=100, resets_burst=50, cut_max=20, streams_max=10)


def drowned(peer: Peer, step: Callable[[int], list[Any]]) -> int:
    """How many steps it takes to be told to be calm. They get the numbers of fresh streams."""
    for number in range(2000):
        answers = step(2 * number + 1)
        if answers and isinstance(answers[-1], GoAwayFrame):
            assert answers[-1].error_code == CALM
            assert peer.connection.is_over
            return number
    pytest.fail("it may go on for ever")


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(PingFrame(0), id="PING"),
        pytest.param(PingFrame(0, flags=["ACK"]), id="acknowledgements of no PING"),
        pytest.param(SettingsFrame(0), id="SETTINGS"),
        pytest.param(PriorityFrame(3), id="PRIORITY"),
        pytest.param(WindowUpdateFrame(0, window_increment=1), id="WINDOW_UPDATE"),
        pytest.param(WindowUpdateFrame(1, window_increment=1), id="WINDOW_UPDATE of a stream"),
        pytest.param(DataFrame(1, b""), id="empty DATA"),
        pytest.param(DataFrame(1, b"", pad_length=9, flags=["PADDED"]), id="padding only"),
        pytest.param(DataFrame(3, b"x"), id="DATA of a closed stream"),
        pytest.param(RstStreamFrame(3), id="RST_STREAM of a closed stream"),
        pytest.param(GoAwayFrame(0), id="GOAWAY"),
    ],
)
def test_frames_that_ask_for_work_and_are_no_call(frame: Frame) -> None:
    peer = Peer(LIMITS, method=Silent)
    peer.open(1)
    peer.open(3)
    peer.send(RstStreamFrame(3))

    assert 50 <= drowned(peer, lambda _: peer.send(frame)) <= 130


def test_settings_that_change_many_windows_weigh_more() -> None:
    peer = Peer(Limits(controls_burst=100, controls_per_stream=0), method=Silent)
    for number in range(160):
        peer.open(2 * number + 1)

    assert drowned(peer, lambda n: peer.send(SettingsFrame(0, settings={4: n}))) == 9


def test_unknown_frames() -> None:
    peer = Peer(LIMITS)

    assert 50 <= drowned(peer, lambda _: peer.raw(b"\0\0\0\xbb\0\0\0\0\0")) <= 130


def test_time_and_calls_make_up_for_such_frames() -> None:
    peer = Peer(LIMITS)
    numbers = iter(range(1, 100_000, 2))

    for _ in range(20):
        for _ in range(80):
            assert brief(peer.send(PingFrame(0))) == ["pong"]
        peer.now += 0.5
        for _ in range(4):
            stream_id = next(numbers)
            peer.open(stream_id)
            peer.data(stream_id, message(b"a"), "END_STREAM")

    assert not peer.connection.is_over


def test_what_is_not_spent_is_not_saved_up() -> None:
    peer = Peer(LIMITS)
    peer.now += 1_000_000

    assert drowned(peer, lambda _: peer.send(PingFrame(0))) == LIMITS.controls_burst


def test_strings_are_remembered_up_to_a_limit() -> None:
    compression = Compression(32_768)
    encoder = Encoder()

    for number in range(1000):
        compression.decode(encoder.encode([("x-a", f"huffman{number}")]))
        assert len(compression._strings) <= STRINGS_MAX  # noqa: SLF001  # nobody sees it

    compression.decode(encoder.encode([("x-a", "y" * 1_000)]))
    assert max(map(len, compression._strings)) < 100  # noqa: SLF001  # the same


def test_rapid_reset() -> None:
    """CVE-2023-44487."""
    peer = Peer(LIMITS, method=Silent)

    def step(stream_id: int) -> list[Any]:
        assert len(peer.connection.calls) <= LIMITS.streams_max
        return peer.send(peer.headers_frame(stream_id), RstStreamFrame(stream_id, error_code=8))

    assert drowned(peer, step) == 50
    assert [handler.heard for handler in peer.handlers] == [["cancel"]] * 51


def test_calls_that_were_answered_may_be_reset_without_end() -> None:
    """As Envoy does with every one."""
    peer = Peer(LIMITS, method=Silent)

    for number in range(1000):
        stream_id = 2 * number + 1
        peer.open(stream_id)
        peer.handlers[-1].call.finish()
        peer.flush()
        assert peer.send(RstStreamFrame(stream_id)) == []

    assert not peer.connection.is_over


def test_streams_beyond_the_limit() -> None:
    peer = Peer(LIMITS, method=Silent)

    assert 100 <= drowned(peer, peer.open) <= 250
    # The refused ones earn nothing, for all that they are streams.
    assert len(peer.handlers) == 10
    assert len(peer.connection.cut) <= LIMITS.cut_max + 1


def test_malformed_calls() -> None:
    peer = Peer(LIMITS)
    bad = headers(("connection", "close"))

    assert 50 <= drowned(peer, lambda number: peer.send(peer.headers_frame(number, bad))) <= 130


def test_streams_that_are_never_ended_by_their_client_are_forgotten() -> None:
    peer = Peer(LIMITS)

    for number in range(500):
        peer.open(2 * number + 1)
        peer.handlers[-1].call.finish()

    peer.open(1001)
    assert len(peer.connection.cut) <= LIMITS.cut_max


@pytest.mark.parametrize("part", [b"", b"\x82"])
def test_continuation(part: bytes) -> None:
    """CVE-2024-27316 and its like."""
    peer = Peer()
    peer.send(HeadersFrame(1, b""))

    number = drowned(peer, lambda _: peer.send(ContinuationFrame(1, part)))

    assert number == Limits().continuations_max


def test_large_header_blocks() -> None:
    peer = Peer()
    peer.send(HeadersFrame(1, b"x" * 16_000))
    assert peer.send(ContinuationFrame(1, b"x" * 16_000)) == []

    assert brief(peer.send(ContinuationFrame(1, b"x" * 16_000))) == [f"goaway 0 {CALM}"]


def test_a_header_bomb() -> None:
    """One large entry of the table, named over and over."""
    peer = Peer()
    bomb = peer.encoder.encode([(":path", ECHO), ("x-bomb", "x" * 4_000)])
    frame = HeadersFrame(1, bomb + b"\xbe" * 100, flags=["END_HEADERS"])

    assert brief(peer.send(frame)) == [f"goaway 0 {CALM}"]


def test_answers_that_are_never_taken() -> None:
    limits = Limits(queued_bytes_max=100_000)
    peer = Peer(limits, settings={4: 0})
    peer.open(1)
    most = 0

    def step(_: int) -> list[Any]:
        nonlocal most
        answers = peer.data(1, message(b"x" * 1000))
        most = max(most, peer.connection.queued)
        return answers

    drowned(peer, step)

    assert 90_000 < most < 110_000
    assert peer.connection.queued == 0


def test_answers_that_are_never_taken_of_a_handler_that_goes_on_by_itself() -> None:
    peer = Peer(Limits(queued_bytes_max=100_000), method=Silent, settings={4: 0})
    peer.open(1)
    call = peer.handlers[0].call

    for _ in range(200):
        call.send(b"x" * 1000)

    assert brief(peer.flush())[-1] == f"goaway 1 {CALM}"
    assert peer.handlers[0].heard == ["cancel"]


def test_a_window_of_one_byte_a_time_costs_a_frame_a_time() -> None:
    peer = Peer(settings={4: 0})
    for number in range(100):
        peer.open(2 * number + 1)
        peer.data(2 * number + 1, message(b"x" * 500))

    for _ in range(200):
        assert brief(peer.send(WindowUpdateFrame(1, window_increment=1))) == ["data 1 1"]


def test_blocks_are_remembered_up_to_a_limit() -> None:
    peer = Peer(Limits(heads_max=8))
    path = b"\x04" + bytes([len(ECHO)]) + ECHO.encode()
    common = b"\x83\x86" + path + b"\x0f\x10\x10application/grpc"

    for number in range(100):
        block = common + b"\x00\x01x\x03%03d" % number
        frame = HeadersFrame(2 * number + 1, block, flags=["END_HEADERS", "END_STREAM"])
        peer.send(frame)
        assert len(peer.connection.heads.known) <= 8

    assert len(peer.handlers) == 100
