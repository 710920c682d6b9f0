"""RFC 9113, rule by rule: what a peer may do, and what it is told where it may not."""

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from extproc.server.h2.limits import Limits
from tests.h2.peer import HEADERS, PREFACE, Peer, Silent, brief, headers, message

NO, PROTOCOL, FLOW, SIZE = 0, 1, 3, 6
CLOSED, REFUSED, CANCEL, COMPRESSION, CALM = 5, 7, 8, 9, 11


def raw_frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4) + payload


def test_the_server_greets_with_its_settings_and_the_window_of_the_connection() -> None:
    peer = Peer(Limits(streams_max=7, stream_window=100_000, connection_window=200_000))

    settings, window = peer.greeting

    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {3: 7, 4: 100_000, 6: 16_384}
    assert brief([window]) == [f"window 0 {200_000 - 65_535}"]


def test_settings_are_acknowledged() -> None:
    peer = Peer(is_greeted=False)

    assert peer.raw(PREFACE) == []
    assert brief(peer.send(SettingsFrame(0))) == ["settings ack"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP/1.1"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", id="nearly a preface"),
        pytest.param(PREFACE + PingFrame(0).serialize(), id="another frame before SETTINGS"),
    ],
)
def test_a_connection_begins_with_a_preface_and_settings(data: bytes) -> None:
    peer = Peer(is_greeted=False)

    assert brief(peer.raw(data)) == [f"goaway 0 {PROTOCOL}"]
    assert peer.connection.is_over
    assert peer.raw(PREFACE) == []


def test_a_call_is_answered_by_headers_messages_and_trailers() -> None:
    peer = Peer()

    first = peer.open(1)
    second = peer.data(1, message(b"hello"))
    third = peer.data(1, b"", "END_STREAM")

    assert (first, brief(second), brief(third)) == (
        [],
        ["headers 1", "data 1 10"],
        ["headers 1 end"],
    )
    assert peer.fields(second[0]) == {":status": "200", "content-type": "application/grpc"}
    assert second[1].data == message(b"hello")
    assert peer.fields(third[0]) == {"grpc-status": "0"}
    assert peer.handlers[0].heard == [b"hello", "end"]
    assert peer.connection.calls == {}


def test_everything_in_one_read_is_answered_in_one_write() -> None:
    peer = Peer()
    frames = [
        frame
        for stream_id in (1, 3)
        for frame in (
            peer.headers_frame(stream_id),
            DataFrame(stream_id, message(b"a"), flags=["END_STREAM"]),
        )
    ]

    answers = peer.send(*frames)

    one = ["headers {0}", "data {0} 6", "headers {0} end"]
    assert brief(answers) == [text.format(number) for number in (1, 3) for text in one]
    assert peer.woken == 0


def test_a_stream_that_ends_before_its_client_does_is_cut() -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    call = peer.handlers[0].call
    call.send(b"enough")
    call.finish()

    assert brief(peer.flush()) == ["headers 1", "data 1 11", "headers 1 end", "rst 1 0"]
    # What was on its way is no fault of the client's.
    assert peer.data(1, message(b"late")) == []
    assert peer.send(WindowUpdateFrame(1, window_increment=1), RstStreamFrame(1)) == []
    assert peer.handlers[0].heard == []
    assert peer.connection.cut == {}


