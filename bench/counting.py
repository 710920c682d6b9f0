"""How fast texts are counted: quicktok against tiktoken, and the worst that can be sent.

.venv/bin/python -m bench.counting
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import get_args

from bench.corpus import texts
from extproc.tokens.counter import Counter
from extproc.tokens.encodings import Engine, load

ENCODING = "cl100k_base"
SIZES = {200: 2000, 2048: 500, 8192: 150, 204_800: 8}
"""Bytes of a text, and how many texts a round counts."""

ROUNDS = 9
PROMPT_EXACT_BYTES = 262_144
"""The default of the settings."""

MEGA = 1 << 20
BODY_BYTES = 8 * MEGA
HOSTILE = {
    "prose": "",  # made when it is asked for
    "a": "a",
    "ab": "ab",
    "spaces": " ",
    "line ends": "\n",
    "zeros": "\0",
    "<|endoftext|>": "<|endoftext|>",
    "joined emoji": "\U0001f468\u200d",
    "combining marks": "\u0301\u0323",
    "marks, just not sorted": "a" + "\u0301\u0323" * 15,
    "expanding in NFC": "\U0001d160",
    "lone surrogates": "\ud800",
}


def main() -> None:
    print(f"Microseconds to count one text in {ENCODING}, never seen before; medians of {ROUNDS}")
    print(
        f"{'bytes':>8} {'quicktok':>10} {'tiktoken':>10} {'ratio':>7} {'Counter':>10} {'known':>8}"
    )
    for size, number in SIZES.items():
        medians = engines(size, number)
        ratio = medians["tiktoken"] / medians["quicktok"]
        print(
            f"{size:>8} {medians['quicktok']:>10.1f} {medians['tiktoken']:>10.1f} {ratio:>6.1f}x"
            f" {medians['new']:>10.1f} {medians['known']:>8.1f}"
        )
    print()
    print(f"Milliseconds of Counter for 8 MiB, and for the {PROMPT_EXACT_BYTES} bytes it counts")
    print(f"{'':>24} {'estimated':>10} {'exact':>8}  encoding")
    for name in HOSTILE:
        for encoding in (ENCODING, "qwen3"):
            whole, limit = worst(name, encoding)
            print(f"{name:>24} {whole:>10.1f} {limit:>8.1f}  {encoding}")


def engines(size: int, number: int) -> dict[str, float]:
    """Return microseconds a text, by way of counting it. Ways take turns, on the same texts."""
    fresh = texts(size, seed=size)
    raw = {engine: load(ENCODING, engine).count for engine in get_args(Engine)}
    counter = Counter(prompt_exact_bytes=MEGA)
    counter.warm([ENCODING])
    ways: list[tuple[str, Callable[[str], object]]] = [
        *raw.items(),
        ("new", lambda text: counter.count(ENCODING, (text,))),
    ]
    found: dict[str, list[float]] = {name: [] for name in (*raw, "new", "known")}
    for _ in range(ROUNDS):
        batch = list(islice(fresh, number))
        ways = [*ways[1:], ways[0]]  # whoever is first finds the texts cold
        for name, count in (*ways, ("known", dict(ways)["new"])):
            found[name].append(seconds(count, batch) / number * 1e6)
    return {name: statistics.median(times) for name, times in found.items()}


def worst(name: str, encoding: str) -> tuple[float, float]:
    """Return milliseconds for a body of one text, and for as much of it as is counted."""
    text = next(texts(BODY_BYTES)) if name == "prose" else filled(HOSTILE[name], BODY_BYTES)
    characters = PROMPT_EXACT_BYTES * len(text) // BODY_BYTES
    parts = [text[i * characters : (i + 1) * characters] for i in range(ROUNDS)]
    counter = Counter(prompt_exact_bytes=PROMPT_EXACT_BYTES)
    counter.warm([encoding])

    def count(part: str) -> None:
        counter.count(encoding, (part,))

    def fresh() -> Iterator[float]:
        for number, part in enumerate(parts):
            yield seconds(count, [f"{number}{part[1:-1]}"])

    return (
        statistics.median(seconds(count, [text]) for _ in range(3)) * 1e3,
        statistics.median(fresh()) * 1e3,
    )


def filled(piece: str, size: int) -> str:
    return piece * (size // len(piece.encode("utf-8", "surrogatepass")))


def seconds(count: Callable[[str], object], batch: list[str]) -> float:
    begin = time.perf_counter()
    for text in batch:
        count(text)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
