"""What we answer with, as HPACK that needs no encoder: names and values in plain, nothing indexed.

So each block means the same at any time on any connection, and is made once. The codes and texts
of gRPC are those of its `PROTOCOL-HTTP2.md`.
"""

import struct
from typing import Final

from extproc.server.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    Code,
)

OK: Final = 0
CANCELLED: Final = 1
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

TEXT_BYTES_MAX: Final = 1024
"""Of `grpc-message` before it is encoded, which may make it three times as long."""

PREFIX_BYTES: Final = 5
"""In front of each message: whether it is compressed, and its size."""

RESIZED: Final = b"\x20"
"""We use no dynamic table. RFC 7541 §4.2: to be said where the peer makes it smaller."""

_STATUS_INDEXED: Final = {200: b"\x88", 400: b"\x8c"}
_STATUS_NAME: Final = b"\x08"
_CONTENT_TYPE_NAME: Final = b"\x0f\x10"
_INTEGER_7_BITS: Final = 127


def _text(value: bytes) -> bytes:
    """A string literal without Huffman's code, RFC 7541 §5.2."""
    size = len(value)
    if size < _INTEGER_7_BITS:
        return bytes((size,)) + value
    size -= _INTEGER_7_BITS
    head = bytearray((_INTEGER_7_BITS,))
    while size > _INTEGER_7_BITS:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + value


def field(name: bytes, value: bytes) -> bytes:
    """A literal header field without indexing, RFC 7541 §6.2.2."""
    return b"\x00" + _text(name) + _text(value)


def _status(status: int) -> bytes:
    return _STATUS_INDEXED.get(status) or _STATUS_NAME + _text(b"%d" % status)


def percent_encoded(text: str) -> bytes:
    """`grpc-message`: printable ASCII but for the percent sign as it is, all else as `%XX`."""
    raw = text.encode("utf-8", "replace")[:TEXT_BYTES_MAX]
    # Not cut within a character.
    raw = raw.decode("utf-8", "ignore").encode()
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte  # noqa: PLR2004  # ASCII
        for byte in raw
    )


ANSWER: Final = _status(200) + _CONTENT_TYPE_NAME + _text(b"application/grpc")
TRAILERS_OK: Final = field(b"grpc-status", b"0")
_ACCEPTS: Final = field(b"grpc-accept-encoding", b"identity")


def trailers(status: int, text: str = "") -> bytes:
    """How a call ended."""
    if status == OK and not text:
        return TRAILERS_OK
    block = field(b"grpc-status", b"%d" % status)
    if text:
        block += field(b"grpc-message", percent_encoded(text))
    # What a client needs that compressed its message; and nothing wrong in any other case.
    return block + _ACCEPTS if status == UNIMPLEMENTED else block


def http_answer(status: int, body: bytes) -> bytes:
    """Headers for those who speak no gRPC, whom its statuses would tell nothing."""
    return (
        _status(status)
        + _CONTENT_TYPE_NAME
        + _text(b"text/plain")
        + field(b"content-length", b"%d" % len(body))
    )


# Whole frames, in one go: this is what every call is answered with.

_N: Final = len(ANSWER)
_T: Final = len(TRAILERS_OK)
_FIRST: Final = struct.Struct(f">IBI{_N}sIBIBI")
_NEXT: Final = struct.Struct(">IBIBI")
_END: Final = struct.Struct(f">IBI{_T}s")
_CUT: Final = struct.Struct(f">IBI{_T}sIBII")
_ANSWER_WORD: Final = _N << 8 | HEADERS
_TRAILERS_WORD: Final = _T << 8 | HEADERS
_RST_WORD: Final = 4 << 8 | RST_STREAM
_END_FLAGS: Final = END_HEADERS | END_STREAM


def first_message(stream_id: int, size: int) -> bytes:
    """What is in front of the first message of an answer; `size` is with its prefix."""
    return _FIRST.pack(
        _ANSWER_WORD,
        END_HEADERS,
        stream_id,
        ANSWER,
        size << 8 | DATA,
        0,
        stream_id,
        0,
        size - PREFIX_BYTES,
    )


def next_message(stream_id: int, size: int) -> bytes:
    """What is in front of any other."""
    return _NEXT.pack(size << 8 | DATA, 0, stream_id, 0, size - PREFIX_BYTES)


def end(stream_id: int) -> bytes:
    """The end of a call that went well, and whose client has said all."""
    return _END.pack(_TRAILERS_WORD, _END_FLAGS, stream_id, TRAILERS_OK)


def cut(stream_id: int) -> bytes:
    """The same where the client need not say more, RFC 9113 §8.1."""
    return _CUT.pack(
        _TRAILERS_WORD,
        _END_FLAGS,
        stream_id,
        TRAILERS_OK,
        _RST_WORD,
        0,
        stream_id,
        Code.NO_ERROR,
    )