CONNECTION_ERRORS = [
    pytest.param(raw_frame(0, 0, 0, b"x"), PROTOCOL, id="6.1 DATA of no stream"),
    pytest.param(raw_frame(0, 0, 9, b"x"), PROTOCOL, id="5.1 DATA of an idle stream"),
    pytest.param(raw_frame(0, 8, 1, b""), PROTOCOL, id="6.1 DATA padded, but empty"),
    pytest.param(raw_frame(0, 8, 1, b"\x04xxx"), PROTOCOL, id="6.1 more padding than DATA"),
    pytest.param(raw_frame(1, 4, 0, b""), PROTOCOL, id="6.2 HEADERS of no stream"),
    pytest.param(raw_frame(1, 4, 2, b""), PROTOCOL, id="5.1.1 HEADERS of a server's stream"),
    pytest.param(raw_frame(1, 12, 3, b"\x09x"), PROTOCOL, id="6.2 more padding than HEADERS"),
    pytest.param(raw_frame(1, 0x24, 3, b"xxx"), SIZE, id="6.2 no room for a priority"),
    pytest.param(raw_frame(1, 4, 3, b"\xff"), COMPRESSION, id="4.3 a block that ends too early"),
    pytest.param(
        raw_frame(1, 4, 3, b"\xff\x80\x01"), COMPRESSION, id="4.3 an index that is not there"
    ),
    pytest.param(raw_frame(1, 4, 3, b"\x80"), COMPRESSION, id="4.3 index 0"),
    pytest.param(
        raw_frame(1, 4, 3, b"\x3f\xe2\x1f"), COMPRESSION, id="4.3 a larger table than allowed"
    ),
    pytest.param(
        raw_frame(1, 4, 3, b"\x82" * 1600), CALM, id="10.5.1 far too many headers in one frame"
    ),
    pytest.param(raw_frame(2, 0, 0, b"xxxxx"), PROTOCOL, id="6.3 PRIORITY of no stream"),
    pytest.param(raw_frame(3, 0, 0, b"xxxx"), PROTOCOL, id="6.4 RST_STREAM of no stream"),
    pytest.param(raw_frame(3, 0, 9, b"xxxx"), PROTOCOL, id="6.4 RST_STREAM of an idle stream"),
    pytest.param(raw_frame(3, 0, 1, b"xxx"), SIZE, id="6.4 RST_STREAM of a wrong size"),
    pytest.param(raw_frame(4, 0, 1, b""), PROTOCOL, id="6.5 SETTINGS of a stream"),
    pytest.param(raw_frame(4, 0, 0, b"xxxxx"), SIZE, id="6.5 SETTINGS of a wrong size"),
    pytest.param(raw_frame(4, 1, 0, b"xxxxxx"), SIZE, id="6.5 an acknowledgement with a payload"),
    pytest.param(raw_frame(4, 0, 0, b"\0\2\0\0\0\2"), PROTOCOL, id="6.5.2 ENABLE_PUSH of 2"),
    pytest.param(raw_frame(4, 0, 0, b"\0\4\x80\0\0\0"), FLOW, id="6.5.2 a window too large"),
    pytest.param(raw_frame(4, 0, 0, b"\0\5\0\0\x3f\xff"), PROTOCOL, id="6.5.2 frames too small"),
    pytest.param(raw_frame(4, 0, 0, b"\0\5\1\0\0\0"), PROTOCOL, id="6.5.2 frames too large"),
    pytest.param(raw_frame(5, 4, 1, b"xxxxx"), PROTOCOL, id="8.4 PUSH_PROMISE of a client"),
    pytest.param(raw_frame(6, 0, 1, b"x" * 8), PROTOCOL, id="6.7 PING of a stream"),
    pytest.param(raw_frame(6, 0, 0, b"x" * 7), SIZE, id="6.7 PING of a wrong size"),
    pytest.param(raw_frame(7, 0, 1, b"x" * 8), PROTOCOL, id="6.8 GOAWAY of a stream"),
    pytest.param(raw_frame(7, 0, 0, b"x" * 7), SIZE, id="6.8 GOAWAY of a wrong size"),
    pytest.param(raw_frame(8, 0, 0, b"\0\0\0\0"), PROTOCOL, id="6.9 WINDOW_UPDATE of nothing"),
    pytest.param(raw_frame(8, 0, 0, b"\0\0\1"), SIZE, id="6.9 WINDOW_UPDATE of a wrong size"),
    pytest.param(raw_frame(8, 0, 9, b"\0\0\0\1"), PROTOCOL, id="5.1 WINDOW_UPDATE, idle stream"),
    pytest.param(raw_frame(8, 0, 0, b"\x7f\xff\xff\xff"), FLOW, id="6.9.1 a window too large"),
    pytest.param(raw_frame(9, 4, 1, b""), PROTOCOL, id="6.10 CONTINUATION of no block"),
    pytest.param(
        raw_frame(1, 0, 3, b"\x83") + raw_frame(6, 0, 0, b"x" * 8),
        PROTOCOL,
        id="6.10 another frame within a block",
    ),
    pytest.param(
        raw_frame(1, 0, 3, b"\x83") + raw_frame(9, 4, 5, b""),
        PROTOCOL,
        id="6.10 CONTINUATION of another stream",
    ),
    pytest.param(raw_frame(0, 0, 1, b"x" * 16_385), SIZE, id="4.2 a frame too large"),
    pytest.param(b"\xff\xff\xff\x63\0\0\0\0\0", SIZE, id="4.2 too large, of a type unknown"),
]


@pytest.mark.parametrize(("data", "code"), CONNECTION_ERRORS)
def test_what_breaks_the_connection_ends_it(data: bytes, code: int) -> None:
    peer = Peer(method=Silent)
    peer.open(1)

    answers = peer.raw(data)

    assert brief(answers[-1:])[0].endswith(f" {code}")
    assert isinstance(answers[-1], GoAwayFrame)
    assert peer.connection.is_over
    assert peer.handlers[0].heard == ["cancel"]
    assert peer.raw(PingFrame(0).serialize()) == []


