"""extproc/demo/figures.py: the demo must notice when charges and the models' books differ."""

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


def test_money_is_not_compared_with_tokens() -> None:
    month = Standing("acme", "month", "usd", limit=1000, committed=999, reserved=0)

    assert problems(GOOD._replace(standings=[CHARGED, month])) == []


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
