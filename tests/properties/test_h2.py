"""The transport against any bytes, any cuts, any windows and any headers."""

from itertools import pairwise
from typing import Any

import pytest
from hpack import Decoder, Encoder, HPACKError
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.server.h2.frames import PeerError
from extproc.server.h2.heads import Heads, judged
from extproc.server.h2.limits import Limits
from tests.h2.peer import ECHO, PREFACE, Peer, headers, message, parsed

LIMITS = Limits(
    message_bytes_max=5_000,
    streams_max=5,
    stream_window=65_535,
    connection_window=65_535,
    held_bytes_max=20_000,
    heads_max=4,
    cut_max=8,
    queued_bytes_max=20_000,
    controls_burst=60,
    resets_burst=10,
)
CALLS = st.sampled_from([1, 1, 1, 3, 3, 5, 7, 9, 11, 13])
STREAMS = CALLS | st.sampled_from([0, 2, 1 << 31 | 1])


def framed(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4) + payload


PATH = b"\x04" + bytes([len(ECHO)]) + ECHO.encode()
BLOCKS = st.sampled_from(
    [
        b"\x83\x86" + PATH + b"\x0f\x10\x10application/grpc",  # changes no table
        b"\x83\x86" + PATH + b"\x5f\x10application/grpc",  # adds to it
        b"\x83\x86" + PATH + b"\xbe",  # needs what was added
        b"\x20\x83\x86" + PATH + b"\x0f\x10\x10application/grpc",  # empties it
        b"\x83\x86" + PATH + b"\x0f\x10\x10application/grpc\x00\x0cgrpc-timeout\x021S",
        b"\x83\x86" + PATH,
        b"\x82\x86\x84",
    ]
)
MESSAGES = st.sampled_from([b"", b"a", b"pause", b"bug", b"x" * 4_000, b"x" * 6_000]).map(message)
DATA = st.one_of(
    MESSAGES,
    st.lists(MESSAGES, max_size=3).map(b"".join),
    st.binary(max_size=12),
    MESSAGES.map(lambda whole: whole[:-1]),
)
POLITE = st.one_of(
    st.builds(framed, st.just(1), st.sampled_from([4, 4, 4, 5]), CALLS, BLOCKS),
    st.builds(framed, st.just(0), st.sampled_from([0, 0, 0, 1]), CALLS, DATA),
    st.builds(framed, st.just(3), st.just(0), CALLS, st.just(b"\0\0\0\x08")),
    st.builds(
        framed,
        st.just(8),
        st.just(0),
        CALLS | st.just(0),
        st.sampled_from([1, 5, 70_000]).map(lambda number: number.to_bytes(4)),
    ),
    st.builds(
        framed,
        st.just(4),
        st.just(0),
        st.just(0),
        st.sampled_from([0, 1, 20, 65_535, 1 << 20]).map(lambda n: b"\0\4" + n.to_bytes(4)),
    ),
)
"""Mostly in order, though some break a stream, and few the connection."""

WILD = st.one_of(
    st.builds(framed, st.just(1), st.sampled_from([0, 12, 0x24]), STREAMS, BLOCKS),
    st.builds(framed, st.just(0), st.sampled_from([8, 9]), STREAMS, DATA),
    st.builds(framed, st.just(9), st.sampled_from([0, 4]), STREAMS, BLOCKS),
    st.builds(framed, st.integers(0, 12), st.integers(0, 255), STREAMS, st.binary(max_size=16)),
)
ACKNOWLEDGED = PREFACE + framed(4, 0, 0, b"") + framed(4, 1, 0, b"")


def conversation(before: list[bytes], wild: list[bytes], after: list[bytes]) -> bytes:
    """Number the calls in the order of their coming; frames of none go to one that there is."""
    data = bytearray(ACKNOWLEDGED)
    last = -1
    for frame in (*[OPENING] * 3, *before):
        stream_id = int.from_bytes(frame[5:9])
        if frame[3] == 1:
            last = stream_id = last + 2
        elif stream_id > last:
            stream_id = last
        data += frame[:5] + stream_id.to_bytes(4) + frame[9:]
    return bytes(data) + b"".join(wild) + b"".join(after)


OPENING = framed(1, 4, 1, b"\x83\x86" + PATH + b"\x0f\x10\x10application/grpc")
CONVERSATIONS = st.builds(
    conversation,
    st.lists(POLITE, max_size=60),
    st.lists(WILD, max_size=2),
    st.lists(POLITE, max_size=5),
)