@pytest.mark.parametrize(("data", "code"), CONNECTION_ERRORS)
def test_a_fault_is_found_however_the_bytes_come(data: bytes, code: int) -> None:
    peer = Peer(method=Silent)
    peer.open(1)

    answers = [frame for byte in data for frame in peer.raw(bytes([byte]))]

    assert brief(answers)[-1].endswith(f" {code}")


def test_headers_of_a_stream_that_the_client_ended_break_the_connection() -> None:
    peer = Peer()
    peer.open(1)
    peer.send(RstStreamFrame(1))

    assert brief(peer.open(1)) == [f"goaway 1 {CLOSED}"]


def test_data_of_a_stream_that_the_client_ended_is_an_error_of_the_stream() -> None:
    peer = Peer(method=Silent)
    peer.open(1, "END_STREAM")
    peer.open(3)
    peer.send(RstStreamFrame(3))

    peer.open(5, "END_STREAM")

    assert brief(peer.data(1, b"x")) == [f"rst 1 {CLOSED}"]
    assert brief(peer.data(3, b"x")) == [f"rst 3 {CLOSED}"]
    assert brief(peer.open(5, "END_STREAM")) == [f"rst 5 {CLOSED}"]
    assert peer.handlers[0].heard == ["end", "cancel"]
    assert not peer.connection.is_over


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (RstStreamFrame(1, error_code=8), None),
        (WindowUpdateFrame(1, window_increment=(1 << 31) - 1), FLOW),
        (PriorityFrame(1, stream_weight=1), None),
    ],
)
def test_what_breaks_a_stream_leaves_the_others(frame: Frame, code: int | None) -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    peer.open(3)

    answers = peer.send(frame)

    assert brief(answers) == ([] if code is None else [f"rst 1 {code}"])
    assert not peer.connection.is_over
    assert peer.handlers[1].heard == []


def test_a_window_update_of_nothing_is_an_error_of_its_stream() -> None:
    peer = Peer(method=Silent)
    peer.open(1)

    assert brief(peer.raw(raw_frame(8, 0, 1, b"\0\0\0\0"))) == [f"rst 1 {PROTOCOL}"]
    assert peer.data(1, b"on its way", "END_STREAM") == []
    assert peer.handlers[0].heard == ["cancel"]


def test_a_priority_of_a_wrong_size_is_an_error_of_its_stream() -> None:
    peer = Peer(method=Silent)
    peer.open(1)

    assert brief(peer.raw(raw_frame(2, 0, 1, b"xxxx"))) == [f"rst 1 {SIZE}"]


def test_priorities_padding_and_the_reserved_bit_mean_nothing() -> None:
    peer = Peer()
    block = peer.encoder.encode(HEADERS)
    padded = HeadersFrame(1, block, pad_length=7, depends_on=0, stream_weight=3)
    padded.flags |= {"END_HEADERS", "PADDED", "PRIORITY"}
    data = DataFrame(1, message(b"a"), pad_length=200, flags=["PADDED"]).serialize()
    reserved = data[:5] + bytes([data[5] | 0x80]) + data[6:]

    assert peer.send(padded, PriorityFrame(1), PriorityFrame(99)) == []
    assert brief(peer.raw(data)) == ["headers 1", "data 1 6"]
    assert brief(peer.raw(reserved)) == ["data 1 6"]


def test_unknown_frames_and_flags_are_let_go() -> None:
    peer = Peer()

    assert peer.raw(raw_frame(0xBE, 0xFF, 77, b"?")) == []
    assert peer.raw(raw_frame(6, 0xFE, 0, b"12345678"))[0].opaque_data == b"12345678"
    assert peer.raw(raw_frame(4, 0, 0, b"\xbe\xef\0\0\0\1"))


def test_a_header_block_comes_in_any_number_of_frames() -> None:
    peer = Peer()
    block = peer.encoder.encode(HEADERS)
    first = HeadersFrame(1, block[:3])
    parts = [ContinuationFrame(1, block[at : at + 20]) for at in range(3, len(block), 20)]
    parts[-1].flags.add("END_HEADERS")

    assert peer.send(first, *parts) == []
    assert brief(peer.data(1, message(b"a"))) == ["headers 1", "data 1 6"]


