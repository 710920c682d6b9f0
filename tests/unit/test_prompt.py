"""extproc/llm/prompt.py, framing.py and tools.py"""

import json
import math
from collections.abc import Sequence
from typing import Any, get_args

import pytest

from extproc.llm.dialects import Dialect
from extproc.llm.framing import CALL, HARMONY, LLAMA_3, ROLES, framing_of
from extproc.llm.parse import parse_request
from extproc.llm.prompt import PromptCount, count_prompt
from extproc.llm.ranges import Range
from extproc.llm.request import Image, LlmRequest, Message
from extproc.llm.tools import tool_texts
from extproc.policy.models import Encoding
from extproc.tokens.counter import Counter

COUNTER = Counter(prompt_exact_bytes=1 << 20)

# OpenAI's cookbook, "How to count tokens with tiktoken": the numbers that its API answered with.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate "
        "jargon into plain English.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "New synergies will help drive top-line growth.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities "
        "for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client "
        "deliverable.",
    },
]
WEATHER = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
GET_WEATHER: dict[str, Any] = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {
                "type": "string",
                "description": "The city and state, e.g. San Francisco, CA",
            },
            "unit": {
                "type": "string",
                "description": "The unit of temperature to return",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "required": ["location"],
    },
}


class Words:
    """A counter that keeps the port's contract: one token a word, and up to `spread` off."""

    def __init__(self, *, spread: int = 0) -> None:
        self.asked: list[str] = []
        self._spread = spread

    def count(self, encoding: str, texts: Sequence[str]) -> Range:
        assert encoding in get_args(Encoding)
        assert not isinstance(texts, str)
        self.asked.extend(texts)
        tokens = sum(len(text.split()) for text in texts)
        return Range(tokens, max(tokens - self._spread, 0), tokens + self._spread)


def request(*messages: Message, **fields: Any) -> LlmRequest:
    known: dict[str, Any] = {
        "dialect": Dialect.OPENAI_CHAT,
        "model": "gpt-4",
        "model_span": (0, 0),
        "messages": messages,
    }
    return LlmRequest(**(known | fields))


def words(
    asked: LlmRequest, *, model: str = "gpt-4", scale: float = 1, **fields: Any
) -> PromptCount:
    encoding = fields.get("encoding", "cl100k_base")
    counter = Words(spread=fields.get("spread", 0))
    return count_prompt(asked, counter, model=model, encoding=encoding, scale=scale)


def chat(model: str, **fields: Any) -> LlmRequest:
    parsed = parse_request(Dialect.OPENAI_CHAT, json.dumps({"model": model, **fields}).encode())
    assert isinstance(parsed, LlmRequest)
    return parsed


HI = Message("user", ("say hi",))


# --- texts and framing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "encoding", "tokens"),
    [
        ("gpt-3.5-turbo-0301", "cl100k_base", 127),
        ("gpt-3.5-turbo-0613", "cl100k_base", 129),
        ("gpt-3.5-turbo", "cl100k_base", 129),
        ("gpt-4-0613", "cl100k_base", 129),
        ("gpt-4", "cl100k_base", 129),
        ("gpt-4o", "o200k_base", 124),
        ("gpt-4o-mini", "o200k_base", 124),
    ],
)
def test_the_cookbook_s_chat_costs_what_openai_s_api_said(
    model: str, encoding: str, tokens: int
) -> None:
    found = count_prompt(
        chat(model, messages=JARGON), COUNTER, model=model, encoding=encoding, scale=1
    )

    assert found[:3] == (tokens, tokens, tokens)


