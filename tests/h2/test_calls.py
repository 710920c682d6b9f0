"""gRPC over HTTP/2, as its `PROTOCOL-HTTP2.md` has it."""

from collections.abc import Sequence

import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame

from extproc.server.h2 import answers
from extproc.server.h2.limits import FOREVER, Held, Limits
from tests.h2.peer import HEADERS, Handler, Peer, Silent, brief, headers, message


def ended(peer: Peer, *frames: HeadersFrame | DataFrame) -> dict[str, str]:
    """The one header block that these are answered with."""
    (last,) = [frame for frame in peer.send(*frames) if isinstance(frame, HeadersFrame)]
    assert "END_STREAM" in last.flags
    return peer.fields(last)


def refused(fields: list[tuple[str, str]]) -> tuple[dict[str, str], bytes]:
    peer = Peer()
    first, *rest = peer.send(peer.headers_frame(1, fields, "END_STREAM"))
    assert peer.handlers == []
    assert peer.connection.calls == {}
    return peer.fields(first), b"".join(frame.data for frame in rest)


def test_an_unknown_method_is_unimplemented() -> None:
    found, body = refused(headers((":path", "/test.Echo/Nothing")))

    assert (found[":status"], found["grpc-status"], body) == ("200", "12", b"")


@pytest.mark.parametrize("kind", ["application/json", "application/grpcx", "text/grpc", ""])
def test_another_content_type_is_415(kind: str) -> None:
    found, body = refused(headers(("content-type", kind)))

    assert found[":status"] == "415"
    assert found["content-length"] == str(len(body))


def test_no_content_type_is_415() -> None:
    assert refused(headers(without=["content-type"]))[0][":status"] == "415"


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8"])
def test_kinds_of_grpc_are_served(kind: str) -> None:
    peer = Peer()
    peer.send(peer.headers_frame(1, headers(("content-type", kind))))

    assert brief(peer.data(1, message(b"a"))) == ["headers 1", "data 1 6"]


def test_another_http_method_is_405() -> None:
    assert refused(headers((":method", "GET")))[0][":status"] == "405"


def test_more_headers_than_announced_are_431() -> None:
    fields = headers(("x-long", "x" * 10_000))
    assert refused([*fields, ("x-more", "y" * 6_400)])[0][":status"] == "431"


def test_a_refusal_does_not_wait_for_the_end_of_the_request() -> None:
    peer = Peer()

    first = peer.send(peer.headers_frame(1, headers((":path", "/nothing"))))

    assert brief(first) == ["headers 1 end", "rst 1 0"]
    assert peer.data(1, message(b"late"), "END_STREAM") == []
    assert peer.connection.cut == {}


@pytest.mark.parametrize("cuts", [(), (1,), (4,), (5,), (6,), (3, 8, 11), tuple(range(1, 24))])
def test_messages_come_in_any_pieces(cuts: tuple[int, ...]) -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    data = message(b"one") + message(b"") + message(b"three") + message(b"4")

    for start, stop in zip((0, *cuts), (*cuts, len(data)), strict=True):
        peer.data(1, data[start:stop])
    peer.data(1, b"", "END_STREAM")

    assert peer.handlers[0].heard == [b"one", b"", b"three", b"4", "end"]
    assert peer.connection.held.bytes == 0


def test_a_part_that_looks_like_a_message_is_none() -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    inner = message(b"inner")

    peer.data(1, b"\0" + len(inner).to_bytes(4))
    peer.data(1, inner)

    assert peer.handlers[0].heard == [inner]


def test_a_call_that_ends_forgets_what_was_half_there() -> None:
    peer = Peer()
    peer.open(1)
    peer.data(1, message(b"a") + b"\0\0")
    assert peer.connection.held.bytes == 2

    peer.handlers[0].call.finish()

    assert peer.connection.held.bytes == 0


def test_a_large_message_comes_and_goes_whole() -> None:
    peer = Peer(settings={4: 1 << 24})
    peer.send(*[])
    peer.connection.credit = 1 << 24
    peer.open(1)
    large = bytes(range(256)) * 8_000

    answer = peer.data(1, message(large), "END_STREAM")

    frames = [frame for frame in answer if isinstance(frame, DataFrame)]
    assert b"".join(frame.data for frame in frames) == message(large)
    assert max(len(frame.data) for frame in frames) == 16_384
    assert brief(answer[-1:]) == ["headers 1 end"]


@pytest.mark.parametrize(
    ("size", "status"), [pytest.param(100, None, id="inclusive"), (101, "8"), (1 << 31, "8")]
)
@pytest.mark.parametrize("limit", [100, 20_000])
def test_a_message_has_a_limit(size: int, status: str | None, limit: int) -> None:
    size = size if size > 1000 else size - 100 + limit
    peer = Peer(Limits(message_bytes_max=limit), method=Silent)
    peer.open(1)

    found = peer.data(1, b"\0" + size.to_bytes(4) + b"x" * min(size, limit + 1))

    if status is None:
        assert found == []
        assert [len(text) for text in peer.handlers[0].heard] == [limit]
    else:
        assert peer.fields(found[0])["grpc-status"] == status
        assert brief(found) == ["headers 1 end", "rst 1 0"]
        assert peer.handlers[0].heard == []
    assert peer.connection.held.bytes == 0