def test_trailers_end_a_call() -> None:
    peer = Peer()
    peer.open(1)

    peer.send(peer.headers_frame(1, [("x-sum", "1")], "END_STREAM"))

    assert peer.handlers[0].heard == ["end"]


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        pytest.param([("x-sum", "1")], (), id="that do not end it"),
        pytest.param([(":path", "/")], ("END_STREAM",), id="with a pseudo-header"),
        pytest.param([("connection", "close")], ("END_STREAM",), id="of the connection"),
    ],
)
def test_trailers_that_are_none_are_an_error_of_the_stream(
    fields: list[tuple[str, str]], flags: tuple[str, ...]
) -> None:
    peer = Peer()
    peer.open(1)

    assert brief(peer.send(peer.headers_frame(1, fields, *flags))) == [f"rst 1 {PROTOCOL}"]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(headers(without=[":path"]), id="no path"),
        pytest.param(headers((":path", "")), id="an empty path"),
        pytest.param(headers(without=[":method"]), id="no method"),
        pytest.param(headers(without=[":scheme"]), id="no scheme"),
        pytest.param([*HEADERS, (":path", "/x")], id="a pseudo-header after others"),
        pytest.param([(":path", "/x"), *HEADERS], id="two paths"),
        pytest.param([(":status", "200"), *HEADERS], id="a pseudo-header of answers"),
        pytest.param(headers(("X-Upper", "1")), id="upper case"),
        pytest.param(headers(("x y", "1")), id="a space in a name"),
        pytest.param(headers(("", "1")), id="no name"),
        pytest.param(headers(("connection", "close")), id="of the connection"),
        pytest.param(headers(("te", "gzip")), id="te that is not trailers"),
        pytest.param(headers(("x-a", "1\n2")), id="a line feed"),
        pytest.param(headers(("x-a", "1\0")), id="a zero"),
        pytest.param(headers(("x-a", " 1")), id="a space in front"),
        pytest.param(headers((":authority", "a\r")), id="a carriage return in a pseudo-header"),
        pytest.param(headers(("content-length", "x")), id="a length that is none"),
        pytest.param(headers(("content-length", "-1")), id="less than nothing"),
    ],
)
def test_malformed_headers_are_an_error_of_the_stream(fields: list[tuple[str, str]]) -> None:
    peer = Peer()

    assert brief(peer.send(peer.headers_frame(1, fields))) == [f"rst 1 {PROTOCOL}"]
    assert peer.handlers == []
    # And the table is still in step.
    peer.open(3)
    assert brief(peer.data(3, message(b"a"))) == ["headers 3", "data 3 6"]


@pytest.mark.parametrize(
    ("length", "payloads", "is_right"),
    [(6, [6], True), (6, [1, 5], True), (7, [6], False), (5, [6], False), (0, [], True)],
)
def test_a_content_length_is_held_to(length: int, payloads: list[int], is_right: bool) -> None:
    peer = Peer(method=Silent)
    peer.send(peer.headers_frame(1, headers(("content-length", str(length)))))
    body = message(b"a")
    for size in payloads:
        peer.data(1, body[:size])
        body = body[size:]

    answers = peer.data(1, b"", "END_STREAM")

    assert brief(answers) == ([] if is_right else [f"rst 1 {PROTOCOL}"])


def test_more_streams_than_allowed_are_refused_and_others_go_on() -> None:
    peer = Peer(Limits(streams_max=2))
    peer.open(1)
    peer.open(3)

    assert brief(peer.open(5)) == [f"rst 5 {REFUSED}"]
    assert peer.data(5, message(b"on its way")) == []
    assert brief(peer.data(1, message(b"a"), "END_STREAM"))[-1] == "headers 1 end"
    peer.open(7)
    assert brief(peer.data(7, message(b"a"))) == ["headers 7", "data 7 6"]


def test_headers_that_are_known_are_judged_as_others_are() -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    peer.open(3)
    assert len(peer.connection.heads.known) == 1

    assert brief(peer.open(4)) == [f"goaway 3 {PROTOCOL}"]


def test_a_table_that_the_peer_makes_smaller_is_acknowledged_in_the_next_block() -> None:
    peer = Peer(settings={1: 0})
    peer.decoder.max_allowed_table_size = 0

    peer.open(1)
    answers = peer.data(1, message(b"a"), "END_STREAM")

    assert answers[0].data.startswith(b"\x20")
    assert not answers[2].data.startswith(b"\x20")
    assert peer.fields(answers[0])[":status"] == "200"
    peer.open(3)
    assert not peer.data(3, message(b"a"))[0].data.startswith(b"\x20")


def test_push_promise_is_never_ours_to_take() -> None:
    peer = Peer()

    answers = peer.send(PushPromiseFrame(1, promised_stream_id=2))

    assert brief(answers) == [f"goaway 0 {PROTOCOL}"]