@pytest.mark.parametrize(
    ("model", "encoding", "tokens"),
    [
        ("gpt-3.5-turbo", "cl100k_base", 105),
        ("gpt-4", "cl100k_base", 105),
        ("gpt-4o", "o200k_base", 101),
        ("gpt-4o-mini", "o200k_base", 101),
    ],
)
@pytest.mark.parametrize(
    "tool", [{"type": "function", "function": GET_WEATHER}, {"type": "function", **GET_WEATHER}]
)
def test_the_cookbook_s_tool_costs_what_openai_s_api_said(
    model: str, encoding: str, tokens: int, tool: dict[str, Any]
) -> None:
    asked = chat(model, messages=WEATHER, tools=[tool])

    found = count_prompt(asked, COUNTER, model=model, encoding=encoding, scale=1)

    assert found.tokens == tokens
    assert found.tokens_min < tokens < found.tokens_max


def test_every_part_is_named_and_adds_up() -> None:
    asked = request(
        Message("system", ("a b", "c")),
        Message("user", ("d e",), name="x y", images=(Image(detail="low"),)),
        Message("assistant", (), tool_calls=("f g h",)),
        tools=("i j k l",),
        token_ids=5,
    )

    found = words(asked)

    assert found.parts == {
        "messages": 5,
        "framing": 3 * 3 + 3 + 3,
        "names": 2 + 1,
        "tool_calls": 3 + CALL,
        "tools": 3,  # 0.6 of 4, rounded up
        "images": 85,
        "token_ids": 5,
    }
    assert found.tokens == sum(found.parts.values())


@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_usual_roles_are_one_token_in_every_encoding(encoding: str) -> None:
    for role in ROLES:
        assert COUNTER.count(encoding, (role,)).tokens == 1


def test_an_unusual_role_is_counted_as_text() -> None:
    usual, unusual = words(request(HI)), words(request(Message("a b c", ("say hi",))))

    assert unusual.parts["framing"] == usual.parts["framing"] + 2
    assert unusual.parts["messages"] == 2


@pytest.mark.parametrize("dialect", [Dialect.OPENAI_COMPLETIONS, Dialect.OPENAI_EMBEDDINGS])
@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_prompts_without_roles_have_nothing_around_them(dialect: Dialect, encoding: str) -> None:
    found = words(request(dialect=dialect, texts=("a b", " c "), token_ids=7), encoding=encoding)

    assert found[:3] == (10, 10, 10)


def test_the_llama_3_template_is_followed() -> None:
    """Its reference, ChatFormat: begin, then header, empty line, text and end of each message."""
    counter = Words()

    found = count_prompt(
        request(Message("user", ("\n say hi  ",))), counter, model="x", encoding="llama3", scale=1
    )

    assert counter.asked == ["say hi"]
    assert found.parts["framing"] == 1 + (1 + 1 + 1 + 1 + 1) + (1 + 1 + 1 + 1)


@pytest.mark.parametrize(
    ("model", "encoding", "expected"),
    [
        ("gpt-4", "cl100k_base", "3 each, 3 to begin"),
        ("openai/gpt-4o", "o200k_base", "3 each, 3 to begin"),
        ("gpt-3.5-turbo-0301", "cl100k_base", "4 each, 3 to begin"),
        ("house-model", "qwen3", "4 each, 3 to begin"),
        ("house-model", "llama3", "4 each, 4 to begin"),
        ("gpt-oss-120b", "o200k_harmony", "3 each, 2 to begin"),
        ("claude-sonnet-4-5", "cl100k_base", "3 each, 3 to begin"),
        ("house-model", "cl100k_base", "3 each, 3 to begin"),
    ],
)
def test_the_template_is_told_from_name_and_encoding(
    model: str, encoding: str, expected: str
) -> None:
    framing = framing_of(model, encoding, is_anthropic=False)

    assert f"{framing.message} each, {framing.reply} to begin" == expected


def test_the_api_decides_where_the_name_says_nothing() -> None:
    assert framing_of("house", "cl100k_base", is_anthropic=True).tools == 346
    assert framing_of("house", "cl100k_base", is_anthropic=False).tools == 0
    assert framing_of("gpt-4", "cl100k_base", is_anthropic=True).tools == 0


def test_a_template_that_nobody_publishes_is_bounded() -> None:
    found = words(request(HI), model="gpt-5")

    assert (found.tokens, found.tokens_min, found.tokens_max) == (2 + 7, 2, 2 + 14)


