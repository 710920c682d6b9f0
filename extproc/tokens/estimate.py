"""Texts too large to be counted whole: a sample of them, and how far it can be off.

The texts' UTF-8 is cut into cells of `CELL_BYTES`, as many even stretches are made as cells may
be counted, and one cell of each stretch is. Where in its stretch it lies is drawn, so that nobody
can write a text that is dense only where it isn't looked at. `tokens_min` and `tokens_max` are
the empirical Bernstein bound (Maurer and Pontil 2009, theorem 4) at `DOUBT`, which needs no
assumption about the text, within what no text at all can exceed.
"""

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from typing import Final

from extproc.llm.ranges import Range
from extproc.tokens.encodings import Encoder
from extproc.tokens.normal import utf8

CELL_BYTES: Final = 256
CELLS_MIN: Final = 8
"""With fewer, length alone says as much."""

DOUBT: Final = 1e-4
"""How often, at most, a text may lie outside its bounds."""

CUT_TOKENS_MAX: Final = 2
"""What a cell may count more or less for being cut out of its text."""

TOKEN_BYTES_MAX: Final = 128
"""The longest token of every encoding: a run of spaces."""

ASCII_BYTES_PER_TOKEN: Final = 4
OTHER_BYTES_PER_TOKEN: Final = 3

_BETWEEN: Final = b"\xff"
"""Stands between texts: a byte that UTF-8 never holds."""

_LEADING_BITS: Final = 0xC0
_CONTINUED: Final = 0x80
"""The leading bits of every byte of a character but its first."""


def estimate(
    texts: Sequence[str], encoder: Encoder, *, sample_bytes_max: int, seed: bytes
) -> Range:
    """Estimate the tokens of `texts` from no more than `sample_bytes_max` of their UTF-8.

    The same texts and `seed` give the same answer. Too small a sample is no sample: the answer
    then comes from the length.
    """
    encoded = [utf8(text) for text in texts if text]
    size = sum(map(len, encoded))
    is_ascii = size == sum(map(len, texts))
    growth = 1 if is_ascii else encoder.tokens_per_byte_max
    limits = math.ceil(size / (TOKEN_BYTES_MAX * growth)), size * growth
    data = _BETWEEN.join(encoded)
    cells = sample_bytes_max // CELL_BYTES
    if cells < CELLS_MIN or len(data) <= sample_bytes_max:
        per_token = ASCII_BYTES_PER_TOKEN if is_ascii else OTHER_BYTES_PER_TOKEN
        return _within(limits, math.ceil(size / per_token), 0, math.inf)
    source = random.Random(seed)  # noqa: S311  # drawn by a secret seed; nothing is enciphered
    densities = [_density(cell, encoder) for cell in _cells(data, cells, source)]
    error, cut = _errors(densities, growth)
    tokens = statistics.fmean(densities) * len(data)
    margin = error * max(len(data) - cells * CELL_BYTES, 0) + cut * len(data)
    return _within(limits, round(tokens), math.floor(tokens - margin), math.ceil(tokens + margin))


def _cells(data: bytes, cells: int, source: random.Random) -> Iterator[bytes]:
    """Yield one cell of each of so many stretches of `data`."""
    stretch = len(data) / CELL_BYTES / cells
    for i in range(cells):
        begin = int((i + source.random()) * stretch) * CELL_BYTES
        yield data[_character(data, begin) : _character(data, begin + CELL_BYTES)]


def _character(data: bytes, at: int) -> int:
    """Move `at` to the next place where a character begins."""
    while at < len(data) and data[at] & _LEADING_BITS == _CONTINUED:
        at += 1
    return at


def _density(cell: bytes, encoder: Encoder) -> float:
    """Count the tokens per byte of a cell, which holds ends and beginnings of several texts."""
    tokens = sum(encoder.count(text.decode()) for text in cell.split(_BETWEEN))
    return tokens / max(len(cell), 1)


def _errors(densities: list[float], density_max: int) -> tuple[float, float]:
    """Tokens per byte by which the mean may be off: for what isn't seen, and for being cut."""
    cells = len(densities)
    doubt = math.log(4 / DOUBT)  # two bounds, of two terms each
    spread = math.sqrt(2 * statistics.variance(densities) * doubt / cells)
    rare = 7 * density_max * doubt / (3 * (cells - 1))
    return spread + rare, CUT_TOKENS_MAX / CELL_BYTES


def _within(limits: tuple[int, int], tokens: int, least: float, most: float) -> Range:
    """Keep the bounds to what no text of that size can have less or more of."""
    least, most = max(least, limits[0]), min(most, limits[1])
    return Range(round(min(max(tokens, least), most)), int(least), int(most))
