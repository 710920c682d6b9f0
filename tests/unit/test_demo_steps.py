"""extproc/demo/steps.py: the demo must notice what is not as expected."""

import pytest

from extproc.demo.accesslog import Record
from extproc.demo.clients import Ask, Outcome
from extproc.demo.steps import (
    PREMIUM,
    SCENES,
    STEPS,
    Expected,
    Step,
    chat,
    problems,
    refused,
)

ROUTED = Record(
    step="1",
    path="/v1/chat/completions",
    protocol="HTTP/1.1",
    code=200,
    details="via_upstream",
    cluster="gpt4-adapter",
    route="premium",
    started=0.0,
    duration_ms=1,
    bytes_received=1,
    retry_after=None,
    llm={"tier": "premium", "tenant": "acme"},
)
REFUSED = ROUTED._replace(
    code=429, details="llm_rate_limited", cluster="platform", llm={"reason": "rate_limited"}
)
LIMITED = Outcome(error="RateLimitError", said="no room")
STREAMED = tuple(0.1 * (i + 1) for i in range(30))


def step(expected: Expected, ask: Ask | None = None) -> Step:
    return Step("title", "acme", ask or chat(), expected)


def test_what_comes_as_expected_is_no_problem() -> None:
    refusal = refused(429, "RateLimitError", "rate_limited")

    assert problems(step(PREMIUM), Outcome(said="hello"), [ROUTED]) == []
    assert problems(step(refusal), LIMITED, [REFUSED]) == []


@pytest.mark.parametrize(
    ("outcome", "records", "says"),
    [
        (Outcome(), [], "codes is ()"),
        (Outcome(), [ROUTED._replace(cluster="local-llama")], "served_by is 'local-llama'"),
        (Outcome(), [ROUTED._replace(llm={"tier": "default"})], "tier is 'default'"),
        (Outcome(), [ROUTED, ROUTED], "codes is (200, 200)"),
        (LIMITED, [REFUSED], "error is 'RateLimitError'"),
        (
            Outcome(),
            [ROUTED._replace(llm={"tier": "premium", "downgraded_from": "best"})],
            "downgraded_from is 'best'",
        ),
    ],
)
def test_each_difference_is_a_problem(outcome: Outcome, records: list[Record], says: str) -> None:
    assert says in "; ".join(problems(step(PREMIUM), outcome, records))


def test_a_refusal_for_another_reason_is_a_problem() -> None:
    refusal = refused(429, "RateLimitError", "budget_exhausted")

    assert problems(step(refusal), LIMITED, [REFUSED]) == [
        "reason is 'rate_limited', not 'budget_exhausted'"
    ]


@pytest.mark.parametrize(
    ("arrivals", "count"),
    [
        pytest.param(STREAMED, 0, id="event by event"),
        pytest.param((3.0,), 1, id="in one piece"),
        pytest.param(tuple(2.9 + at / 100 for at in STREAMED), 1, id="all at the end"),
    ],
)
def test_a_stream_that_was_held_back_is_a_problem(arrivals: tuple[float, ...], count: int) -> None:
    streamed = step(PREMIUM, chat()._replace(api="openai.chat.stream"))

    assert len(problems(streamed, Outcome(arrivals=arrivals), [ROUTED])) == count


def test_no_two_steps_have_one_title() -> None:
    titles = [titled.title for titled in (*STEPS, *SCENES)]

    assert len(set(titles)) == len(titles)


def test_every_answer_that_is_held_is_let_go() -> None:
    held = [number for number, step in enumerate(STEPS) if step.is_held]
    ends = [number for number, step in enumerate(STEPS) if step.ends_waiting]

    assert held
    assert max(held) < max(ends)


def test_nothing_in_a_scene_is_held() -> None:
    steps = [step for scene in SCENES for lane in scene.lanes for step in lane]

    assert not any(step.is_held or step.ends_waiting or step.begins_minute for step in steps)
