"""The meter finds what providers say of use, however it is cut, and nothing else."""

import itertools
import json
import re
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.llm import dialects, spotting, sse, usage
from extproc.llm.sse import AnswerMeter, Seen
from tests.meter.answers import ANSWERS, EVENTS, JSON, SHORT, Answer, data
from tests.meter.stand import METER

SMALL = [answer for answer in ANSWERS if len(answer.body) < 3_000]
LARGE = [answer for answer in ANSWERS if answer not in SMALL]


def metered(answer: Answer, pieces: Iterable[bytes]) -> Seen:
    meter = AnswerMeter(answer.content_type, answer.content_encoding)
    for piece in pieces:
        meter.take(piece)
    return meter.seen


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_an_answer_is_noted_when_it_comes_at_once(answer: Answer) -> None:
    assert metered(answer, [answer.body]) == answer.seen


@pytest.mark.parametrize("answer", SMALL, ids=lambda answer: answer.name)
def test_an_answer_may_be_cut_in_two_anywhere(answer: Answer) -> None:
    for at in range(len(answer.body) + 1):
        assert metered(answer, [answer.body[:at], b"", answer.body[at:]]) == answer.seen, at


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("answer", SMALL, ids=lambda answer: answer.name)
def test_an_answer_may_come_in_crumbs(answer: Answer, size: int) -> None:
    assert metered(answer, in_pieces(answer.body, size)) == answer.seen


@pytest.mark.parametrize("size", [257, 10_007, 65_536])
@pytest.mark.parametrize("answer", LARGE, ids=lambda answer: answer.name)
def test_a_large_answer_may_come_in_pieces(answer: Answer, size: int) -> None:
    assert metered(answer, in_pieces(answer.body, size)) == answer.seen


@given(st.sampled_from(SMALL), st.lists(st.integers(0, 3_000)), st.randoms())
def test_no_cut_makes_a_difference_nor_does_a_look(
    answer: Answer, cuts: list[int], random: Any
) -> None:
    meter = AnswerMeter(answer.content_type, answer.content_encoding)
    edges = [0, *sorted(min(cut, len(answer.body)) for cut in cuts), len(answer.body)]
    for start, end in itertools.pairwise(edges):
        meter.take(answer.body[start:end])
        if random.random() < 0.5:
            assert meter.seen.bytes == end

    assert meter.seen == answer.seen


_KEYS = st.sampled_from(["usage", "usage", "response", "message", "a", 'x"usage', "us\u00e9"])
_LEAVES = st.none() | st.integers(0, 9) | _KEYS | st.text(max_size=4)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


def _expected(tree: Any, *, is_event: bool) -> tuple[Any, Any]:
    """What a parser of the whole text finds at the paths that count."""
    last, start = None, None
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key == "usage" and isinstance(value, dict):
            last = value
        if is_event and key in ("response", "message") and isinstance(value, dict):
            inner = value.get("usage")
            if isinstance(inner, dict) and key == "response":
                last = inner
            elif isinstance(inner, dict):
                start = inner
    return last, start


def _read(text: str) -> Any:
    return json.loads(text) if text else None


@settings(max_examples=300)
@given(_TREES, st.sampled_from([None, 1]), st.integers(1, 9))
def test_it_finds_what_a_parser_finds(tree: Any, indent: int | None, size: int) -> None:
    text = json.dumps(tree, indent=indent)
    event = "".join(f"data: {line}\n" for line in text.split("\n")) + "\n"
    for is_event, body, content_type in ((True, event, EVENTS), (False, text, JSON)):
        answer = Answer("", body.encode(), content_type=content_type)

        for seen in (metered(answer, [answer.body]), metered(answer, in_pieces(answer.body, size))):
            found = (_read(seen.usage), _read(seen.usage_start))
            assert found == _expected(tree, is_event=is_event)


@given(st.binary(max_size=200), st.binary(max_size=200), st.sampled_from([EVENTS, JSON]))
def test_garbage_is_counted(one: bytes, other: bytes, content_type: str) -> None:
    answer = Answer("", one + other, content_type=content_type)

    seen = metered(answer, [one, other])

    assert seen == metered(answer, [one + other])
    assert seen.bytes == len(answer.body)


def test_what_was_seen_so_far_is_there_before_the_end() -> None:
    meter = AnswerMeter(EVENTS)
    assert meter.seen == Seen()

    meter.take(SHORT[: SHORT.index(b"[DONE]")])
    assert meter.seen.usage.startswith('{"prompt_tokens":7')
    assert meter.seen.events == 1


@pytest.mark.parametrize("content_type", [EVENTS, JSON])
@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"x" * 16_384, id="one line"),
        pytest.param(b'data: {"usage":{"a":"' + b"x" * 16_384, id="usage without an end"),
        pytest.param(b": " + b"x" * 16_384, id="comment"),
        pytest.param(b'{"' + b"k" * 16_384, id="a key without an end"),
        pytest.param(b'data: {"a":[]},\n' * 1_024, id="lines of an event"),
    ],
)
def test_memory_is_bounded(piece: bytes, content_type: str) -> None:
    meter = AnswerMeter(content_type)
    meter.take(piece)
    tracemalloc.start()
    try:
        for _ in range(100):
            meter.take(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 131_072
    assert meter.seen.bytes == 101 * len(piece)


def test_a_key_without_an_end_is_not_kept() -> None:
    meter = AnswerMeter(JSON)
    meter.take(b'{"')
    tracemalloc.start()
    try:
        for _ in range(30_000):
            meter.take(b"key-key-key")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 131_072


def test_after_it_gave_up_what_it_had_noted_is_still_there() -> None:
    meter = AnswerMeter(EVENTS)
    meter.take(SHORT)
    meter.take(data('{"usage":' + "[" * spotting.HOPS_MAX))
    meter.take(SHORT.replace(b":7", b":8"))

    seen = meter.seen
    assert seen.usage.startswith('{"prompt_tokens":7')
    assert (seen.events, seen.error) == (2, "too_complex")


LUA = METER.read_text()


def test_lua_knows_the_paths_of_llm_calls() -> None:
    assert set(re.findall(r'^  \["(/.*)"\] = true,$', LUA, re.MULTILINE)) == set(dialects.PATHS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EVENT_BYTES_MAX", sse.EVENT_BYTES_MAX),
        ("USAGE_BYTES_MAX", spotting.USAGE_BYTES_MAX),
        ("HOPS_MAX", spotting.HOPS_MAX),
        ("TOKENS_MAX", usage.TOKENS_MAX),
    ],
)
def test_lua_has_the_same_limits(name: str, value: int) -> None:
    assert re.findall(rf"^local {name} = (\d+)$", LUA, re.MULTILINE) == [str(value)]
