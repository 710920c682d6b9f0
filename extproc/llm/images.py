"""Tokens of pictures, from their size: neither their data nor their URLs are read further.

1. At most `BASE64_CHARS_MAX` of a picture's base64 are decoded, for its header. Base64 is never
   counted as text, and no URL is ever fetched.
2. A picture of unknown size (a URL, an unknown format, a broken header) costs the most that its
   model's family charges for any picture.
3. `tokens_min` is the family's price for low detail, or its formula where that price is none of
   its business; `tokens_max` takes the largest limit that anybody reports for the family.
"""

import binascii
import functools
import math
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from extproc.llm.ranges import NOTHING, Range, exactly
from extproc.llm.request import Image

BASE64_CHARS_MAX: Final = 65_536
SIGNATURE_CHARS: Final = 64
"""Enough of base64 to tell the format, and for all formats but JPEG the size."""

JPEG_SEGMENTS_MAX: Final = 64
"""A photograph has about ten before its size."""

IMAGES_READ_MAX: Final = 256
"""In one request. The others cost the most that a picture can, as no provider takes so many."""

PIXELS_MAX: Final = 1 << 16
"""Of an edge. Headers can say more; providers refuse it long before."""


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


# --- sizes ------------------------------------------------------------------------------------


def size_of(base64: str) -> Size | None:
    """Read a picture's size from the beginning of its data, or None if it can't be told."""
    head = _decoded(base64[:SIGNATURE_CHARS])
    if head.startswith(b"\xff\xd8"):
        size = _jpeg(_decoded(base64[:BASE64_CHARS_MAX]))
    elif head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        size = _big_endian(head[16:20], head[20:24])
    elif head.startswith((b"GIF87a", b"GIF89a")):
        size = _little_endian(head[6:8], head[8:10])
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        size = _webp(head)
    else:
        return None
    if size is None or not (0 < size.width <= PIXELS_MAX and 0 < size.height <= PIXELS_MAX):
        return None
    return size


