"""Header blocks: decoded, judged by RFC 9113 §8 and gRPC's own rules, and remembered.

A block that changed no table when it was decoded means the same until a table changes. A peer
that calls one method over and over sends the same few bytes each time, so most blocks are looked
up.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from extproc.server.h2 import answers
from extproc.server.h2.compression import FIELD_BYTES, Compression, Field
from extproc.server.h2.frames import FRAME_BYTES_MAX
from extproc.server.h2.limits import HEAD_BLOCK_BYTES_MAX, Limits

if TYPE_CHECKING:
    from extproc.server.h2.call import Call
    from extproc.server.h2.inbound import Handler

Method = Callable[["Call"], "Handler"]

FIELDS_JUDGED_MAX: Final = 256
"""Remembered, of all connections; of 32 kB each at worst."""

_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_NEEDED: Final = frozenset({b":method", b":scheme", b":path"})
_OF_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE: Final = re.compile(rb"[\0\r\n]|^[ \t]|[ \t]$")
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_CONTENT_TYPE: Final = re.compile(rb"application/grpc(?:[+;].*)?")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_UNITS: Final = MappingProxyType(
    {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
)


class Refusal(NamedTuple):
    """An answer that needs no method: a header block, and a body where gRPC isn't spoken."""

    block: bytes
    body: bytes = b""


class Head:
    """What a call begins with. Shared by all calls that begin with the same bytes."""

    __slots__ = ("encoding", "fields", "is_plain", "length", "method", "path", "refusal", "timeout")

    def __init__(self, path: bytes, fields: Sequence[Field]) -> None:
        self.path = path
        self.fields = fields
        self.method: Method | None = None
        self.refusal: Refusal | None = None
        self.timeout: float | None = None
        self.encoding = b"identity"
        self.length: int | None = None
        self.is_plain = True
        """Whether its messages may take the short way: nothing about them needs to be counted."""


class Heads:
    """The receiving half of a connection's header compression."""

    def __init__(self, methods: Mapping[bytes, Method], limits: Limits) -> None:
        self._methods = methods
        self._list_bytes_max = limits.header_list_bytes_max
        self._known_max = limits.heads_max
        self._is_plain = limits.message_bytes_max >= FRAME_BYTES_MAX
        self._compression = Compression(2 * limits.header_list_bytes_max)
        self.known: dict[bytes, Head] = {}
        """By their blocks, as of now."""

    def fields(self, block: bytes) -> list[Field]:
        """Decode one block. All must be, in their order, even those of streams that are closed.

        Raises:
            PeerError: it can't be, and nor can any after it.
        """
        return self._decoded(block)[0]

    def head(self, block: bytes) -> Head | None:
        """Decode and judge the block that begins a call; None if it is malformed.

        Raises:
            PeerError: as above.
        """
        fields, is_lasting = self._decoded(block)
        head = judged(fields, self._methods, self._list_bytes_max)
        if head is None:
            return None
        head.is_plain = head.length is None and self._is_plain
        if is_lasting and len(block) <= HEAD_BLOCK_BYTES_MAX:
            if len(self.known) >= self._known_max:
                self.known.clear()
            self.known[block] = head
        return head

    def _decoded(self, block: bytes) -> tuple[list[Field], bool]:
        fields, is_lasting = self._compression.decode(block)
        if not is_lasting:
            self.known.clear()
        return fields, is_lasting


def judged(
    fields: Sequence[Field], methods: Mapping[bytes, Method], list_bytes_max: int
) -> Head | None:
    """What a call with these headers is; None if they are malformed (RFC 9113 §8.1.1)."""
    named = _named(fields)
    if named is None or not named.keys() >= _NEEDED or not named[b":path"]:
        return None
    length = named.get(b"content-length")
    if length is not None and not _LENGTH.fullmatch(length):
        return None
    head = Head(named[b":path"], fields)
    head.length = None if length is None else int(length)
    head.encoding = named.get(b"grpc-encoding", b"identity")
    size = sum(len(name) + len(value) + FIELD_BYTES for name, value in fields)
    timeout = named.get(b"grpc-timeout")
    if size > list_bytes_max:
        head.refusal = _http(431, b"too many headers\n")
    elif named[b":method"] != b"POST":
        head.refusal = _http(405, b"gRPC is spoken by POST\n")
    elif not _CONTENT_TYPE.fullmatch(named.get(b"content-type", b"")):
        head.refusal = _http(415, b"only gRPC is spoken here\n")
    elif timeout is not None and not _TIMEOUT.fullmatch(timeout):
        head.refusal = refusal(answers.INTERNAL, "no such grpc-timeout")
    elif head.path not in methods:
        head.refusal = refusal(answers.UNIMPLEMENTED, "unknown method")
    else:
        head.method = methods[head.path]
        head.timeout = None if timeout is None else _seconds(timeout)
    return head


def _named(fields: Sequence[Field]) -> dict[bytes, bytes] | None:
    """The last value by name; None if a field or their order is malformed."""
    named: dict[bytes, bytes] = {}
    are_regular = False
    for name, value in fields:
        if name in _PSEUDO:
            if are_regular or name in named or _BAD_VALUE.search(value):
                return None
        elif is_malformed(name, value) or (
            name == b"content-length" and named.get(name, value) != value
        ):
            return None
        else:
            are_regular = True
        named[name] = value
    return named


@lru_cache(FIELDS_JUDGED_MAX)
def is_malformed(name: bytes, value: bytes) -> bool:
    """Whether no request or trailers may have this field, RFC 9113 §8.2."""
    return (
        not _NAME.fullmatch(name)
        or name in _OF_CONNECTION
        or (name == b"te" and value.lower() != b"trailers")
        or bool(_BAD_VALUE.search(value))
    )


def refusal(status: int, text: str) -> Refusal:
    """Trailers only: an answer without messages."""
    return Refusal(answers.ANSWER + answers.trailers(status, text))


def _http(status: int, body: bytes) -> Refusal:
    return Refusal(answers.http_answer(status, body), body)


def _seconds(timeout: bytes) -> float:
    return int(timeout[:-1]) * _UNITS[timeout[-1:]]
