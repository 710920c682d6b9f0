"""Protobuf's wire format, to write what is sent with every request.

Most of an answer is the same from one request to the next. Put together from pieces that are
bytes already it costs a fifth of what building messages does. Field numbers come from the
messages' own descriptors, and the tests parse what is written here with the real thing.
"""

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct as Layout
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

_LENGTH_DELIMITED: Final = 2
_FIXED_64_BITS: Final = 1
_VARINT: Final = 0

_PIECES_MAX: Final = 4096
"""Remembered of each kind. What comes once pushes out what is asked for least."""


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first, a set top bit where more follow."""
    found = bytearray()
    while number > 0x7F:  # noqa: PLR2004  # seven bits
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


_LENGTHS: Final = tuple(varint(length) for length in range(1024))


def tag(message: type[Message], field: str, wire_type: int = _LENGTH_DELIMITED) -> bytes:
    """What stands before a value of this field."""
    return varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | wire_type)


def block(field: bytes, content: bytes) -> bytes:
    """A field of text, bytes or a message, after its tag."""
    length = len(content)
    return field + (_LENGTHS[length] if length < len(_LENGTHS) else varint(length)) + content


def flag(message: type[Message], field: str) -> bytes:
    """A field that is true."""
    return tag(message, field, _VARINT) + b"\x01"


_ENTRY: Final = tag(Struct, "fields")
_KEY: Final = b"\x0a"
_VALUE: Final = b"\x12"
"""Of every entry of a map (protobuf's language guide: `key = 1`, `value = 2`)."""

_NUMBER: Final = tag(Value, "number_value", _FIXED_64_BITS)
_TEXT: Final = tag(Value, "string_value")
_STRUCT: Final = tag(Value, "struct_value")
_BOOL: Final = tag(Value, "bool_value", _VARINT)
_DOUBLE: Final = Layout("<d").pack
_DOUBLE_BYTES: Final = 8


def struct(values: Mapping[str, Any]) -> bytes:
    """A `google.protobuf.Struct` of texts, truths, numbers and more of the same."""
    pieces = []
    for name, value in values.items():
        kind = type(value)
        if kind is str:
            pieces.append(_text(name, value))
        elif kind is bool:
            pieces.append(_truth(name, value))
        elif kind is dict:
            pieces.append(_entry(name, block(_STRUCT, struct(value))))
        else:
            pieces.append(_number(name) + _DOUBLE(value))
    return b"".join(pieces)


def _entry(name: str, value: bytes) -> bytes:
    return block(_ENTRY, block(_KEY, name.encode()) + block(_VALUE, value))


@lru_cache(maxsize=_PIECES_MAX)
def _text(name: str, value: str) -> bytes:
    return _entry(name, block(_TEXT, value.encode()))


@lru_cache(maxsize=_PIECES_MAX)
def _truth(name: str, value: bool) -> bytes:  # noqa: FBT001  # it is the value
    return _entry(name, _BOOL + (b"\x01" if value else b"\x00"))


@lru_cache(maxsize=_PIECES_MAX)
def _number(name: str) -> bytes:
    """All of an entry but the eight bytes of its number, which come last."""
    return _entry(name, _NUMBER + bytes(_DOUBLE_BYTES))[:-_DOUBLE_BYTES]
