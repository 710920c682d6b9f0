"""extproc/llm/images.py"""

import base64
import struct

import pytest

from extproc.llm.images import (
    BASE64_CHARS_MAX,
    IMAGES_READ_MAX,
    JPEG_SEGMENTS_MAX,
    OPEN_MODEL,
    SHARP_CLAUDE,
    SOME_CLAUDE,
    STANDARD_CLAUDE,
    Grid,
    Patches,
    Size,
    Tiles,
    family_of,
    image_tokens,
    size_of,
)
from extproc.llm.ranges import Range, exactly
from extproc.llm.request import Image


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(width: int, height: int) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\6\0\0\0" * 20
    )


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\xf7\0\0" * 20


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(width: int, height: int, *before: bytes, marker: int = 0xC0) -> bytes:
    frame = b"\x08" + struct.pack(">HH", height, width) + b"\3\1\x11\0\2\x11\1\3\x11\1"
    return b"\xff\xd8" + b"".join(before) + segment(marker, frame) + b"\xff\xda" + b"data" * 20


def webp(kind: bytes, head: bytes) -> bytes:
    return b"RIFF\x24\0\0\0WEBP" + kind + b"\x20\0\0\0" + head + b"data" * 10


def picture(width: int, height: int, detail: str = "high") -> Image:
    return Image(encoded(png(width, height)), detail)


def cost(model: str, image: Image) -> Range:
    return image_tokens([image], model)


EXIF = segment(0xE1, b"Exif\0\0" + b"thumbnail" * 1000)
TABLES = segment(0xC4, b"\0" * 40)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        pytest.param(png(640, 480), Size(640, 480), id="PNG: in the first chunk"),
        pytest.param(gif(640, 480), Size(640, 480), id="GIF: after the version"),
        pytest.param(jpeg(640, 480), Size(640, 480), id="JPEG: height comes first"),
        pytest.param(jpeg(640, 480, EXIF, TABLES), Size(640, 480), id="JPEG: after other segments"),
        pytest.param(jpeg(640, 480, EXIF, marker=0xC2), Size(640, 480), id="JPEG: progressive"),
        pytest.param(jpeg(640, 480, b"\xff\xff"), Size(640, 480), id="JPEG: fill bytes"),
        pytest.param(
            webp(b"VP8X", b"\0\0\0\0" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")),
            Size(640, 480),
            id="WebP: extended",
        ),
        pytest.param(
            webp(b"VP8L", b"\x2f" + (639 | 479 << 14 | 1 << 28).to_bytes(4, "little")),
            Size(640, 480),
            id="WebP: lossless",
        ),
        pytest.param(
            webp(b"VP8 ", b"\0\0\0\x9d\1\x2a" + struct.pack("<HH", 640 | 1 << 14, 480)),
            Size(640, 480),
            id="WebP: lossy, and its scaling bits are not size",
        ),
    ],
)
def test_a_size_is_read_from_the_header(data: bytes, size: Size) -> None:
    assert size_of(encoded(data)) == size


@pytest.mark.parametrize(
    "base64_text",
    [
        pytest.param("", id="nothing"),
        pytest.param("A", id="less than a byte"),
        pytest.param("====", id="only padding"),
        pytest.param("=" * 4 + "A" * 61, id="padding first"),
        pytest.param("é" * 100, id="not base64"),
        pytest.param("\0" * 100, id="zeros"),
        pytest.param("\ud800" * 100, id="surrogates"),
        pytest.param(encoded(b"%PDF-1.7" * 20), id="another format"),
        pytest.param(encoded(png(640, 480)[:20]), id="cut off in the header"),
        pytest.param(encoded(png(0, 480)), id="no width"),
        pytest.param(encoded(png(1 << 31, 480)), id="wider than any picture"),
        pytest.param(encoded(b"\xff\xd8"), id="a JPEG of two bytes"),
        pytest.param(encoded(b"\xff\xd8" + b"\xff\xfe\0\2" * 10_000), id="a JPEG of comments"),
        pytest.param(encoded(b"\xff\xd8" + b"\xff" * 40_000), id="a JPEG of fill bytes"),
        pytest.param(encoded(b"\xff\xd8" + b"\xff\xe0\0\0" * 100), id="segments of no length"),
        pytest.param(
            encoded(jpeg(640, 480, *[segment(0xE1, b"\0" * 60_000)])), id="a JPEG that begins late"
        ),
        pytest.param(
            encoded(jpeg(640, 480, *[segment(0xFE, b"")] * JPEG_SEGMENTS_MAX)),
            id="a JPEG of more segments than are walked",
        ),
        pytest.param(encoded(webp(b"VP9 ", b"\0" * 20)), id="an unknown WebP"),
    ],
)
def test_a_size_that_can_not_be_told_is_none(base64_text: str) -> None:
    assert size_of(base64_text) is None


def test_line_breaks_in_base64_do_no_harm() -> None:
    folded = base64.encodebytes(jpeg(640, 480, EXIF)).decode().replace("\n", "\r\n")

    assert size_of(folded) == Size(640, 480)


def test_only_the_beginning_of_the_data_is_read() -> None:
    read: list[int] = []

    class Recording(str):
        __slots__ = ()

        def __getitem__(self, key: object) -> str:
            assert isinstance(key, slice)
            assert key.start is None
            read.append(key.stop)
            return str.__getitem__(self, key)

        def encode(self, *_: object, **__: object) -> bytes:
            msg = "the whole was encoded"
            raise AssertionError(msg)

    data = Recording(encoded(jpeg(640, 480, EXIF)) * 50)

    size_of(data)

    assert max(read) == BASE64_CHARS_MAX


