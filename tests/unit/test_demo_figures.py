"""extproc/demo/figures.py: the demo must notice when charges and the models' books differ."""

from typing import Any

import pytest

from extproc.demo.figures import Figures, Hop, Pace, Served, Standing, figures_of, verdicts

CHARGED = Standing("acme", "tokens", "tokens", limit=1000, committed=30, reserved=0)
SERVED = Served("acme", "gpt-4", answers=2, prompt=10, completion=20)
PACE = Pace("gpt-4", requests=2, tokens_per_second=25.0, first_token_ms=3.0)
CACHE = Hop("cache", requests=9, p50_ms=1.0, p95_ms=2.0)
RETRIEVAL = Hop("retrieval", requests=3, p50_ms=400.0, p95_ms=410.0)
GOOD = Figures([CHARGED], [PACE], [CACHE, RETRIEVAL], [SERVED])


def problems(figures: Figures) -> list[str]:
    return [problem for verdict in verdicts(figures) for problem in verdict.problems]


def test_numbers_that_agree_are_no_problem() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        pytest.param(
            GOOD._replace(standings=[CHARGED._replace(committed=31)]),
            "acme: 31 charged, 30 served",
            id="a token too many",
        ),
        pytest.param(
            GOOD._replace(served=[SERVED, SERVED._replace(model="local-llama")]),
            "acme: 30 charged, 60 served",
            id="an answer that was not charged",
        ),
        pytest.param(
            GOOD._replace(standings=[]), "acme: nothing charged, 30 served", id="no such budget"
        ),
        pytest.param(
            GOOD._replace(served=[]), "acme: 30 charged, nothing served", id="no such answer"
        ),
        pytest.param(
            GOOD._replace(standings=[CHARGED._replace(reserved=7)]),
            "acme: 7 held of tokens",
            id="a reservation that nobody settled",
        ),
        pytest.param(
            GOOD._replace(standings=[CHARGED, Standing("acme", "day", "usd", 9, 8, reserved=0.5)]),
            "acme: 0.5 held of day",
            id="and one of another budget",
        ),
        pytest.param(GOOD._replace(hops=[CACHE]), "cache, 1 ms", id="another hop is the slowest"),
        pytest.param(GOOD._replace(hops=[]), "no hop was seen", id="no hop at all"),
        pytest.param(GOOD._replace(paces=[]), "no model was seen streaming", id="no model"),
    ],
)
def test_each_difference_is_a_problem(figures: Figures, says: str) -> None:
    assert problems(figures) == [says]


def test_a_call_that_died_with_its_replica_may_be_charged_and_no_more() -> None:
    charged = GOOD._replace(expired=1, standings=[CHARGED._replace(committed=30 + 100)])

    assert problems(charged) == []
    assert "1 calls that died" in verdicts(charged)[0].seen
    assert problems(charged._replace(expired=0)) == ["acme: 130 charged, 30 served"]
    assert problems(charged._replace(standings=[CHARGED._replace(committed=131)])) == [
        "acme: 131 charged, 30 served"
    ]
    assert problems(charged._replace(standings=[CHARGED._replace(committed=29)])) == [
        "acme: 29 charged, 30 served"
    ]


def test_replicas_that_do_not_agree_are_a_problem() -> None:
    other = CHARGED._replace(limit=2000)

    assert problems(GOOD._replace(standings=[CHARGED, other])) == [
        "acme: replicas do not agree on tokens"
    ]


def test_money_is_not_compared_with_tokens() -> None:
    month = Standing("acme", "month", "usd", limit=1000, committed=999, reserved=0)

    assert problems(GOOD._replace(standings=[CHARGED, month])) == []


def replica(committed: float, requests: int, median: float) -> dict[str, Any]:
    """What one says, of a tenant, a model and a hop."""
    row = {"id": "tokens", "unit": "tokens", "limit": 9.0, "committed": committed, "reserved": 0.0}
    quantiles = {"median": median, "p5": median, "p95": median}
    model = {"model": "gpt-4", "requests": requests, "first_token_seconds": quantiles}
    return {
        "ledger": {"reservations_expired": 1},
        "tenants": {"rows": [{"tenant": "acme", "budgets": [row]}]},
        "models": [model | {"stream_tokens_per_second": quantiles}],
        "hops": [{"cluster": "cache", "requests": requests, "latency_seconds": quantiles}],
    }


def test_of_several_replicas_the_middle_one_is_told_by_its_requests() -> None:
    told = [replica(5, 2, 0.3), replica(5, 9, 0.1), replica(5, 6, 0.2)]

    assert figures_of([], told) == Figures(
        [Standing("acme", "tokens", "tokens", 9, 5, 0)],
        [Pace("gpt-4", 17, 0.1, 100)],
        [Hop("cache", 17, 100, 100)],
        [],
        expired=3,
        replicas=3,
    )
    assert len(figures_of([], [replica(5, 1, 1.0), replica(6, 1, 1.0)]).standings) == 2


def test_what_the_service_and_the_books_say_is_read() -> None:
    month = {"id": "tokens", "unit": "tokens", "limit": 1000.0, "committed": 30.0, "reserved": 0.0}
    idle = {"now": None, "median": None, "p95": None}
    told = {
        "ledger": {"reservations_expired": 0},
        "tenants": {
            "rows": [{"tenant": "acme", "state": "ok", "budgets": [month | {"state": "ok"}]}]
        },
        "models": [
            {
                "model": "gpt-4",
                "requests": 2,
                "stream_tokens_per_second": {"now": 25.0, "median": 25.0, "p5": 24.0},
                "first_token_seconds": {"now": 0.003, "median": 0.003, "p95": 0.004},
            },
            {
                "model": "whole-answers-only",
                "requests": 3,
                "stream_tokens_per_second": idle,
                "first_token_seconds": idle,
            },
            {
                "model": "never-called",
                "requests": 0,
                "stream_tokens_per_second": idle,
                "first_token_seconds": idle,
            },
        ],
        "hops": [
            {
                "cluster": "retrieval",
                "requests": 3,
                "latency_seconds": {"now": 0.4, "median": 0.4, "p95": 0.41},
            }
        ],
    }
    books = [{"tenant": "acme", "model": "gpt-4", "answers": 2, "prompt": 10, "completion": 20}]

    assert figures_of(books, [told]) == Figures(
        [CHARGED], [PACE, Pace("whole-answers-only", 3, None, None)], [RETRIEVAL], [SERVED]
    )