def test_what_a_template_may_add_unasked_counts_only_at_most() -> None:
    found = words(request(HI), encoding="llama3", model="x")

    assert found.tokens_max == 2 + 2 * 10 + LLAMA_3.hidden


def test_harmony_s_own_system_message_is_counted() -> None:
    system = (
        "You are ChatGPT, a large language model trained by OpenAI.\n"
        "Knowledge cutoff: 2024-06\nCurrent date: 2026-01-31\n\nReasoning: medium\n\n"
        "# Valid channels: analysis, commentary, final. "
        "Channel must be included for every message."
    )

    expected = COUNTER.count("o200k_harmony", (system,)).tokens + HARMONY.message + 1

    assert abs(HARMONY.start - expected) <= 10


# --- bounds -----------------------------------------------------------------------------------


def test_a_counter_s_doubt_is_passed_on() -> None:
    found = words(request(HI), spread=2)

    assert (found.tokens, found.tokens_min, found.tokens_max) == (9, 7, 11)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        pytest.param(1.0, (9, 9, 9), id="no scale"),
        pytest.param(1.25, (12, 9, 12), id="up: rounded up, the least unscaled"),
        pytest.param(0.5, (5, 4, 9), id="down: the most unscaled"),
    ],
)
def test_scale_moves_the_total_and_widens_the_bounds(
    scale: float, expected: tuple[int, int, int]
) -> None:
    found = words(request(HI), scale=scale)

    assert found[:3] == expected
    assert sum(found.parts.values()) == 9


def test_pictures_and_token_ids_are_the_model_s_own_tokens_and_not_scaled() -> None:
    image = Image(detail="low")
    asked = request(Message("user", ("say hi",), images=(image,)), token_ids=100)

    assert words(asked, scale=2).tokens == 2 * 9 + 85 + 100


def test_calls_are_at_least_their_text() -> None:
    asked = request(Message("assistant", (), tool_calls=("a b c d", "e f")))

    found = words(asked)

    assert found.parts["tool_calls"] == 6 + 2 * CALL
    assert found.tokens_min == 7 + 6
    assert found.tokens_max == 7 + 9 + 4 * CALL


# --- tools ------------------------------------------------------------------------------------

NESTED = {
    "name": "order",
    "parameters": {
        "type": "object",
        "properties": {"items": {"type": "array", "items": {"type": "string"}}},
    },
}


@pytest.mark.parametrize(
    "tool",
    [
        NESTED,
        {"name": "a", "parameters": {"properties": {"b": {"anyOf": [{"type": "string"}]}}}},
        {"name": "a", "parameters": {"$ref": "#/x", "properties": {}}},
        {"name": "a", "parameters": {"properties": {"b": {"type": ["string", "null"]}}}},
        {"name": "a", "parameters": {"properties": {"b": {"enum": [{"deep": 1}]}}}},
        {"name": "a", "input_schema": {"type": "object"}},
        {"name": 1},
        {"type": "web_search"},
        {"type": "function", "function": None},
        {"function": {"name": "a"}, "and": "more"},
        {},
        [],
        [[[]]],
        None,
        True,
        1e300,
        "tool",
        "",
    ],
    ids=json.dumps,
)
def test_a_tool_that_the_formula_does_not_know_is_counted_as_its_json(tool: object) -> None:
    text = json.dumps(tool)

    assert tool_texts([text], "", function=7) == ((), 0, (text,))


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"function":' * 50_000 + "1", "", "\ud800", "\0", "{"],
    ids=["arrays", "objects", "functions", "nothing", "surrogate", "zero", "brace"],
)
def test_a_tool_that_is_no_json_is_counted_as_it_is(text: str) -> None:
    assert tool_texts([text], "", function=7).json == (text,)


