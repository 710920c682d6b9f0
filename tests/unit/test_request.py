"""extproc/llm/parse.py"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.llm.body import Malformed, Splice
from extproc.llm.dialects import Dialect
from extproc.llm.parse import BATCH_MAX, parse_request
from extproc.llm.request import Image, LlmRequest, Message

PNG = "data:image/png;base64,iVBORw0KGgo="


def parse(dialect: Dialect, **body: Any) -> LlmRequest:
    request = parse_request(dialect, json.dumps({"model": "m", **body}).encode())
    assert isinstance(request, LlmRequest)
    return request


def test_a_chat_is_read_whole() -> None:
    request = parse(
        Dialect.OPENAI_CHAT,
        messages=[
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                    {"type": "hologram", "voxels": [1]},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "look", "arguments": "{}"},
                    },
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "a cat"},
        ],
        tools=[{"type": "function", "function": {"name": "look"}}],
        tool_choice="auto",
        stream=True,
        temperature=0.5,
        max_completion_tokens=7,
        n=3,
        logit_bias={"1": 2},
    )

    assert request == LlmRequest(
        dialect=Dialect.OPENAI_CHAT,
        model="m",
        model_span=(10, 13),
        messages=(
            Message("system", ("Be brief.",)),
            Message("user", ("What is this?",), "ann", (), (Image("iVBORw0KGgo=", "low"),)),
            Message("assistant", (), "", ("look{}",)),
            Message("tool", ("a cat",)),
        ),
        tools=('{"type": "function", "function": {"name": "look"}}',),
        tool_choice='"auto"',
        output_tokens_max=7,
        choices=3,
        is_streamed=True,
        usage_splice=Splice((1, 1), b'"stream_options":{"include_usage":true},'),
        temperature=0.5,
    )


def test_of_two_names_for_the_maximum_the_larger_counts() -> None:
    request = parse(Dialect.OPENAI_CHAT, messages=[], max_tokens=9, max_completion_tokens=7)

    assert request.output_tokens_max == 9


def test_a_schema_for_the_answer_counts_like_a_tool() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}

    assert parse(Dialect.OPENAI_CHAT, messages=[], response_format=schema).tools
    assert not parse(Dialect.OPENAI_CHAT, messages=[], response_format={"type": "text"}).tools


@pytest.mark.parametrize(
    ("prompt", "texts", "token_ids", "choices"),
    [
        pytest.param("one", ("one",), 0, 6, id="a string"),
        pytest.param(["one", "two"], ("one", "two"), 0, 12, id="strings: each is answered"),
        pytest.param([1, 2, 3], (), 3, 6, id="one prompt as token numbers"),
        pytest.param([[1, 2], [3]], (), 3, 12, id="several prompts as token numbers"),
        pytest.param([], (), 0, 6, id="none"),
    ],
)
def test_prompts_of_completions(
    prompt: Any, texts: tuple[str, ...], token_ids: int, choices: int
) -> None:
    request = parse(Dialect.OPENAI_COMPLETIONS, prompt=prompt, n=2, best_of=6)

    assert (request.texts, request.token_ids, request.choices) == (texts, token_ids, choices)


def test_embeddings_have_no_output() -> None:
    request = parse(Dialect.OPENAI_EMBEDDINGS, input=["one", [1, 2]])

    assert (request.texts, request.token_ids, request.output_tokens_max) == (("one",), 2, 0)


def test_a_responses_call_is_read_whole() -> None:
    request = parse(
        Dialect.OPENAI_RESPONSES,
        instructions="Be brief.",
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": PNG},
                ],
            },
            {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "1"},
            {"type": "function_call_output", "call_id": "1", "output": "a cat"},
            {"type": "reasoning", "summary": []},
        ],
        max_output_tokens=9,
    )

    assert request.messages == (
        Message("system", ("Be brief.",)),
        Message("user", ("What is this?",), "", (), (Image("iVBORw0KGgo="),)),
        Message("assistant", (), "", ("look{}",)),
        Message("tool", ("a cat",)),
        Message("assistant"),
    )
    assert (request.output_tokens_max, request.has_hidden_context) == (9, False)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"input": "x", "previous_response_id": "r"}, id="an earlier response"),
        pytest.param({"input": "x", "conversation": {"id": "c"}}, id="a conversation"),
        pytest.param({"prompt": {"id": "p"}}, id="a stored prompt"),
        pytest.param({"input": [{"type": "item_reference", "id": "i"}]}, id="a stored item"),
    ],
)
def test_context_that_only_the_server_has_is_marked(body: dict[str, Any]) -> None:
    assert parse(Dialect.OPENAI_RESPONSES, **body).has_hidden_context


def test_anthropic_messages_are_read_whole() -> None:
    request = parse(
        Dialect.ANTHROPIC_MESSAGES,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"},
                    },
                    {
                        "type": "image",
                        "source": {"type": "url", "url": "https://example.com/a.png"},
                    },
                    {
                        "type": "document",
                        "source": {"type": "text", "data": "a page"},
                        "title": "T",
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "tool_use", "id": "1", "name": "look", "input": {"at": "x"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "1",
                        "content": [{"type": "text", "text": "cat"}],
                    },
                    {"type": "tool_result", "tool_use_id": "2", "content": "dog"},
                ],
            },
        ],
        tools=[{"name": "look", "input_schema": {}}],
        max_tokens=5,
    )

    assert request.messages == (
        Message("system", ("Be brief.",)),
        Message("user", ("T", "a page"), "", (), (Image("QUJD"), Image(""))),
        Message("assistant", ("hm",), "", ('look{"at": "x"}',)),
        Message("user", ("cat", "dog")),
    )
    assert (request.output_tokens_max, len(request.tools)) == (5, 1)


def test_counting_tokens_generates_none() -> None:
    request = parse(Dialect.ANTHROPIC_COUNT_TOKENS, messages=[], max_tokens=5)

    assert request.output_tokens_max == 0


@pytest.mark.parametrize(
    ("dialect", "body", "path"),
    [
        (Dialect.OPENAI_CHAT, {"messages": 1}, "$.messages"),
        (Dialect.OPENAI_CHAT, {"messages": [1]}, "$.messages[0]"),
        (
            Dialect.OPENAI_CHAT,
            {"messages": [{"content": [{"text": 1}]}]},
            "$.messages[0].content[0].text",
        ),
        (Dialect.OPENAI_CHAT, {"messages": [], "model": 1}, "$.model"),
        (Dialect.OPENAI_CHAT, {"messages": [], "model": ""}, "$.model"),
        (Dialect.OPENAI_CHAT, {"messages": [], "stream": "yes"}, "$.stream"),
        (Dialect.OPENAI_CHAT, {"messages": [], "max_tokens": -1}, "$.max_tokens"),
        (Dialect.OPENAI_CHAT, {"messages": [], "max_tokens": 1 << 70}, "$.max_tokens"),
        (Dialect.OPENAI_CHAT, {"messages": [], "n": 0}, "$.n"),
        (Dialect.OPENAI_CHAT, {"messages": [], "n": 1_000_000}, "$.n"),
        (Dialect.OPENAI_CHAT, {"messages": [], "temperature": "hot"}, "$.temperature"),
        (Dialect.OPENAI_COMPLETIONS, {"prompt": [1, "x"]}, "$.prompt"),
        (Dialect.OPENAI_COMPLETIONS, {"prompt": [1, [2]]}, "$.prompt"),
        (Dialect.OPENAI_EMBEDDINGS, {"input": [-1]}, "$.input"),
        (Dialect.OPENAI_EMBEDDINGS, {"input": ["x"] * (BATCH_MAX + 1)}, "$.input"),
        (Dialect.OPENAI_RESPONSES, {"input": 5}, "$.input"),
        (Dialect.ANTHROPIC_MESSAGES, {"messages": [], "system": 5}, "$.system"),
    ],
)
def test_a_wrong_type_is_named_by_its_path(
    dialect: Dialect, body: dict[str, Any], path: str
) -> None:
    found = parse_request(dialect, json.dumps({"model": "m", **body}).encode())

    assert isinstance(found, Malformed)
    assert found.path.startswith(path)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_no_model_is_malformed(dialect: Dialect) -> None:
    assert parse_request(dialect, b"{}") == Malformed("$", "Object missing required field 'model'")


@given(st.sampled_from(list(Dialect)), st.binary(max_size=200))
def test_any_bytes_are_a_value(dialect: Dialect, data: bytes) -> None:
    assert isinstance(parse_request(dialect, data), LlmRequest | Malformed)


KEYS = st.sampled_from(
    [
        "model",
        "messages",
        "content",
        "role",
        "input",
        "prompt",
        "tools",
        "type",
        "text",
        "image_url",
        "url",
        "source",
        "max_tokens",
        "stream",
        "system",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(st.sampled_from(list(Dialect)), st.dictionaries(KEYS, ANYTHING))
def test_any_json_object_is_a_value(dialect: Dialect, body: dict[str, Any]) -> None:
    assert isinstance(parse_request(dialect, json.dumps(body).encode()), LlmRequest | Malformed)


def test_no_word_of_a_prompt_is_in_what_malformed_says() -> None:
    found = parse_request(
        Dialect.OPENAI_CHAT,
        b'{"model": "m", "messages": [{"role": "user", "content": {"s3cret": 1}}]}',
    )

    assert isinstance(found, Malformed)
    assert "s3cret" not in str(found)