@pytest.mark.parametrize(
    ("encoding", "flag", "status"),
    [("gzip", 1, "12"), ("identity", 1, "13"), (None, 1, "13"), (None, 2, "13"), ("gzip", 2, "13")],
)
def test_a_compressed_message_is_refused(encoding: str | None, flag: int, status: str) -> None:
    peer = Peer()
    fields = headers(("grpc-encoding", encoding)) if encoding else HEADERS
    peer.send(peer.headers_frame(1, fields))

    found = ended(peer, DataFrame(1, message(b"x", flag=flag)))

    assert found["grpc-status"] == status
    if status == "12":
        assert found["grpc-accept-encoding"] == "identity"
    assert peer.handlers[0].heard == []


def test_a_message_that_is_not_compressed_is_served_whatever_the_encoding() -> None:
    peer = Peer()
    peer.send(peer.headers_frame(1, headers(("grpc-encoding", "gzip"))))

    assert brief(peer.data(1, message(b"a"))) == ["headers 1", "data 1 6"]


@pytest.mark.parametrize("part", [b"\0", b"\0\0\0\0\2x"])
def test_half_a_message_is_an_error(part: bytes) -> None:
    peer = Peer()
    peer.open(1)

    found = ended(peer, DataFrame(1, part, flags=["END_STREAM"]))

    assert found["grpc-status"] == "13"
    assert peer.handlers[0].heard == []


def test_a_bug_ends_its_call_and_no_other_and_tells_the_peer_nothing() -> None:
    peer = Peer()
    peer.open(1)
    peer.open(3)

    found = peer.data(1, message(b"bug"))

    assert peer.fields(found[0])["grpc-message"] == "internal error"
    assert [type(bug) for bug in peer.bugs] == [KeyError]
    assert brief(peer.data(3, message(b"a"))) == ["headers 3", "data 3 6"]


def test_a_bug_in_the_long_way_is_the_same() -> None:
    peer = Peer()
    peer.open(1)
    data = message(b"bug")

    peer.data(1, data[:4])
    found = peer.data(1, data[4:])

    assert peer.fields(found[0])["grpc-status"] == "13"
    assert len(peer.bugs) == 1


def test_a_method_that_fails_to_begin_ends_its_call() -> None:
    def broken(_: object) -> Handler:
        msg = "no"
        raise RuntimeError(msg)

    peer = Peer(method=broken)

    assert brief(peer.open(1)) == ["headers 1 end", "rst 1 0"]
    assert len(peer.bugs) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text", "plain text"),
        ("100 %", "100 %25"),
        ("ä\n", "%C3%A4%0A"),
        ("~\x7f", "~%7F"),
        ("x" * 2000, "x" * 1024),
        ("x" + "ä" * 600, "x" + "%C3%A4" * 511),
        ("\udc80", "?"),
    ],
)
def test_a_text_is_percent_encoded_and_has_a_limit(text: str, expected: str) -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    peer.handlers[0].call.finish(answers.NOT_FOUND, text)

    found = peer.fields(peer.flush()[0])

    assert (found["grpc-status"], found["grpc-message"]) == ("5", expected)


def test_an_answer_may_come_later_and_wakes_whoever_writes_once() -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    call = peer.handlers[0].call
    assert peer.woken == 0

    call.send(b"a")
    call.send(b"b")
    call.finish()
    assert peer.woken == 1

    assert brief(peer.flush()) == ["headers 1", "data 1 6", "data 1 6", "headers 1 end", "rst 1 0"]


def test_a_call_that_is_over_sends_nothing_more() -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    call = peer.handlers[0].call
    peer.send(RstStreamFrame(1))

    call.send(b"a")
    call.finish(3, "x")
    call.pause()
    call.resume()

    assert peer.flush() == []
    assert peer.handlers[0].heard == ["cancel"]


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("2S", 2), ("1500m", 1.5), ("1M", 60), ("1H", 3600), ("99999999n", 0.1), ("1500000u", 1.5)],
)
def test_a_deadline_is_held_to(timeout: str, seconds: float) -> None:
    limits = Limits(keepalive_seconds=FOREVER)
    peer = Peer(limits, method=Silent)
    peer.send(peer.headers_frame(1, headers(("grpc-timeout", timeout))))
    peer.open(3)

    assert peer.tick(seconds - 0.01) == []
    (first, _) = peer.tick(0.02)

    assert peer.fields(first)["grpc-status"] == "4"
    assert [handler.heard for handler in peer.handlers] == [["cancel"], []]
    assert peer.connection.timed == {}


@pytest.mark.parametrize("timeout", ["", "1", "S", "-1S", "123456789S", "1x", "1 S"])
def test_a_timeout_that_is_none_is_an_error(timeout: str) -> None:
    assert refused(headers(("grpc-timeout", timeout)))[0]["grpc-status"] == "13"