@pytest.mark.parametrize(
    ("model", "width", "height", "tokens"),
    [
        # OpenAI, "Images and vision", calculating costs.
        pytest.param("gpt-4o", 1024, 1024, 765, id="4o: shrunk to a short edge of 768, 4 tiles"),
        pytest.param("gpt-4o", 2048, 4096, 1105, id="4o: shrunk to fit 2048 first, 6 tiles"),
        pytest.param("gpt-4o", 512, 512, 255, id="4o: one tile"),
        pytest.param("gpt-4o", 513, 512, 425, id="4o: a pixel more is a tile more"),
        pytest.param("gpt-4o-mini", 1024, 1024, 2833 + 4 * 5667, id="4o-mini"),
        pytest.param("gpt-5", 1024, 1024, 70 + 4 * 140, id="5"),
        pytest.param("gpt-4.1-mini", 1024, 1024, 1659, id="4.1-mini: 1024 patches"),
        pytest.param("gpt-4.1-mini", 1800, 2400, 2353, id="4.1-mini: 1452 patches after shrinking"),
        pytest.param("gpt-4.1-nano", 32, 32, 3, id="4.1-nano: one patch"),
        # Anthropic, "Vision", how images are resized.
        pytest.param("claude-sonnet-4-5", 1920, 1080, 1560, id="Claude: shrunk to 1456 by 819"),
        pytest.param("claude-opus-4-7", 1920, 1080, 2691, id="Claude 4.7: not shrunk"),
        pytest.param("claude-opus-4-7", 3840, 2160, 4784, id="Claude 4.7: shrunk to 2576"),
        pytest.param("claude-opus-4-7", 4032, 3024, 4740, id="Claude 4.7: shrunk to 2212 by 1659"),
        pytest.param("claude-opus-4-7", 1, 60_000, 92, id="Claude 4.7: a line"),
    ],
)
def test_a_picture_of_known_size_costs_what_the_provider_says(
    model: str, width: int, height: int, tokens: int
) -> None:
    assert cost(model, picture(width, height)).tokens == tokens


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("gpt-4o", Range(1445, 85, 1445), id="8 tiles"),
        pytest.param("gpt-4.1-mini", Range(2489, 1, 9954), id="as many patches as reported"),
        pytest.param("claude-haiku-4-5", Range(1568, 1, 1568), id="the standard grid"),
        pytest.param("claude-opus-4-8", Range(4784, 1, 4784), id="the sharp grid"),
        pytest.param("claude", Range(1568, 1, 4784), id="some Claude may be either"),
        pytest.param("mistral", Range(1568, 1, 16_384), id="an open model may be anything"),
    ],
)
def test_a_picture_of_unknown_size_costs_the_most_of_its_family(
    model: str, expected: Range
) -> None:
    assert cost(model, Image()) == expected
    assert cost(model, Image(encoded(b"not a picture" * 10))) == expected


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5", "gpt-5.4", "claude-opus-5", "llama-4", "o3"])
@pytest.mark.parametrize("width", [1, 31, 700, 3000, 65_536])
@pytest.mark.parametrize("height", [1, 768, 65_536])
def test_no_picture_costs_more_than_one_of_unknown_size(
    model: str, width: int, height: int
) -> None:
    found, worst = cost(model, picture(width, height)), cost(model, Image(detail="high"))

    assert 1 <= found.tokens_min <= found.tokens <= found.tokens_max
    assert found.tokens <= worst.tokens
    assert found.tokens_max <= worst.tokens_max


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        pytest.param("low", exactly(85), id="low is the base, whatever the size"),
        pytest.param("high", Range(765, 85, 765), id="high is the formula"),
        pytest.param("auto", Range(765, 85, 765), id="auto is high, or low"),
        pytest.param("<b>", Range(765, 85, 765), id="anything else is taken for high"),
    ],
)
def test_detail_decides_between_base_and_tiles(detail: str, expected: Range) -> None:
    assert cost("gpt-4o", picture(1024, 1024, detail)) == expected


def test_low_detail_changes_nothing_for_patches_but_the_least() -> None:
    low, high = (cost("gpt-4.1-mini", picture(1024, 1024, detail)) for detail in ("low", "high"))

    assert low == high
    assert low.tokens_min == 256


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4o-mini-2024-07-18", Tiles(2833, 5667)),
        ("azure/gpt-4o", Tiles(85, 170)),
        ("chatgpt-4o-latest", Tiles(85, 170)),
        ("GPT-4.1", Tiles(85, 170)),
        ("gpt-4-turbo", Tiles(85, 170)),
        ("gpt-5.1", Tiles(70, 140)),
        ("gpt-5-mini", Patches(1.62)),
        ("gpt-5.4-mini", Patches(1.2, 2500, 2.46, 10_000)),
        ("gpt-6", Patches(1.2, 2500, 2.46, 10_000)),
        ("o4-mini", Patches(1.72)),
        ("o3-pro", Tiles(75, 150)),
        ("claude-3-5-sonnet-20241022", STANDARD_CLAUDE),
        ("claude-opus-4-20250514", STANDARD_CLAUDE),
        ("us.anthropic.claude-sonnet-4-6-v1:0", STANDARD_CLAUDE),
        ("claude-opus-4.7", SHARP_CLAUDE),
        ("claude-sonnet-5", SHARP_CLAUDE),
        ("claude", SOME_CLAUDE),
        ("polo1", OPEN_MODEL),
        ("", OPEN_MODEL),
    ],
)
def test_a_family_is_told_from_the_name(model: str, family: Tiles | Patches | Grid) -> None:
    assert family_of(model) == family


def test_pictures_beyond_what_is_read_cost_the_most() -> None:
    small = picture(512, 512)

    found = image_tokens([small] * (IMAGES_READ_MAX + 2), "gpt-4o")

    assert found.tokens == IMAGES_READ_MAX * 255 + 2 * 1445
