"""Two engines and two ways to count must agree, whatever the text."""

# ruff: noqa: RUF001, S311
# Texts of many languages look like others; random ones are not secret.

import json
import random
import sys
import unicodedata
from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.llm.dialects import Dialect
from extproc.llm.images import family_of, image_tokens, size_of
from extproc.llm.prompt import count_prompt
from extproc.llm.ranges import Range
from extproc.llm.request import Image, LlmRequest, Message
from extproc.llm.tools import tool_texts
from extproc.policy.models import Encoding
from extproc.tokens.counter import Counter
from extproc.tokens.encodings import load
from extproc.tokens.estimate import estimate
from extproc.tokens.normal import bounded_runs, utf8

ENCODINGS = get_args(Encoding)
EXACT = Counter(prompt_exact_bytes=1 << 26, key=b"k" * 32)

any_text = st.text(st.characters(exclude_categories=()), max_size=300)
marks = st.text("a\u00e9\u0301\u0323\u0316\u0334\u0344\u0f73\u0f71\u1100\u1161", max_size=150)
words = st.lists(
    st.sampled_from(
        [
            "the ",
            "The",
            " tion",
            "'ll",
            "'S",
            "\n",
            "\r\n",
            "  ",
            "\t",
            "123",
            "4567",
            "é",
            "ß",
            "日本",
            "の",
            "한국",
            "ا",
            "👍🏽",
            "<|endoftext|>",
            "=>",
            "://",
            "_x",
            "aB",
            "I",
            "\u00a0",
        ]
    ),
    max_size=60,
).map("".join)
texts = any_text | marks | words


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=texts)
@settings(max_examples=400, deadline=None)
def test_the_engines_agree(encoding: str, text: str) -> None:
    assert load(encoding, "quicktok").count(text) == load(encoding, "tiktoken").count(text)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_engines_agree_on_random_characters(encoding: str) -> None:
    """From blocks of the whole of Unicode, as Hypothesis prefers its beginning."""
    source = random.Random(3)
    for _ in range(400):
        begin = source.randrange(sys.maxunicode)
        block = range(begin, min(begin + 600, sys.maxunicode))
        text = "".join(chr(source.choice(block)) for _ in range(60))
        if encoding == "qwen3" and _is_newer(text):
            continue
        assert load(encoding, "quicktok").count(text) == load(encoding, "tiktoken").count(text)


def _is_newer(text: str) -> bool:
    """Whether this Python's tables do not know a character, so that its NFC may be another."""
    return any(unicodedata.category(character) == "Cn" for character in text)


@given(text=marks, repeat=st.integers(1, 5))
def test_runs_of_marks_mean_the_same_when_sorted(text: str, repeat: int) -> None:
    text *= repeat

    assert unicodedata.normalize("NFC", bounded_runs(text)) == unicodedata.normalize("NFC", text)


@given(text=any_text)
def test_any_str_has_utf8(text: str) -> None:
    assert utf8(text).decode().count("\ufffd") >= text.count("\ufffd")


@pytest.mark.parametrize("encoding", ["cl100k_base", "qwen3"])
@given(
    parts=st.lists(st.tuples(texts, st.integers(1, 300)), min_size=1, max_size=8),
    sample=st.sampled_from([0, 2048, 4096, 16_384]),
    seed=st.binary(max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_estimates_hold_what_is_exact(
    encoding: str, parts: list[tuple[str, int]], sample: int, seed: bytes
) -> None:
    whole = [text * repeat for text, repeat in parts]
    encoder = load(encoding)

    found = estimate(whole, encoder, sample_bytes_max=sample, seed=seed)

    assert found.tokens_min <= sum(map(encoder.count, whole)) <= found.tokens_max
    assert found.tokens_min <= found.tokens <= found.tokens_max


@given(st.lists(texts, max_size=10))
@settings(deadline=None)
def test_texts_count_the_same_together_as_alone(several: list[str]) -> None:
    together = EXACT.count("cl100k_base", tuple(several))

    assert together.is_exact
    assert together.tokens == sum(EXACT.count("cl100k_base", (text,)).tokens for text in several)


class Characters:
    """A counter that keeps the port's contract: one token a character."""

    def count(self, encoding: str, texts: Sequence[str]) -> Range:
        assert encoding in ENCODINGS
        tokens = sum(map(len, texts))
        return Range(tokens, tokens, tokens)


images = st.builds(
    Image, base64=st.text(max_size=100), detail=st.sampled_from(["low", "auto", "x"])
)
messages = st.builds(
    Message,
    role=st.sampled_from(["user", "assistant", "weird role", ""]),
    texts=st.lists(any_text, max_size=3).map(tuple),
    name=st.text(max_size=9),
    tool_calls=st.lists(any_text, max_size=2).map(tuple),
    images=st.lists(images, max_size=2).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "function", "type", "parameters", "properties", "description", "enum", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
)
requests = st.builds(
    LlmRequest,
    dialect=st.sampled_from(Dialect),
    model=st.just("m"),
    model_span=st.just((0, 0)),
    messages=st.lists(messages, max_size=4).map(tuple),
    texts=st.lists(any_text, max_size=2).map(tuple),
    token_ids=st.integers(0, 10**6),
    tools=st.lists(json_values.map(json.dumps) | any_text, max_size=3).map(tuple),
    tool_choice=any_text | st.sampled_from(['"none"', '{"name":"x"}', "{"]),
)


@given(
    request=requests,
    model=st.sampled_from(["gpt-4", "gpt-4o-mini", "gpt-5.4", "claude-opus-4-7", "house"])
    | any_text,
    encoding=st.sampled_from(ENCODINGS),
    scale=st.floats(0.01, 10),
)
@settings(deadline=None)
def test_any_prompt_has_whole_numbers_in_order(
    request: LlmRequest, model: str, encoding: str, scale: float
) -> None:
    found = count_prompt(request, Characters(), model=model, encoding=encoding, scale=scale)

    assert 0 <= found.tokens_min <= found.tokens <= found.tokens_max
    assert all(tokens >= 0 for tokens in found.parts.values())
    assert found.parts["messages"] <= found.tokens_max


@given(
    tool=json_values.map(json.dumps) | any_text, choice=any_text, function=st.sampled_from([0, 7])
)
def test_any_tool_is_read_or_counted_whole(tool: str, choice: str, function: int) -> None:
    found = tool_texts([tool], choice, function=function)

    assert found.json == (tool,) or function
    assert found.framing >= 0


@given(st.text(max_size=200) | st.binary(max_size=150).map(lambda data: data.hex()), any_text)
def test_any_data_is_a_picture_of_some_price(data: str, model: str) -> None:
    size = size_of(data)
    found = image_tokens([Image(data)], model)
    worst = family_of(model).cost(None, is_low=False)

    assert size is None or min(size) > 0
    assert 0 <= found.tokens_min <= found.tokens <= found.tokens_max <= worst.tokens_max
