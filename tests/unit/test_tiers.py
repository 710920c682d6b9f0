"""extproc/policy/tiers.py and extproc/policy/complexity.py"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.llm.dialects import Dialect
from extproc.llm.request import Image, LlmRequest, Message
from extproc.policy.complexity import Complexity, Feature, Reason, score_of
from extproc.policy.tiers import Condition, Facts, Rule, Verdict, choose_tier


def request(**fields: Any) -> LlmRequest:
    known = {"dialect": Dialect.OPENAI_CHAT, "model": "gpt-4", "model_span": (0, 0)}
    return LlmRequest(**(known | fields))


def facts(**fields: Any) -> Facts:
    known: dict[str, Any] = {
        "request": request(),
        "headers": {},
        "path": "/v1/chat/completions?x=1",
        "complexity": 0.5,
        "prompt_tokens": 100,
    }
    return Facts(**(known | fields))


IMAGE = Message("user", images=(Image(),))


@pytest.mark.parametrize(
    ("when", "given", "applies"),
    [
        pytest.param({"complexity_above": 0.7}, {"complexity": 0.71}, True, id="more complex"),
        pytest.param(
            {"complexity_above": 0.7}, {"complexity": 0.7}, False, id="just as complex is not above"
        ),
        pytest.param({"prompt_tokens_above": 100}, {"prompt_tokens": 101}, True, id="longer"),
        pytest.param({"prompt_tokens_above": 100}, {}, False, id="just as long is not above"),
        pytest.param({"models": ("gpt-*", "o1")}, {}, True, id="a model pattern"),
        pytest.param({"models": ("gpt",)}, {}, False, id="a pattern takes the whole name"),
        pytest.param({"paths": ("/v1/chat/*",)}, {}, True, id="a path pattern, without the query"),
        pytest.param({"paths": ("/v1/messages",)}, {}, False, id="another path"),
        pytest.param(
            {"headers": {"x-team": "ml-*"}}, {"headers": {"x-team": "ml-1"}}, True, id="a header"
        ),
        pytest.param({"headers": {"x-team": "*?"}}, {}, False, id="a header that is missing"),
        pytest.param({"stream": True}, {"request": request(is_streamed=True)}, True, id="a stream"),
        pytest.param(
            {"stream": False}, {"request": request(is_streamed=True)}, False, id="not a stream"
        ),
        pytest.param({"tools": True}, {"request": request(tools=("{}",))}, True, id="tools"),
        pytest.param({"tools": True}, {}, False, id="no tools"),
        pytest.param({"images": True}, {"request": request(messages=(IMAGE,))}, True, id="images"),
        pytest.param(
            {"images": False},
            {"request": request(messages=(IMAGE,))},
            False,
            id="images where there should be none",
        ),
        pytest.param(
            {"models": ("gpt-*",), "stream": True}, {}, False, id="all conditions must hold"
        ),
    ],
)
def test_a_condition(when: dict[str, Any], given: dict[str, Any], applies: bool) -> None:
    rules = (Rule(tier="special", when=Condition(**when)), Rule(tier="default"))

    verdicts = choose_tier(rules, facts(**given))

    assert verdicts[-1].tier == ("special" if applies else "default")
    assert verdicts[-1].applies
    assert bool(verdicts[0].failed) is not applies


def test_the_first_rule_that_applies_decides_and_the_rest_is_not_looked_at() -> None:
    rules = (Rule(tier="a", when=Condition(stream=True)), Rule(tier="b"), Rule(tier="c"))

    assert choose_tier(rules, facts()) == (Verdict("a", "stream is false"), Verdict("b", ""))


def test_a_score_names_what_it_is_made_of() -> None:
    weights = Complexity(
        prompt_tokens=Feature(weight=0.5, full_at=1000), tools=Feature(weight=0.2, full_at=4)
    )

    score = score_of(weights, request(tools=("{}",)), prompt_tokens=500)

    assert score.value == pytest.approx(0.3)
    assert score.reasons == (Reason("prompt_tokens", 500, 0.25), Reason("tools", 1, 0.05))


def test_the_shipped_weights_call_a_long_prompt_with_tools_complex_and_a_greeting_not() -> None:
    assert score_of(Complexity(), request(tools=("{}",)), prompt_tokens=4000).value > 0.7
    assert score_of(Complexity(), request(), prompt_tokens=12).value < 0.1


@given(st.integers(0, 10**12), st.integers(0, 10**9), st.integers(1, 1000))
def test_a_score_is_between_zero_and_one(
    prompt_tokens: int, output_tokens: int, choices: int
) -> None:
    given = request(output_tokens_max=output_tokens, choices=choices, tools=("{}",) * 9)

    assert 0 <= score_of(Complexity(), given, prompt_tokens=prompt_tokens).value <= 1


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_longer_prompt_is_never_less_complex(one: int, other: int) -> None:
    low, high = sorted((one, other))
    weights = Complexity()

    assert (
        score_of(weights, request(), prompt_tokens=low).value
        <= score_of(weights, request(), prompt_tokens=high).value
    )
