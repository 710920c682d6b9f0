"""Text made fit for encoders: no lone surrogates, and nothing that normalising is slow on.

Encodings that bring text to Unicode's NFC sort each run of combining marks, and every
implementation at hand does so by insertion: 160 KB of marks keep one busy for 14 seconds.
`bounded_runs` sorts long runs beforehand, in n log n, so that nothing is left to be sorted.
"""

import functools
import re
import sys
import unicodedata
from typing import Final, NamedTuple

MARKS_STRIDE: Final = 8
MARKS_SEEN: Final = 4
"""Runs of `MARKS_STRIDE * MARKS_SEEN` marks or more are sorted here; shorter ones are cheap."""


def well_formed(text: str) -> str:
    """Put U+FFFD for every lone surrogate: what no JSON may hold, but a str can.

    Decoding gives one for each of a surrogate's three bytes. Error handlers of UTF-16, which
    would give one at once, take 6 seconds for 8 MiB of surrogates.
    """
    replaced = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return replaced.replace("\ufffd\ufffd\ufffd", "\ufffd")


def utf8(text: str) -> bytes:
    """Encode `text` as an encoder will see it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return well_formed(text).encode()


def nfc(text: str) -> str:
    """Return `text` in NFC, in time linear in its length but for sorting."""
    return unicodedata.normalize("NFC", bounded_runs(text))


def bounded_runs(text: str) -> str:
    """Return text that has the same NFC, and whose long runs of marks are already in order.

    The first text that is not ASCII takes 0.2 s: a table is made.
    """
    if text.isascii():
        return text
    marks = _marks()
    # A long run covers several samples in a row. Most texts have no mark among the samples.
    samples = text[::MARKS_STRIDE]
    if marks.order.keys().isdisjoint(samples) or not marks.sampled.search(samples):
        return text
    return marks.long_run.sub(_sorted, text)


def _sorted(run: re.Match[str]) -> str:
    marks = _marks()
    decomposed = run[0].translate(marks.decomposed)
    return "".join(sorted(decomposed, key=marks.order.__getitem__))


class _Marks(NamedTuple):
    order: dict[str, int]
    """Canonical combining class by character, of all that are sorted."""
    decomposed: dict[int, str]
    sampled: re.Pattern[str]
    long_run: re.Pattern[str]


@functools.cache
def _marks() -> _Marks:
    """Collect what is sorted: marks, and what begins with a mark once it is taken apart."""
    order: dict[str, int] = {}
    decomposed: dict[int, str] = {}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        parts = unicodedata.normalize("NFD", character)
        if unicodedata.combining(parts[0]):
            order[character] = unicodedata.combining(character)
            if parts != character:
                decomposed[code] = parts
    one = "[" + re.escape("".join(order)) + "]"
    length_min = MARKS_STRIDE * MARKS_SEEN
    return _Marks(
        order,
        decomposed,
        re.compile(one + f"{{{MARKS_SEEN},}}"),
        re.compile(one + f"{{{length_min},}}"),
    )
