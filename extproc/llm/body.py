"""A request body as one JSON object: its limits, and where its top-level values stand.

Bodies are read, never written anew: a change is a splice at a `Span`. Knows no API.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np

NESTING_MAX: Final = 64
"""Levels of arrays and objects in one body; the deepest real tool schemas have about 20."""

OPENINGS_MAX: Final = 32_768
"""Arrays and objects in one body: messages, content blocks, the inside of tool schemas."""

ITEMS_MAX: Final = 262_144
"""Items of arrays and members of objects in one body, prompts of token numbers among them."""

KEYS_MAX: Final = 256
"""Top-level keys of one body; the largest API has about 40."""


class Malformed(NamedTuple):
    """A body that is not what its API takes: where, and why, without quoting the body."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


Span = tuple[int, int]
"""Where a value stands: `body[start:end]`, its own quotes or brackets included."""


class Splice(NamedTuple):
    """A change of a body: `text` in place of what stands at `at`; every other byte stays."""

    at: Span
    text: bytes


class JsonObject(NamedTuple):
    """A body whose syntax is sound and whose top-level keys are unique."""

    data: bytes
    spans: Mapping[str, Span]


_REPEATED: Final = Malformed("$", "a key stands twice")
_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEY: Final = re.compile(rb'[\s,{]*"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+:\s*+', re.DOTALL)
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'"[]{},'))
_STEPS: Final = bytes.maketrans(b'{[}],"', b"\x01\x01\xff\xff\x00\x02")
"""An opening is a step of 1, a closing one of -1, a comma none; a quote is `_QUOTE`."""

_QUOTE: Final = 2


def read_object(data: bytes) -> JsonObject | Malformed:
    """Check `data` for being one JSON object and find its top-level values.

    Refused, since two readers may take them for different requests: a key that stands twice,
    invalid UTF-8, NaN and Infinity (RFC 8259 has neither), and what nests too deep.
    """
    if not data or data.isspace():
        return Malformed("$", "the body is empty; expected a JSON object")
    excess = _excess(data)
    if excess:
        return Malformed("$", excess)
    try:
        data.decode()
        values = _RAW.decode(data)
    except UnicodeDecodeError as error:
        return Malformed("$", f"invalid UTF-8 at byte {error.start}")
    except msgspec.ValidationError as error:
        return malformed(error)
    except msgspec.DecodeError as error:
        return Malformed("$", f"not JSON: {_plain(error)}")
    return _locate(data, values)


def spliced(data: bytes, splices: Iterable[Splice]) -> bytes:
    """Make all changes at once. They may not overlap."""
    pieces: list[bytes] = []
    position = 0
    for (start, end), text in sorted(splices):
        pieces += (data[position:start], text)
        position = end
    return b"".join((*pieces, data[position:]))


def malformed(error: msgspec.ValidationError) -> Malformed:
    """Turn msgspec's message, which ends in the path, into a value that names the path."""
    reason, _, path = str(error).partition(" - at `")
    return Malformed(path.rstrip("`").replace("key in ", "") or "$", reason.replace("`", "'"))


def _locate(data: bytes, values: Mapping[str, msgspec.Raw]) -> JsonObject | Malformed:
    """Walk over the keys and values; a repeated key shows as a walk that loses its step.

    A decoded dict keeps a repeated key's first place and its last value. JSON texts end
    themselves, so as long as each value is found at its place, the walk is where the decoder
    was; and if it ends where the body does, there were as many pairs as there are keys.
    """
    if len(values) > KEYS_MAX:
        return Malformed("$", f"more than {KEYS_MAX} keys")
    spans: dict[str, Span] = {}
    position = 0
    for key, value in values.items():
        text = bytes(value)
        found = _KEY.match(data, position)
        start = found.end() if found is not None else 0
        position = start + len(text)
        if data[start:position] != text:
            return _REPEATED
        spans[key] = (start, position)
    is_whole = not values or data[position:].strip() == b"}"
    return JsonObject(data, spans) if is_whole else _REPEATED


def _excess(data: bytes) -> str:
    """Say which limit of structure `data` breaks, or nothing.

    Looked at before it is decoded, in whole-buffer operations only: a decoder would make an
    object of each item. Up to the first byte that is no JSON, strings are told from structure
    as a decoder does; beyond it the decoder will not get.
    """
    if data.count(b"{") + data.count(b"[") <= NESTING_MAX and (
        len(data) <= ITEMS_MAX or data.count(b",") <= ITEMS_MAX
    ):
        return ""
    without_escapes = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = without_escapes.translate(None, _NOT_STRUCTURE).translate(_STEPS)
    steps = np.frombuffer(structure, np.int8)
    quotes = steps == _QUOTE
    is_in_string = np.cumsum(quotes, dtype=np.int32) & 1 == 1
    steps = steps[~(is_in_string | quotes)]
    if np.count_nonzero(steps == 0) > ITEMS_MAX:
        return f"more than {ITEMS_MAX} items"
    if np.count_nonzero(steps == 1) > OPENINGS_MAX:
        return f"more than {OPENINGS_MAX} arrays and objects"
    if np.cumsum(steps, dtype=np.int32).max(initial=0) > NESTING_MAX:
        return f"nested deeper than {NESTING_MAX} levels"
    return ""


def _plain(error: msgspec.DecodeError) -> str:
    return str(error).removeprefix("JSON is malformed: ")