@given(CONVERSATIONS, st.lists(st.integers(0, 10_000), max_size=20))
def test_however_the_bytes_are_cut_all_comes_out_the_same(data: bytes, cuts: list[int]) -> None:
    whole, parts = Peer(LIMITS, is_greeted=False), Peer(LIMITS, is_greeted=False)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})

    at_once = whole.connection.receive(data)
    bit_by_bit = b"".join(
        parts.connection.receive(data[start:stop]) for start, stop in pairwise(edges)
    )

    assert bit_by_bit == at_once
    assert [one.heard for one in parts.handlers] == [one.heard for one in whole.handlers]


def bounded(peer: Peer) -> None:
    """Nothing is kept beyond its limit, and what is counted is what is there."""
    connection = peer.connection
    assert len(connection.calls) <= LIMITS.streams_max
    assert len(connection.cut) <= LIMITS.cut_max
    assert len(connection.heads.known) <= LIMITS.heads_max
    assert len(connection._input) < 9 + 16_384  # noqa: SLF001  # the one thing nobody can see
    assert len(connection.block or b"") <= LIMITS.block_bytes_max + 16_384
    held = [len(call._rest or b"") for call in connection.calls.values()]  # noqa: SLF001  # the same
    queued = [len(call._queue or b"") for call in connection.calls.values()]  # noqa: SLF001  # the same
    assert connection.held.bytes == sum(held) <= LIMITS.held_bytes_max
    assert connection.queued == sum(queued) <= LIMITS.queued_bytes_max
    assert connection.queues.keys() <= connection.calls.keys()
    assert connection.waiting.keys() <= connection.queues.keys()
    assert connection.timed.keys() <= connection.calls.keys()
    assert len(connection.out) == 0


@settings(max_examples=300)
@given(CONVERSATIONS, st.lists(st.tuples(st.integers(0, 5_000), st.binary(max_size=4))), st.data())
def test_no_bytes_whatever_do_more_than_end_their_connection(
    data: bytes, changes: list[tuple[int, bytes]], more: st.DataObject
) -> None:
    raw = bytearray(data)
    for start, replacement in changes:
        at = start % len(raw)
        raw[at : at + len(replacement)] = replacement
    peer = Peer(LIMITS, is_greeted=False)
    step = more.draw(st.integers(1, 400))

    for start in range(0, len(raw), step):
        answers = parsed(peer.connection.receive(bytes(raw[start : start + step])))
        bounded(peer)
        if peer.connection.has_failed:
            assert isinstance(answers[-1], GoAwayFrame)
            break
        for handler in peer.handlers:
            if more.draw(st.booleans()):
                handler.call.resume()
        peer.flush()
        bounded(peer)
    assert all(str(bug) == "'s3cret'" for bug in peer.bugs)
    if peer.connection.has_failed:
        assert peer.connection.calls == {}
        assert peer.connection.receive(b"more") == b""
    peer.connection.lost()
    assert peer.connection.held.bytes == 0
    for handler in peer.handlers:
        ends = [one for one in handler.heard if one == "cancel"]
        assert len(ends) <= 1
        assert handler.heard[-1:] == ends or not ends


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("send"),
            st.sampled_from([1, 3, 5]),
            st.integers(0, 3_000) | st.sampled_from([16_000, 20_000]),
        ),
        st.tuples(st.just("stream"), st.sampled_from([1, 3, 5]), st.integers(1, 3_000)),
        st.tuples(st.just("connection"), st.just(0), st.integers(1, 5_000)),
        st.tuples(st.just("initial"), st.just(0), st.integers(0, 5_000)),
        st.tuples(st.just("finish"), st.sampled_from([1, 3, 5]), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS, st.integers(0, 5_000) | st.just(1 << 20))
