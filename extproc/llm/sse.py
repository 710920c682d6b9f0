"""What an answer said of its use, told from its bytes as they come: events, or one JSON text.

The same meter as `istio/meter.lua`, which Envoy runs itself, for where `meter: observe` has Envoy
copy the bytes to us; one table of answers (`tests/meter/answers.py`) tests both. Reads no number
out of what it finds: `usage.py` does.

1. Only these paths of a JSON text are usage: `usage`, and in an event also `response.usage` and
   `message.usage` (Anthropic's first, apart from the others: `usage_start`). What merely looks
   like it, in a string or deeper down, is not; nor is `null`.
2. How the bytes are cut into chunks makes no difference.
3. An event is counted if it carries output, see `_carries_output`.
4. Memory and work have limits, below. What gives up says so in a word: `encoded`,
   `usage_too_long`, `usage_garbled`, `too_complex`; the first one stays.
"""

import copy
import re
from typing import Final, NamedTuple

from extproc.llm.spotting import JsonSpotter, Spotted

EVENT_BYTES_MAX: Final = 16_384
"""Of an event that is split over chunks, so much is kept; what is longer is read as it comes, and
whether it carried output is told from so much of it."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_COLON: Final = ord(":")
_LF: Final = ord("\n")
_CR: Final = ord("\r")
_DATA: Final = b"data:"

_LINE_END: Final = re.compile(rb"[\r\n]")
_LINE_FEED: Final = re.compile(rb"\n")
_NO_LINE_END: Final = re.compile(rb"[^\r\n]")
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?=[^\n]))(?:\r\n|\r|\n)")
_VALUE_OF_USAGE: Final = re.compile(rb'"usage"(?!\s*:\s*null)')
_DELTA: Final = re.compile(rb'"delta"\s*:\s*(?:\{\s*"|"[^"])')
_MESSAGE_DELTA: Final = re.compile(rb'"type"\s*:\s*"message_delta"')
_TEXT: Final = re.compile(rb'"text"\s*:\s*"[^"]')
_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[')


class Seen(NamedTuple):
    """What was seen so far. Texts are empty where there was nothing.

    `usage` and `usage_start` are the provider's JSON as it came, in ASCII, the last one seen;
    `events` those that carried output, about a token each; `bytes` the length of the body.
    """

    usage: str = ""
    usage_start: str = ""
    events: int = 0
    bytes: int = 0
    error: str = ""


class AnswerMeter:
    """Meters one answer. Its type and encoding are those of the answer's headers."""

    def __init__(self, content_type: str, content_encoding: str = "") -> None:
        self._bytes = 0
        self._spotted = Spotted()
        self._events: _Events | None = None
        self._json: JsonSpotter | None = None
        if content_encoding.strip().lower() not in ("", "identity"):
            self._spotted.give_up("encoded")
        elif content_type.strip().lower().startswith("text/event-stream"):
            self._events = _Events(self._spotted)
        else:
            self._json = JsonSpotter(self._spotted, is_event=False)

    def take(self, chunk: bytes) -> None:
        """Read on."""
        self._bytes += len(chunk)
        if self._events is not None:
            self._events.take(chunk)
        elif self._json is not None:
            self._json.read(chunk)

    @property
    def seen(self) -> Seen:
        """What was seen so far, as if the answer ended here."""
        spotted, events = self._spotted, 0
        if self._events is not None:
            spotted, events = self._events.seen()
        return Seen(spotted.usage, spotted.usage_start, events, self._bytes, spotted.error)