def test_a_call_that_ends_has_no_deadline_any_more() -> None:
    peer = Peer()
    peer.send(peer.headers_frame(1, headers(("grpc-timeout", "1S"))))
    peer.data(1, message(b"a"), "END_STREAM")

    assert peer.connection.timed == {}
    assert peer.tick(2) == []


def test_the_head_of_a_call_is_there_for_its_handler() -> None:
    peer = Peer()
    peer.send(peer.headers_frame(1, headers(("x-a", "1"), ("x-a", "2"))))

    head = peer.handlers[0].call.head

    assert head.path == b"/test.Echo/Echo"
    assert [value for name, value in head.fields if name == b"x-a"] == [b"1", b"2"]


def test_what_many_calls_hold_together_has_a_limit_and_others_end_well() -> None:
    held = Held()
    limits = Limits(held_bytes_max=100_000)
    first, second = (Peer(limits, method=Silent, held=held) for _ in range(2))
    half = b"\0" + (60_000).to_bytes(4) + b"x" * 50_000
    for peer in (first, second):
        peer.open(1)
    assert first.data(1, half) == []

    found = second.data(1, half)

    assert second.fields(found[0])["grpc-status"] == "8"
    assert held.bytes == 50_005
    first.data(1, b"x" * 10_000)
    assert [len(text) for text in first.handlers[0].heard] == [60_000]
    assert held.bytes == 0


def test_the_end_of_the_socket_is_heard_by_all() -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    peer.open(3)

    peer.connection.lost()

    assert [handler.heard for handler in peer.handlers] == [["cancel"]] * 2
    assert peer.connection.receive(PingFrame(0).serialize()) == b""


# The end of a connection.


def leaving(frames: Sequence[Frame]) -> tuple[int, bytes]:
    goaway, ping = frames
    assert isinstance(goaway, GoAwayFrame)
    assert isinstance(ping, PingFrame)
    return goaway.last_stream_id, ping.opaque_data


def test_who_leaves_lets_calls_end_that_are_open_or_on_their_way() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.leave()
    last_id, opaque = leaving(peer.flush())
    assert last_id == (1 << 31) - 1

    peer.open(3)  # sent before the client had heard
    assert brief(peer.send(PingFrame(0, opaque, flags=["ACK"]))) == ["goaway 3 0"]

    assert not peer.connection.is_over
    assert brief(peer.open(5)) == ["rst 5 7"]
    for stream_id in (1, 3):
        found = peer.data(stream_id, message(b"a"), "END_STREAM")
        assert brief(found)[-1] == f"headers {stream_id} end"
    assert peer.connection.is_over


def test_what_does_not_end_in_time_is_cut_off_and_never_well() -> None:
    peer = Peer(Limits(leave_seconds=5), method=Silent)
    peer.open(1)
    peer.open(3)
    peer.handlers[1].call.send(b"half an answer")
    peer.connection.leave()
    peer.flush()

    assert peer.tick(4.9) == []
    found = peer.tick(0.2)

    ends = [frame for frame in found if isinstance(frame, HeadersFrame)]
    assert [peer.fields(frame)["grpc-status"] for frame in ends] == ["14", "14"]
    assert brief(found)[-1] == "goaway 3 0"
    assert [handler.heard for handler in peer.handlers] == [["cancel"]] * 2
    assert peer.connection.is_over


def test_a_connection_ages() -> None:
    peer = Peer(Limits(age_seconds=100, keepalive_seconds=FOREVER))

    assert peer.tick(99) == []
    assert leaving(peer.tick(2))[0] == (1 << 31) - 1
    assert peer.tick(1) == []


def test_a_connection_without_calls_is_given_up() -> None:
    peer = Peer(Limits(idle_seconds=10, keepalive_seconds=FOREVER), method=Silent)
    peer.open(1)
    assert [peer.tick(9) for _ in range(3)] == [[], [], []]
    peer.handlers[0].call.finish()
    peer.flush()

    assert peer.tick(9) == []
    assert leaving(peer.tick(2))[0] == (1 << 31) - 1


def test_a_client_that_leaves_has_its_calls_answered() -> None:
    peer = Peer()
    peer.open(1)

    assert peer.send(GoAwayFrame(0)) == []

    assert brief(peer.data(1, message(b"a"), "END_STREAM"))[-1] == "headers 1 end"
    assert not peer.connection.is_over
    assert peer.tick(1) == []
    assert leaving(peer.tick(21))[0] == (1 << 31) - 1


def test_a_silent_peer_is_asked_for_a_sign_of_life() -> None:
    peer = Peer(Limits(keepalive_seconds=10, keepalive_wait_seconds=3))
    peer.tick(0)

    assert peer.tick(9) == []
    (ping,) = peer.tick(2)
    assert isinstance(ping, PingFrame)
    peer.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
    assert peer.tick(4) == []
    assert brief(peer.tick(11)) == ["ping"]
    assert brief(peer.tick(4)) == ["goaway 0 0"]
    assert peer.connection.is_over


def test_a_peer_that_says_nothing_at_first_is_given_up() -> None:
    peer = Peer(Limits(handshake_seconds=5), is_greeted=False)

    assert peer.tick(4.9) == []
    assert brief(peer.tick(0.2)) == ["goaway 0 1"]
    assert peer.tick(1) == []
