"""Finds the usage object in a JSON text of any size that comes in pieces of any size.

Hops from quote to bracket to quote and keeps nothing but the object itself. Checks no syntax:
in a text that is no JSON it finds something or nothing. Within one object, a string that is
followed by `{` before any other quote or bracket is a key, and `{` begins its value: this needs no
look at commas and colons. A key spelt with escapes is not known.
"""

import re
from typing import Final, NamedTuple

USAGE_BYTES_MAX: Final = 4_096
"""A usage object that is longer is none."""

HOPS_MAX: Final = 1 << 21
"""Steps from one quote or bracket to the next, in a whole answer."""

_KEY_BYTES_MAX: Final = len("response")
"""No key that matters is longer."""

_QUOTE: Final = ord('"')
_OPEN_BRACE: Final = ord("{")
_OPENING: Final = b"{["

_MARK: Final = re.compile(rb'["\[\]{}]')
_GARBLED: Final = re.compile(rb"[^\t\n\r -~]")


class Spotted:
    """What was found in all texts of an answer, and how much work it was."""

    def __init__(self) -> None:
        self.usage = ""
        self.usage_start = ""
        self.error = ""
        self.hops = 0

    @property
    def is_tired(self) -> bool:
        """Whether nothing more is read."""
        return self.hops > HOPS_MAX

    def may_hop(self) -> bool:
        """Count one more hop; return whether it may be made."""
        self.hops += 1
        if self.is_tired:
            self.give_up("too_complex")
        return not self.is_tired

    def give_up(self, word: str) -> None:
        """Keep the first reason."""
        self.error = self.error or word


class _Taking(NamedTuple):
    """A usage object that is being read."""

    is_start: bool
    depth: int
    """Outside of it."""
    text: bytearray


class JsonSpotter:
    """Reads one JSON text. In an event, `response.usage` and `message.usage` count as well."""

    def __init__(self, spotted: Spotted, *, is_event: bool) -> None:
        self._spotted = spotted
        self._is_event = is_event
        self._depth = 0
        self._is_object = False  # the outermost value
        self._parent = b""  # `response` or `message`, while inside that
        self._is_in_string = False
        self._is_escaped = False  # the next byte of the string
        self._key: bytes | None = None  # how the string begins, where it may be a key that matters
        self._last: bytes | None = None  # the string before, where it may be such a key
        self._taking: _Taking | None = None

    def read(self, text: bytes) -> None:
        """Read on."""
        at, taken = 0, 0
        spotted = self._spotted
        while at < len(text) and spotted.may_hop():
            if self._is_in_string:
                at = self._read_string(text, at)
                continue
            found = _MARK.search(text, at)
            if found is None:
                break
            at = found.end()
            mark = text[at - 1]
            if mark == _QUOTE:
                self._begin_string()
            elif mark in _OPENING:
                if self._begin_value(is_object=mark == _OPEN_BRACE):
                    taken = at - 1
            else:
                self._end_value(text[taken:at] if self._taking else b"")
                taken = at
        if self._taking:
            self._keep(self._taking, text[taken:])

    def _read_string(self, text: bytes, at: int) -> int:
        quote = text.find(b'"', at)
        end = len(text) if quote < 0 else quote
        if self._key is not None and len(self._key) <= _KEY_BYTES_MAX:
            self._key += text[at : min(end, at + _KEY_BYTES_MAX + 1)]
        run = end
        while run > at and text[run - 1 : run] == b"\\":
            run -= 1
        is_escaped = (end - run) % 2 == 1
        if run == at and self._is_escaped:
            is_escaped = not is_escaped
        if quote < 0:
            self._is_escaped = is_escaped
            return end
        self._is_escaped = False
        if not is_escaped:
            self._is_in_string = False
            self._last, self._key = self._key, None
        return quote + 1

    def _begin_string(self) -> None:
        is_key_place = (self._depth == 1 and self._is_object) or (
            self._depth == 2 and bool(self._parent)  # noqa: PLR2004  # inside the parent
        )
        self._is_in_string = True
        self._key = b"" if is_key_place else None

    def _begin_value(self, *, is_object: bool) -> bool:
        """Go one deeper; return whether a usage object begins."""
        depth, last = self._depth, self._last
        self._depth, self._last = depth + 1, None
        if depth == 0:
            self._is_object = is_object
        elif is_object and last == b"usage":
            self._taking = _Taking(self._parent == b"message", depth, bytearray())
            return True
        elif is_object and depth == 1 and self._is_event and last in (b"response", b"message"):
            self._parent = last
        return False

    def _end_value(self, text: bytes) -> None:
        """Go one up. `text` is what a usage object has had since it was last kept."""
        self._depth = max(self._depth - 1, 0)
        if self._depth <= 1:
            self._parent = b""
        if self._taking:
            self._keep(self._taking, text)
        if self._taking and self._depth <= self._taking.depth:
            self._note(self._taking)
            self._taking = None

    def _keep(self, taking: _Taking, text: bytes) -> None:
        taking.text.extend(text)
        if len(taking.text) > USAGE_BYTES_MAX:
            self._taking = None
            self._spotted.give_up("usage_too_long")

    def _note(self, taking: _Taking) -> None:
        """Note an object that is whole. A record that is no UTF-8 would be lost with it."""
        if _GARBLED.search(taking.text):
            self._spotted.give_up("usage_garbled")
        elif taking.is_start:
            self._spotted.usage_start = taking.text.decode("ascii")
        else:
            self._spotted.usage = taking.text.decode("ascii")