class _Events:
    """Cuts a stream into blocks: what a blank line ends, or one line of comment."""

    def __init__(self, spotted: Spotted) -> None:
        self._spotted = spotted
        self._events = 0
        self._is_begun = False
        self._tail = b""
        """The beginning of a block."""
        self._long: _Lines | None = None
        """Instead, a block that is too long to keep."""

    def seen(self) -> tuple[Spotted, int]:
        """What there is if no blank line comes any more, and how many events carried output."""
        if not self._tail:
            return self._spotted, self._events
        apart = copy.copy(self._spotted)
        return apart, self._events + _read_block(apart, self._tail)

    def take(self, chunk: bytes) -> None:
        at: int | None = 0
        if self._long is not None:
            at = self._long.read(chunk)
            if at is None:
                return
            self._long = None
        # What was searched in vain is not searched again, but for a first line end.
        searched = len(self._tail) - 1
        text = self._tail + chunk
        if not self._is_begun:
            if len(text) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(text):
                self._tail = text
                return
            self._is_begun = True
            text = text.removeprefix(_BYTE_ORDER_MARK)
        has_cr = b"\r" in text
        while found := _NO_LINE_END.search(text, at or 0):
            start = found.start()
            at = _block_end(text, start, max(searched, start), has_cr=has_cr)
            if at is None:
                self._keep(text[start:])
                return
            self._events += _read_block(self._spotted, text[start:at])
        self._tail = b""

    def _keep(self, tail: bytes) -> None:
        self._tail = tail
        if tail[0] == _COLON:
            self._tail = tail[:1]  # what a comment says does not matter
        elif len(tail) > EVENT_BYTES_MAX:
            self._events += _carries_output(tail[:EVENT_BYTES_MAX])
            self._tail, self._long = b"", _Lines(self._spotted)
            self._long.read(tail)


class _Lines:
    """Feeds the data lines of one block to a scanner."""

    def __init__(self, spotted: Spotted) -> None:
        self._json = JsonSpotter(spotted, is_event=True)
        self._head = b""
        self._is_after_cr = False

    def read(self, text: bytes) -> int | None:
        """Read on; return the position after the blank line, or None when that has not come."""
        # A class is much slower to find than a byte.
        line_end = _LINE_END if b"\r" in text else _LINE_FEED
        at = 0
        while at < len(text):
            is_after_cr, self._is_after_cr = self._is_after_cr, False
            if is_after_cr and text[at] == _LF:
                at += 1
                continue
            found = line_end.search(text, at)
            stop = found.start() if found else len(text)
            self._read_line(text[at:stop])
            if found is None:
                return None
            if not self._head:
                return stop + 1
            if self._head == _DATA:
                self._json.read(b"\n")
            self._head = b""
            self._is_after_cr = text[stop] == _CR
            at = stop + 1
        return None

    def _read_line(self, piece: bytes) -> None:
        """Read on in a line; its beginning tells whether it is data."""
        missing = len(_DATA) - len(self._head)
        self._head += piece[:missing]
        if self._head == _DATA:
            self._json.read(piece[missing:])


def _read_block(spotted: Spotted, block: bytes) -> int:
    """Read a block; return how many events it is that carry output, none or one."""
    if block[0] == _COLON:
        return 0
    if not spotted.is_tired and _VALUE_OF_USAGE.search(block):
        _Lines(spotted).read(block)
    return int(_carries_output(block[:EVENT_BYTES_MAX]))


def _block_end(text: bytes, start: int, searched: int, *, has_cr: bool) -> int | None:
    """The position after the block that begins at `start`, or None where it has no end yet.

    No blank line begins before `searched`.
    """
    if text[start] == _COLON:
        line_end = _LINE_END.search(text, start)
        return line_end.end() if line_end else None
    if not has_cr:
        at = text.find(b"\n\n", searched)
        return None if at < 0 else at + 2
    blank = _BLANK_LINE.search(text, searched)
    return blank.end() if blank else None


def _carries_output(block: bytes) -> bool:
    """Whether an event carries output.

    Chat: `"delta": {"…`, not the empty one at the end. Responses: `"delta": "…`, in every type
    `*.delta`. Anthropic: `content_block_delta`, not `message_delta`. Completions: `"choices": […`
    and `"text": "…`. A quote inside a string is escaped, so no text of a model or client looks
    like this.
    """
    if b'"delta"' in block:
        return bool(_DELTA.search(block)) and not _MESSAGE_DELTA.search(block)
    return bool(_TEXT.search(block)) and bool(_CHOICES.search(block))