def test_lines_of_the_formula_are_those_of_the_cookbook() -> None:
    found = tool_texts([json.dumps(GET_WEATHER)], "", function=7)

    assert found.lines == (
        "get_current_weather:Get the current weather in a given location",
        "location:string:The city and state, e.g. San Francisco, CA",
        "celsius",
        "fahrenheit",
        "unit:string:The unit of temperature to return",
    )
    assert found.framing == 7 + 3 + 3 + 3 - 3 + 3 + 3 + 12


def test_a_description_s_full_stop_is_not_counted() -> None:
    found = tool_texts(['{"name":"a","description":"Do it."}'], "", function=7)

    assert found.lines == ("a:Do it",)


def test_models_that_read_json_are_given_tools_whole() -> None:
    text = json.dumps(GET_WEATHER)

    assert tool_texts([text], "", function=0) == ((), 0, (text,))


@pytest.mark.parametrize(
    ("choice", "lines", "framing"),
    [
        pytest.param("", (), 0, id="not said"),
        pytest.param('"auto"', (), 0, id="auto"),
        pytest.param('"none"', (), 1, id="none"),
        pytest.param('{"function":{"name":"order"}}', ("order",), 7, id="OpenAI's"),
        pytest.param('{"type":"tool","name":"order"}', ("order",), 7, id="Anthropic's"),
        pytest.param('{"name":[1]}', ('{"name":[1]}',), 7, id="a name that is none"),
        pytest.param('{"function":' * 9_999, ('{"function":' * 9_999,), 7, id="deep"),
        pytest.param("null", (), 0, id="null"),
    ],
)
def test_a_choice_of_tool_is_counted(choice: str, lines: tuple[str, ...], framing: int) -> None:
    found = tool_texts(["1"], choice, function=7)

    assert (found.lines, found.framing) == (lines, framing)


def test_a_choice_without_tools_costs_nothing() -> None:
    assert words(request(HI, tool_choice='"none"')).tokens == words(request(HI)).tokens


@pytest.mark.parametrize(
    ("model", "encoding", "expected"),
    [
        pytest.param("gpt-4", "cl100k_base", (24, 12, 60), id="TypeScript: 0.6, half, 1.5"),
        pytest.param("x", "llama3", (40 + 60, 42, 90 + 60), id="JSON after an instruction"),
        pytest.param("claude", "cl100k_base", (40 + 346, 185, 519 + 80), id="Anthropic: double"),
    ],
)
def test_tools_as_json_are_bounded(
    model: str, encoding: str, expected: tuple[int, int, int]
) -> None:
    tool = "x " * 40
    with_tools = words(request(HI, tools=(tool,)), model=model, encoding=encoding)
    without = words(request(HI), model=model, encoding=encoding)

    extra = [have - had for have, had in zip(with_tools[:3], without[:3], strict=True)]

    assert tuple(extra) == expected


# --- base64 and cost --------------------------------------------------------------------------


def test_base64_is_never_given_to_the_counter() -> None:
    data = "iVBORw0KGgo" * 1000
    content = [
        {"type": "text", "text": "what is it"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
    ]
    counter = Words()

    count_prompt(
        chat("gpt-4o", messages=[{"role": "user", "content": content}]),
        counter,
        model="gpt-4o",
        encoding="o200k_base",
        scale=1,
    )

    assert counter.asked == ["what is it"]


def test_a_plain_chat_asks_the_counter_once() -> None:
    class Once(Words):
        calls = 0

        def count(self, encoding: str, texts: Sequence[str]) -> Range:
            self.calls += 1
            return super().count(encoding, texts)

    counter = Once()

    count_prompt(request(HI, HI), counter, model="gpt-4", encoding="cl100k_base", scale=1)

    assert counter.calls == 1


def test_numbers_are_whole() -> None:
    asked = request(
        Message("user", ("a",), tool_calls=("b",), images=(Image(),)), tools=("1", "{}")
    )

    found = words(asked, scale=1.1, model="gpt-4.1-mini")

    assert all(isinstance(number, int) for number in (*found[:3], *found.parts.values()))
    assert found.tokens_min <= found.tokens <= found.tokens_max
    assert math.isfinite(found.tokens)
