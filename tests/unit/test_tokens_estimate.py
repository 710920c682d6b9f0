"""extproc/tokens/estimate.py"""

# ruff: noqa: S311
# Random texts are not secret.

import base64
import random
from collections.abc import Callable

import pytest

from extproc.llm.ranges import Range
from extproc.tokens.encodings import Encoder, load
from extproc.tokens.estimate import CELL_BYTES, CELLS_MIN, TOKEN_BYTES_MAX, estimate
from extproc.tokens.normal import utf8

KILO, MEGA = 1 << 10, 1 << 20
SAMPLE = 64 * KILO
SEED = b"s" * 32

PROSE = "The estimate must hold whatever the text is, even one that is made against it. "
DENSE = "q~7\u0416\x01 "
RUN = " " * 256


class Recording:
    """Counts words; keeps how much it was given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def count(self, text: str) -> int:
        self.sizes.append(len(utf8(text)))
        return len(text.split())


def of(count: Callable[[str], int]) -> Encoder:
    return Encoder("fake", "quicktok", count)


def estimated(*texts: str, encoding: str = "cl100k_base", sample: int = SAMPLE) -> Range:
    return estimate(texts, load(encoding), sample_bytes_max=sample, seed=SEED)


def exact(*texts: str, encoding: str = "cl100k_base") -> int:
    return sum(map(load(encoding).count, texts))


def filled(piece: str, size: int = MEGA) -> str:
    return piece * (size // len(piece.encode()))


def mixed(size: int) -> str:
    source = random.Random(1)
    pieces = [PROSE, DENSE * 20, RUN, "x" * 200, "日本語の文章" * 9, "0123456789" * 20]
    parts: list[str] = []
    while size > 0:
        parts.append(source.choice(pieces) * source.randint(1, 40))
        size -= len(parts[-1].encode())
    return "".join(parts)


HARD = {
    "prose": filled(PROSE),
    "prose, then noise": filled(PROSE) + filled(DENSE),
    "noise, then nothing much": filled(DENSE) + filled(RUN),
    "one dense piece in spaces": filled(RUN) + filled(DENSE, 8 * KILO) + filled(RUN),
    "one thin piece in noise": filled(DENSE) + filled(RUN, 8 * KILO) + filled(DENSE),
    "base64": base64.b64encode(random.Random(2).randbytes(MEGA)).decode(),
    "one letter": "a" * MEGA,
    "two letters": "ab" * (MEGA // 2),
    "spaces": RUN * (MEGA // 256),
    "lines": "\n" * MEGA,
    "digits": filled("0123456789"),
    "zeros": "\0" * MEGA,
    "chinese": filled("我能吞下玻璃而不伤身体。"),
    "emoji": filled("👩‍👩‍👧‍👦🇩🇪"),
    "specials": filled("<|endoftext|>"),
    "mixed": mixed(MEGA),
    "expanding in NFC": filled("\U0001d160"),
    "composing in NFC": filled("\u1100\u1161\u11a8"),
    "marks": "a" + "\u0301\u0323" * (MEGA // 4),
}


@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base", "qwen3"])
@pytest.mark.parametrize("text", HARD.values(), ids=HARD.keys())
@pytest.mark.parametrize("sample", [0, 4 * KILO, 64 * KILO, 256 * KILO])
def test_the_bounds_hold_whatever_the_text(encoding: str, text: str, sample: int) -> None:
    found = estimated(text, encoding=encoding, sample=sample)

    assert found.tokens_min <= exact(text, encoding=encoding) <= found.tokens_max
    assert found.tokens_min <= found.tokens <= found.tokens_max
    assert not found.is_exact


@pytest.mark.parametrize("period", [CELL_BYTES, 2 * CELL_BYTES, MEGA // (SAMPLE // CELL_BYTES)])
@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.75])
def test_a_text_that_is_dense_between_even_steps_is_seen_through(period: int, phase: float) -> None:
    """Cells at even steps would all fall on the same side of a text with that period."""
    half = period // 2
    text = filled(DENSE, half).ljust(half) + " " * half
    text = (text * (MEGA // period))[int(phase * period) :]

    found = estimated(text)

    assert found.tokens_min <= exact(text) <= found.tokens_max


@pytest.mark.parametrize(
    ("size", "error"),
    [
        pytest.param(300 * KILO, 0.08, id="little is unseen"),
        pytest.param(MEGA, 0.15, id="a quarter is seen"),
        pytest.param(8 * MEGA, 0.2, id="a body of the usual limit"),
    ],
)
def test_the_error_of_even_prose_is_as_stated(size: int, error: float) -> None:
    text = filled(PROSE, size)

    found = estimated(text, sample=256 * KILO)

    tokens = exact(text)
    assert abs(found.tokens - tokens) <= 0.03 * tokens
    assert found.tokens_max <= (1 + error) * tokens
    assert found.tokens_min >= (1 - error) * tokens


def test_no_more_than_the_sample_is_counted() -> None:
    recording = Recording()
    texts = [PROSE * 7, "", DENSE * 90_000, "é" * 300_001, "x"]

    estimate(texts, of(recording.count), sample_bytes_max=SAMPLE, seed=SEED)

    assert sum(recording.sizes) <= SAMPLE + 3 * SAMPLE // CELL_BYTES  # characters end cells
    assert len(recording.sizes) <= SAMPLE // CELL_BYTES + len(texts)
    assert max(recording.sizes) <= CELL_BYTES + 3


@pytest.mark.parametrize("sample", [0, 1, CELL_BYTES * CELLS_MIN - 1])
def test_without_a_sample_nothing_is_counted(sample: int) -> None:
    recording = Recording()

    found = estimate([PROSE * 100], of(recording.count), sample_bytes_max=sample, seed=SEED)

    size = len(PROSE) * 100
    assert found == Range(-(-size // 4), -(-size // TOKEN_BYTES_MAX), size)
    assert recording.sizes == []


def test_other_than_ascii_has_more_tokens_per_byte() -> None:
    assert estimated("é" * 300, sample=0).tokens == 200


@pytest.mark.parametrize("count", [1, 1000, 60_000])
def test_texts_are_counted_each_for_itself(count: int) -> None:
    """One letter a text is one token each; joined they would be an eighth of that."""
    texts = ["a"] * count

    found = estimated(*texts, sample=8 * KILO)

    assert found.tokens_min <= count <= found.tokens_max
    if count > 8 * KILO:
        assert abs(found.tokens - count) < 0.05 * count


def test_empty_texts_hold_no_tokens() -> None:
    assert estimated(*[""] * 100_000, "a", sample=0) == Range(1, 1, 1)


def test_empty_texts_cost_no_time() -> None:
    recording = Recording()

    estimate([""] * 100_000 + ["a" * MEGA], of(recording.count), sample_bytes_max=SAMPLE, seed=SEED)

    assert len(recording.sizes) == SAMPLE // CELL_BYTES


def test_the_same_seed_gives_the_same_answer() -> None:
    text = HARD["mixed"]
    encoder = load("cl100k_base")

    found = [
        estimate([text], encoder, sample_bytes_max=SAMPLE, seed=seed)
        for seed in (b"a" * 32, b"b" * 32, b"a" * 32)
    ]

    assert found[0] == found[2]
    assert found[0] != found[1]


def test_bounds_hold_for_every_seed() -> None:
    text = HARD["prose, then noise"]
    tokens = exact(text)
    encoder = load("cl100k_base")

    for seed in range(50):
        found = estimate([text], encoder, sample_bytes_max=8 * KILO, seed=bytes([seed]))
        assert found.tokens_min <= tokens <= found.tokens_max