@example([("send", 1, 16_000)] * 6, 1 << 20)
def test_windows_are_kept_and_used_and_no_byte_is_lost(  # noqa: C901  # a peer in one piece
    steps: list[tuple[str, int, int]], initial: int
) -> None:
    peer = Peer(settings={4: initial})
    credit = dict.fromkeys((1, 3, 5), initial)
    of_connection = 65_535
    expected: dict[int, bytes] = dict.fromkeys(credit, b"")
    got: dict[int, bytes] = dict.fromkeys(credit, b"")
    finished: set[int] = set()
    ended: set[int] = set()
    for stream_id in credit:
        peer.open(stream_id)
    calls = {handler.call.id: handler.call for handler in peer.handlers}

    def take(frames: list[Any]) -> None:
        nonlocal of_connection
        for frame in frames:
            if isinstance(frame, DataFrame):
                assert frame.stream_id not in ended
                credit[frame.stream_id] -= len(frame.data)
                of_connection -= len(frame.data)
                assert credit[frame.stream_id] >= 0
                assert of_connection >= 0
                got[frame.stream_id] += frame.data
            elif isinstance(frame, HeadersFrame) and "END_STREAM" in frame.flags:
                ended.add(frame.stream_id)

    for kind, stream_id, size in steps:
        if kind == "send":
            if stream_id not in finished:
                expected[stream_id] += message(b"m" * size)
            calls[stream_id].send(b"m" * size)
        elif kind == "finish":
            calls[stream_id].finish()
            finished.add(stream_id)
        elif kind == "initial":
            change, initial = size - initial, size
            credit = {one: credit[one] + change for one in credit}
            take(peer.raw(framed(4, 0, 0, b"\0\4" + size.to_bytes(4))))
        elif kind == "stream" and stream_id not in ended:
            credit[stream_id] += size
            take(peer.raw(framed(8, 0, stream_id, size.to_bytes(4))))
        elif kind == "connection":
            of_connection += size
            take(peer.raw(framed(8, 0, 0, size.to_bytes(4))))
        take(peer.flush())
        for one in credit:
            assert expected[one].startswith(got[one])
            # What could be sent was, and nothing ends before all is sent.
            is_all = got[one] == expected[one]
            assert is_all or credit[one] <= 0 or of_connection <= 0
            assert (one in ended) == (one in finished and is_all)


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["x-a", "x-b"]),
        st.sampled_from(["1", "2", "y" * 2_000]),
        st.sampled_from([False, False, True]),
    ),
    max_size=2,
)
SIZES = st.sampled_from([None] * 5 + [0, 100, 4_096])


@given(st.lists(st.tuples(FIELDS, SIZES), max_size=30))
@example([([("x-a", value, False)], None) for value in "1122"])
@example([([("x-a", "1", False)], size) for size in (None, None, 0, 4_096, None)])
def test_a_block_that_is_remembered_means_what_it_would_have_meant(
    blocks: list[tuple[list[tuple[str, str, bool]], int | None]],
) -> None:
    encoder, decoder = Encoder(), Decoder()
    heads = Heads({}, LIMITS)
    for fields, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        # Not in the table, so that the same bytes may come again after it has changed.
        pairs = [(name, value, True) for name, value in headers()]
        block = encoder.encode([*pairs, *fields])
        expected = [tuple(field) for field in decoder.decode(block, raw=True)]

        head = heads.known.get(block) or heads.head(block)

        assert head is not None
        assert list(head.fields) == expected


PIECES = st.one_of(
    st.sampled_from(
        [
            b"\xbe",  # the newest entry, and others
            b"\xbf",
            b"\xc0",
            b"\x40\x01a\x011",  # added
            b"\x40\x01b\x012",
            b"\x7e\x013",  # added, with the name of the newest
            b"\x0f\x2f\x014",  # not added, with the name of the newest
            b"\x40\x01c\x7f\xb1\x1e" + b"c" * 4_016,  # all that the table holds, and more
            b"\x10\x83\x1d\x75\xd7\x00",  # never added, in Huffman's code
        ]
    ),
    st.binary(min_size=1, max_size=3),
)
RESIZES = st.sampled_from([b""] * 4 + [b"\x20", b"\x3f\x45", b"\x3f\xe1\x1f", b"\x20\x3f\xe1\x1f"])
BEGINNING = b"\x83\x86\x04\x01/"


@settings(max_examples=300)
@given(st.lists(st.tuples(RESIZES, st.lists(PIECES, max_size=3)), max_size=12))
@example([(b"", [b"\x40\x01a\x011"]), (b"", [b"\x40\x01a\x011"]), (b"", [b"\xbf"])])
@example([(b"", [b"\x40\x01a\x011"]), (b"", [b"\xbe"]), (b"\x20", []), (b"", [b"\xbe"])])
@example([(b"", [b"\x40\x01a\x011"]), (b"\x20", []), (b"", [b"\x40\x01a\x012", b"\xbe"])])
def test_any_block_means_what_it_means_to_hpack(blocks: list[tuple[bytes, list[bytes]]]) -> None:
    decoder, heads = Decoder(), Heads({}, LIMITS)
    for resize, pieces in blocks:
        block = resize + BEGINNING + b"".join(pieces)
        try:
            expected = [
                (bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)
            ]
        except (HPACKError, IndexError):
            assert block not in heads.known
            with pytest.raises(PeerError):
                heads.head(block)
            return

        head = heads.known.get(block) or heads.head(block)

        if head is not None:
            assert list(head.fields) == expected
        else:
            assert judged(expected, {}, LIMITS.header_list_bytes_max) is None
