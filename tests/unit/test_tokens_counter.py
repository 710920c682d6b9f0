"""extproc/tokens/counter.py"""

from typing import get_args

import pytest

from extproc.llm.prompt import TextCounter
from extproc.llm.ranges import Range
from extproc.tokens import counter as counter_module
from extproc.tokens.counter import Counter
from extproc.tokens.encodings import Encoder, EncodingUnavailableError, Engine, load

KEY = b"k" * 32
MEGA = 1 << 20


def exactly(tokens: int) -> Range:
    return Range(tokens, tokens, tokens)


class Recording:
    """Stands for `load`: its encoders count words and say how much they were given."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, Engine]] = []
        self.bytes = 0

    def __call__(self, encoding: str, engine: Engine) -> Encoder:
        self.loaded.append((encoding, engine))
        return Encoder(encoding, engine, self.count)

    def count(self, text: str) -> int:
        self.bytes += len(text.encode("utf-8", "surrogatepass"))
        return len(text.split())


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Recording:
    found = Recording()
    monkeypatch.setattr(counter_module, "load", found)
    return found


def test_it_is_a_text_counter() -> None:
    counter: TextCounter = Counter(prompt_exact_bytes=1000)

    assert counter.count("cl100k_base", ("hello world", "", "<|endoftext|>")) == exactly(2 + 7)
    assert counter.count("cl100k_base", ()) == exactly(0)


@pytest.mark.parametrize("engine", get_args(Engine))
def test_the_engine_can_be_chosen(engine: Engine) -> None:
    counter = Counter(prompt_exact_bytes=1000, engine=engine)

    counter.warm(["cl100k_base"])

    assert counter.engines == {"cl100k_base": engine}


def test_what_is_warm_is_not_loaded_again(recording: Recording) -> None:
    counter = Counter(prompt_exact_bytes=1000)

    counter.warm({"cl100k_base", "llama3"})
    counter.count("llama3", ("a",))
    counter.count("qwen3", ("a",))
    counter.count("qwen3", ("a",))

    assert sorted(recording.loaded[:2]) == [("cl100k_base", "quicktok"), ("llama3", "quicktok")]
    assert recording.loaded[2:] == [("qwen3", "quicktok")]


def test_an_encoding_that_can_not_be_loaded_stops_the_start() -> None:
    with pytest.raises(EncodingUnavailableError):
        Counter(prompt_exact_bytes=1000).warm(["klingon"])


@pytest.mark.parametrize(
    ("texts", "is_exact"),
    [
        pytest.param(("a" * 1000,), True, id="the limit is inclusive"),
        pytest.param(("a" * 1001,), False, id="one over is estimated"),
        pytest.param(("a" * 500, "b" * 500), True, id="all texts together, at the limit"),
        pytest.param(("a" * 500, "b" * 501), False, id="all texts together, over it"),
        pytest.param(("é" * 500,), True, id="bytes, not characters, at the limit"),
        pytest.param(("é" * 501,), False, id="bytes, not characters, over it"),
        pytest.param(("\U0001f600" * 250,), True, id="four bytes each, at the limit"),
        pytest.param(("\U0001f600" * 251,), False, id="four bytes each, over it"),
        pytest.param(("\ud800" * 333,), True, id="a lone surrogate has three bytes"),
        pytest.param(("\ud800" * 334,), False, id="a lone surrogate has three bytes, over it"),
    ],
)
def test_texts_are_exact_up_to_the_limit(texts: tuple[str, ...], is_exact: bool) -> None:
    found = Counter(prompt_exact_bytes=1000).count("cl100k_base", texts)

    assert found.is_exact is is_exact
    if is_exact:
        assert found.tokens == sum(map(load("cl100k_base").count, texts))


def test_a_limit_of_zero_estimates_everything_but_nothing(recording: Recording) -> None:
    counter = Counter(prompt_exact_bytes=0)

    assert counter.count("cl100k_base", ("a" * 8,)) == Range(2, 1, 8)
    assert counter.count("cl100k_base", ("",)) == exactly(0)
    assert recording.bytes == 0


@pytest.mark.parametrize("exact_bytes", [4096, 65_536, 262_144])
@pytest.mark.parametrize("text", ["a" * 8 * MEGA, "ab " * 2 * MEGA, "é" * 4 * MEGA])
def test_no_more_is_counted_than_the_limit(
    recording: Recording, exact_bytes: int, text: str
) -> None:
    counter = Counter(prompt_exact_bytes=exact_bytes)

    counter.count("cl100k_base", (text,))

    assert 0 < recording.bytes <= exact_bytes * 1.02


def test_the_next_turn_counts_what_is_new(recording: Recording) -> None:
    counter = Counter(prompt_exact_bytes=MEGA)
    turns = tuple(f"turn {number} " * 40 for number in range(30))
    for number in range(1, 30):
        counter.count("cl100k_base", turns[:number])
    before = recording.bytes

    counter.count("cl100k_base", turns)

    assert recording.bytes - before == len(turns[-1])


def test_encodings_do_not_share_counts() -> None:
    counter = Counter(prompt_exact_bytes=MEGA)
    text = "ab" * 200

    found = [counter.count(encoding, (text,)).tokens for encoding in ("cl100k_base", "o200k_base")]

    assert found == [load(encoding).count(text) for encoding in ("cl100k_base", "o200k_base")]
    assert found[0] != found[1]


def test_counters_of_one_key_agree_and_others_look_elsewhere() -> None:
    text = "".join(chr(ord("a") + i * i % 23) * (i % 7) + " " for i in range(100_000))

    found = [
        Counter(prompt_exact_bytes=8192, key=key).count("cl100k_base", (text,))
        for key in (KEY, KEY, *(None,) * 8)
    ]

    assert found[0] == found[1]
    assert len(set(found)) > 1  # two keys may agree by chance; nine don't


HOSTILE = {
    "one character": "a" * MEGA,
    "special tokens": "<|endoftext|>" * 80_000,
    "lone surrogates": "\ud800" * 50_000,
    "pairs in the wrong order": "\udfff\ud800" * 50_000,
    "zeros": "\0" * MEGA,
    "marks": "\u0301\u0323" * 100_000,
    "one mark more than is sorted": ("a" + "\u0323\u0301" * 15) * 5000,
    "joined emoji": "\U0001f468\u200d" * 100_000,
    "private use": "\U0010ffff" * 100_000,
    "nothing": "",
}


@pytest.mark.parametrize("engine", get_args(Engine))
@pytest.mark.parametrize("encoding", ["cl100k_base", "qwen3"])
@pytest.mark.parametrize("exact_bytes", [0, 100_000, 1 << 26])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_raises(text: str, exact_bytes: int, encoding: str, engine: Engine) -> None:
    counter = Counter(prompt_exact_bytes=exact_bytes, engine=engine, key=KEY)

    found = counter.count(encoding, (text, text[:100]))

    assert 0 <= found.tokens_min <= found.tokens <= found.tokens_max


def chat(turns: int) -> tuple[str, ...]:
    """Make texts of 200 words and bytes each, no two the same."""
    return tuple(f"{turn:03} " + "a " * 98 for turn in range(turns))


def test_what_was_counted_before_is_exact_however_much_it_is(recording: Recording) -> None:
    counter = Counter(prompt_exact_bytes=4096)
    for turns in range(1, 101):
        recording.bytes = 0

        found = counter.count("cl100k_base", chat(turns))

        assert found == exactly(99 * turns)
        assert recording.bytes == 200


def test_a_long_chat_is_exact_once_it_was_seen_a_few_times(recording: Recording) -> None:
    counter = Counter(prompt_exact_bytes=4096)
    are_exact: list[bool] = []
    for _ in range(10):
        recording.bytes = 0

        found = counter.count("cl100k_base", chat(100))

        assert recording.bytes <= 4096
        assert found.tokens_min <= 9900 <= found.tokens_max
        are_exact.append(found.is_exact)

    assert are_exact == sorted(are_exact)
    assert are_exact[0] is False
    assert are_exact[-1] is True
    assert recording.bytes == 0


def test_one_large_text_leaves_its_whole_sample_to_the_estimate(recording: Recording) -> None:
    counter = Counter(prompt_exact_bytes=65_536)

    counter.count("cl100k_base", ("word " * 100_000,))

    assert recording.bytes > 60_000
