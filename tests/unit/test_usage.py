"""extproc/llm/usage.py."""

import json
from typing import Any

import pytest

from extproc.llm.usage import TOKENS_MAX, Usage, usage_of


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
            Usage(9, 12),
            id="OpenAI",
        ),
        pytest.param(
            {
                "prompt_tokens": 2006,
                "completion_tokens": 300,
                "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 250},
            },
            Usage(2006, 300, cached=1920, reasoning=250),
            id="OpenAI counts the cache within the prompt, thoughts within the answer",
        ),
        pytest.param({"prompt_tokens": 8, "total_tokens": 8}, Usage(8), id="embeddings"),
        pytest.param(
            {
                "input_tokens": 36,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 87,
                "output_tokens_details": {"reasoning_tokens": 7},
                "total_tokens": 123,
            },
            Usage(36, 87, cached=4, reasoning=7),
            id="the Responses API",
        ),
        pytest.param(
            {
                "input_tokens": 50,
                "cache_read_input_tokens": 1000,
                "cache_creation_input_tokens": 200,
                "output_tokens": 30,
            },
            Usage(1250, 30, cached=1000, cache_write=200),
            id="Anthropic counts the cache beside the input",
        ),
        pytest.param({"input_tokens": 5}, Usage(5), id="count_tokens says it elsewhere, but so"),
        pytest.param({"prompt_tokens": 0, "completion_tokens": 0}, Usage(), id="zero is usage"),
        pytest.param(
            {"prompt_tokens": 3, "prompt_tokens_details": None}, Usage(3), id="null details"
        ),
        pytest.param(
            {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}},
            Usage(3, cached=3),
            id="a part is never more than its whole",
        ),
        pytest.param(
            {
                "prompt_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 2},
                "completion_tokens": 1,
                "completion_tokens_details": {"reasoning_tokens": 9},
            },
            Usage(3, 1, 2, 1, 1),
            id="nor are all parts together",
        ),
    ],
)
def test_each_api_is_read(told: dict[str, Any], expected: Usage) -> None:
    assert usage_of(json.dumps(told)) == expected
    assert expected.total == expected.prompt + expected.completion


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        "[]",
        '{"prompt_tokens": -1}',
        '{"prompt_tokens": 1.5}',
        '{"prompt_tokens": "5"}',
        '{"prompt_tokens": true}',
        f'{{"completion_tokens": {TOKENS_MAX + 1}}}',
        '{"prompt_tokens": 1',
        '{"total_tokens": 5}',
        "\ud800",
        "[" * 5000,
    ],
)
def test_what_is_no_usage_is_none(text: str) -> None:
    assert usage_of(text) is None


START = '{"input_tokens":25,"cache_read_input_tokens":10,"output_tokens":1}'


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        pytest.param('{"output_tokens":15}', Usage(35, 15, cached=10), id="the last value counts"),
        pytest.param(
            '{"input_tokens":30,"output_tokens":15}',
            Usage(40, 15, cached=10),
            id="also that of the input",
        ),
        pytest.param("", Usage(35, 1, cached=10), id="only the start was seen"),
    ],
)
def test_usage_in_two_pieces_is_set_and_never_added(last: str, expected: Usage) -> None:
    assert usage_of(last, START) == expected


def test_a_broken_end_is_not_mended_with_the_start() -> None:
    assert usage_of('{"output_tokens":-5}', START) is None
