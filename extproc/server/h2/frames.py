"""Frames of RFC 9113: their types and flags, error codes, and those that we send, as bytes.

Nothing here knows of a connection.
"""

import enum
import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
FRAME_BYTES_MAX: Final = 16_384
"""The default, and what each peer takes (§6.5.2): we ask for no more, and send no more."""

WINDOW_DEFAULT: Final = 65_535
WINDOW_MAX: Final = (1 << 31) - 1
ID_MAX: Final = (1 << 31) - 1

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

PING_BYTES: Final = 8
PRIORITY_BYTES: Final = 5
RST_BYTES: Final = 4
SETTING_BYTES: Final = 6


class Code(enum.IntEnum):
    """Error codes, §7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class Setting(enum.IntEnum):
    """Names of settings, §6.5.2."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


RANGES: Final[Mapping[int, tuple[int, int, Code]]] = MappingProxyType(
    {
        Setting.HEADER_TABLE_SIZE: (0, (1 << 32) - 1, Code.PROTOCOL_ERROR),
        Setting.ENABLE_PUSH: (0, 1, Code.PROTOCOL_ERROR),
        Setting.INITIAL_WINDOW_SIZE: (0, WINDOW_MAX, Code.FLOW_CONTROL_ERROR),
        Setting.MAX_FRAME_SIZE: (FRAME_BYTES_MAX, (1 << 24) - 1, Code.PROTOCOL_ERROR),
    }
)
"""The least and the most of a setting, and what a connection dies of beyond (§6.5.2)."""


class PeerError(Exception):
    """The peer broke the protocol: the connection ends with GOAWAY (§5.4.1)."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text


_HEAD: Final = struct.Struct(">IBI")
_SETTING: Final = struct.Struct(">HI")
unpack_head: Final = _HEAD.unpack_from
"""Length and type in one word, flags, stream id and its reserved bit."""


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Any frame."""
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def rst_stream(stream_id: int, code: int) -> bytes:
    """End one stream, §6.4."""
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4))


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """Say how we want it, §6.5."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0, b"")


def read_settings(payload: bytes) -> dict[int, int]:
    """The values that count: the last of each name. Names that nobody knows are left out.

    Raises:
        PeerError: one is out of its range, or the frame is no list of settings.
    """
    if len(payload) % SETTING_BYTES:
        raise PeerError(Code.FRAME_SIZE_ERROR, "settings of a wrong size")
    found: dict[int, int] = {}
    for name, value in _SETTING.iter_unpack(payload):
        if name in RANGES:
            least, most, code = RANGES[name]
            if not least <= value <= most:
                raise PeerError(code, f"setting {name} out of range")
            found[name] = value
    return found


def ping(opaque: bytes, *, is_ack: bool = False) -> bytes:
    """Ask for a sign of life, or give one, §6.7."""
    return frame(PING, ACK if is_ack else 0, 0, opaque)


def goaway(last_id: int, code: int, text: str = "") -> bytes:
    """Say which streams we still serve, §6.8."""
    return frame(GOAWAY, 0, 0, last_id.to_bytes(4) + code.to_bytes(4) + text.encode())


def window_update(stream_id: int, increment: int) -> bytes:
    """Let the peer send more, §6.9."""
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4))


def unpadded(payload: bytes) -> bytes:
    """What is between the length of the padding and the padding, §6.1.

    Raises:
        PeerError: there is more padding than frame.
    """
    if not payload or payload[0] >= len(payload):
        raise PeerError(Code.PROTOCOL_ERROR, "padding beyond its frame")
    return payload[1 : len(payload) - payload[0]]
