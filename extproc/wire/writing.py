"""Protobuf's wire format, to write what is sent with every request.

Most of an answer is the same from one request to the next. Put together from pieces that are
bytes already it costs a fifth of what building messages does. Field numbers come from the
messages' own descriptors, and the tests parse what is written here with the real thing.
"""

from collections.abc import Callable, Mapping
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

_SHORT_TEXT: Final = _ENTRY + b"%c%b" + _VALUE + b"%c" + _TEXT + b"%c%b"
_TEXT_OVERHEAD: Final = 4
"""Tag and length of the value, and of the text in it."""

_ONE_BYTE_MAX: Final = 0x7F


def struct(values: Mapping[str, Any]) -> bytes:
    """A `google.protobuf.Struct` of texts, truths, numbers and dicts of them.

    Raises:
        KeyError: a value is something else.
    """
    return b"".join([_WRITERS[type(value)](name, value) for name, value in values.items()])


def _entry(name: str, value: bytes) -> bytes:
    return block(_ENTRY, _key(name) + block(_VALUE, value))


@lru_cache(maxsize=_PIECES_MAX)
def _text(name: str, value: str) -> bytes:
    text = value.encode()
    length = len(text)
    key = _key(name)
    if length + len(key) < _ONE_BYTE_MAX - _TEXT_OVERHEAD:
        # What never comes twice is written here, too: in one go where each length is one byte.
        lengths = length + len(key) + _TEXT_OVERHEAD, key, length + 2, length, text
        return _SHORT_TEXT % lengths
    return _entry(name, block(_TEXT, text))


@lru_cache(maxsize=_PIECES_MAX)
def _key(name: str) -> bytes:
    return block(_KEY, name.encode())


@lru_cache(maxsize=_PIECES_MAX)
def _truth(name: str, value: bool) -> bytes:  # noqa: FBT001  # it is the value
    return _entry(name, _BOOL + (b"\x01" if value else b"\x00"))


def _number(name: str, value: float) -> bytes:
    return _number_head(name) + _DOUBLE(value)


@lru_cache(maxsize=_PIECES_MAX)
def _number_head(name: str) -> bytes:
    """All of an entry but the eight bytes of its number, which come last."""
    return _entry(name, _NUMBER + bytes(_DOUBLE_BYTES))[:-_DOUBLE_BYTES]


def _struct(name: str, values: Mapping[str, Any]) -> bytes:
    return _entry(name, block(_STRUCT, struct(values)))


_WRITERS: Final[Mapping[type, Callable[[str, Any], bytes]]] = {
    str: _text,
    bool: _truth,
    int: _number,
    float: _number,
    dict: _struct,
}