def _decoded(base64: str) -> bytes:
    data = base64.encode("ascii", "ignore").translate(None, b" \t\r\n")
    try:
        return binascii.a2b_base64(data[: len(data) // 4 * 4])
    except binascii.Error:
        return b""


def _big_endian(width: bytes, height: bytes) -> Size:
    return Size(int.from_bytes(width, "big"), int.from_bytes(height, "big"))


def _little_endian(width: bytes, height: bytes) -> Size:
    return Size(int.from_bytes(width, "little"), int.from_bytes(height, "little"))


def _jpeg(data: bytes) -> Size | None:
    """Walk the segments up to the one with the size (start of frame, ITU T.81 B.2.2)."""
    at = 2
    for _ in range(JPEG_SEGMENTS_MAX):
        if data[at : at + 1] != b"\xff" or len(data) < at + 9:
            return None
        marker = data[at + 1]
        if marker in _FRAMES:
            return _big_endian(data[at + 7 : at + 9], data[at + 5 : at + 7])
        is_fill = marker == _FILL
        at += 1 if is_fill else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that start a frame: not the tables and the reserved one among them."""

_FILL: Final = 0xFF
"""May stand before any marker."""


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X":  # 24 bits each, less one
        size = _little_endian(data[24:27], data[27:30])
        return Size(size.width + 1, size.height + 1)
    if kind == b"VP8L":  # 14 bits each, less one
        bits = int.from_bytes(data[21:25], "little")
        return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":  # 14 bits each, then two of scaling
        size = _little_endian(data[26:28], data[28:30])
        return Size(size.width & 0x3FFF, size.height & 0x3FFF)
    return None


# --- prices -----------------------------------------------------------------------------------


class Tiles(NamedTuple):
    """OpenAI's older rule: a base, and a price for each square of 512 pixels."""

    base: int
    tile: int

    def cost(self, size: Size | None, *, is_low: bool) -> Range:
        """Return what a picture costs, or any picture where its size is not known."""
        if is_low:
            return exactly(self.base)
        tokens = self.base + self.tile * (TILES_MAX if size is None else _tiles(size))
        return Range(tokens, self.base, tokens)


class Patches(NamedTuple):
    """OpenAI's newer rule: patches of 32 pixels up to a limit, times a factor.

    Low detail is said to change nothing for these models, so it lowers only the least.
    `factor_max` and `patches_max` are the largest that are documented or were measured.
    """

    factor: float
    patches: int = 1536
    factor_max: float = 0
    patches_max: int = 0

    def cost(self, size: Size | None, *, is_low: bool) -> Range:  # noqa: ARG002  # see above
        """Return what a picture costs, or any picture where its size is not known."""
        most = max(self.patches, self.patches_max)
        tokens = self._count(size, self.patches, self.factor)
        tokens_max = self._count(size, most, max(self.factor, self.factor_max))
        least = min(self._count(size, LOW_PATCHES, 1), tokens)
        return Range(tokens, least if size else 1, tokens_max)

    @staticmethod
    def _count(size: Size | None, limit: int, factor: float) -> int:
        return math.ceil((limit if size is None else _patches(size, limit)) * factor)


class Grid(NamedTuple):
    """Anthropic's rule, and that of open models: squares of 28 pixels, after shrinking."""

    squares: int
    edge: int
    squares_max: int = 0
    edge_max: int = 0

    def cost(self, size: Size | None, *, is_low: bool) -> Range:  # noqa: ARG002  # knows no detail
        """Return what a picture costs, or any picture where its size is not known."""
        squares_max = max(self.squares, self.squares_max)
        if size is None:
            return Range(self.squares, 1, squares_max)
        tokens = _squares(size, self.squares, self.edge)
        return Range(tokens, tokens, _squares(size, squares_max, max(self.edge, self.edge_max)))


Family = Tiles | Patches | Grid

TILE: Final = 512
TILES_LONG_EDGE: Final = 2048
TILES_SHORT_EDGE: Final = 768
TILES_MAX: Final = 8
"""Of 768 by 2048 pixels."""

PATCH: Final = 32
LOW_PATCHES: Final = 256
"""Of the 512 by 512 pixels that low detail is said to mean."""

SQUARE: Final = 28


def _tiles(size: Size) -> int:
    width, height = size
    scale = min(1.0, TILES_LONG_EDGE / max(size))
    scale = min(scale, TILES_SHORT_EDGE / min(size))
    return math.ceil(width * scale / TILE) * math.ceil(height * scale / TILE)


def _patches(size: Size, limit: int) -> int:
    width, height = size
    patches = math.ceil(width / PATCH) * math.ceil(height / PATCH)
    if patches <= limit:
        return patches
    # Shrunk to the limit, then once more until one edge is a whole number of patches.
    shrink = math.sqrt(limit * PATCH**2 / (width * height))
    across, down = width * shrink / PATCH, height * shrink / PATCH
    fit = min(max(math.floor(across), 1) / across, max(math.floor(down), 1) / down)
    return min(limit, max(1, math.ceil(round(across * fit, 6)) * math.ceil(round(down * fit, 6))))


def _squares(size: Size, limit: int, edge: int) -> int:
    """Count the squares of the largest picture of the same shape within both limits."""
    low, high = 0, min(max(size), edge)  # the long edge: `low` fits
    while low < high:
        middle = (low + high + 1) // 2
        if _squares_at(size, middle) <= limit:
            low = middle
        else:
            high = middle - 1
    return _squares_at(size, max(low, 1))


def _squares_at(size: Size, long_edge: int) -> int:
    short_edge = max(round(long_edge * min(size) / max(size)), 1)
    return math.ceil(long_edge / SQUARE) * math.ceil(short_edge / SQUARE)


# --- families ---------------------------------------------------------------------------------

STANDARD_CLAUDE: Final = Grid(1568, 1568)
SHARP_CLAUDE: Final = Grid(4784, 2576)
SOME_CLAUDE: Final = Grid(1568, 1568, 4784, 2576)
OPEN_MODEL: Final = Grid(1568, 1568, 16_384, PIXELS_MAX)
"""Open models differ, and so do their servers' settings: Qwen's default is the largest."""

FAMILIES: Final[dict[str, Family]] = {
    "gpt-4o-mini": Tiles(2833, 5667),
    "gpt-4o": Tiles(85, 170),
    "gpt-4.1-mini": Patches(1.62, patches_max=6144),
    "gpt-4.1-nano": Patches(2.46, patches_max=6144),
    "gpt-4": Tiles(85, 170),
    "gpt-5-mini": Patches(1.62),
    "gpt-5-nano": Patches(2.46),
    "gpt-5.1": Tiles(70, 140),
    "gpt-5.": Patches(1.2, 2500, factor_max=2.46, patches_max=10_000),
    "gpt-5": Tiles(70, 140),
    "gpt-": Patches(1.2, 2500, factor_max=2.46, patches_max=10_000),
    "o4-mini": Patches(1.72),
    "codex-mini": Patches(1.72),
    "o1": Tiles(75, 150),
    "o3": Tiles(75, 150),
    "computer-use": Tiles(65, 129),
}
"""By what a model's name holds. The first one that fits counts."""

_FAMILY: Final = re.compile(rf"(?<![a-z0-9])(?:chat)?({'|'.join(map(re.escape, FAMILIES))})")
_CLAUDE: Final = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2})(?!\d))?")
_SHARP_SINCE: Final = (4, 7)


@functools.lru_cache(maxsize=1024)
def family_of(model: str) -> Family:
    """Return how `model`, told by its name, charges for pictures."""
    name = model.lower()
    if "claude" in name:
        return _claude(name)
    found = _FAMILY.search(name)
    return FAMILIES[found[1]] if found is not None else OPEN_MODEL


def _claude(name: str) -> Family:
    found = _CLAUDE.search(name)
    if found is None:
        return SOME_CLAUDE
    version = int(found[1]), int(found[2] or 0)
    return SHARP_CLAUDE if version >= _SHARP_SINCE else STANDARD_CLAUDE


def image_tokens(images: Sequence[Image], model: str) -> Range:
    """Return what pictures cost in `model`, in time bounded by how much of them is read."""
    family = family_of(model)
    total = NOTHING
    for image in images[:IMAGES_READ_MAX]:
        size = size_of(image.base64) if image.base64 else None
        total = total.plus(family.cost(size, is_low=image.detail == "low"))
    unread = max(len(images) - IMAGES_READ_MAX, 0)
    most = family.cost(None, is_low=False)
    return Range(*(some + unread * each for some, each in zip(total, most, strict=True)))
