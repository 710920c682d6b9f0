"""extproc/policy/budgets.py"""

from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.policy.budgets import Balance, Budget, Claim, Demand, Window, claims_of, is_rate
from extproc.policy.models import Model, Price

DAY = Window(calendar="day")
PRICE = Price(input=Decimal("0.5"), output=Decimal("1.5"))


def budget(**fields: Any) -> Budget:
    known: dict[str, Any] = {"id": "b", "limit": Decimal(1000), "unit": "tokens", "window": DAY}
    return Budget(**(known | fields))


def model(**fields: Any) -> Model:
    known: dict[str, Any] = {
        "encoding": "cl100k_base",
        "context_tokens": 8000,
        "output_tokens_max": 4000,
        "output_tokens_expected": 300,
        "usd_per_million": PRICE,
    }
    return Model(**(known | fields))


def demand(**fields: Any) -> Demand:
    known: dict[str, Any] = {
        "prompt_tokens": 100,
        "output_tokens_named": None,
        "choices": 1,
        "has_output": True,
    }
    return Demand(**(known | fields))


def claim(budget: Budget, model: Model, demand: Demand) -> Claim:
    (found,) = claims_of((budget,), tier="gold", model_name="big", model=model, demand=demand)
    return found


@pytest.mark.parametrize(
    ("budget", "model", "demand", "amount", "expected"),
    [
        pytest.param(
            budget(), model(), demand(output_tokens_named=50), 150, 150,
            id="the prompt and the maximum that the request names",
        ),
        pytest.param(
            budget(), model(), demand(output_tokens_named=9999), 4100, 4100,
            id="a named maximum is clamped to the model's",
        ),
        pytest.param(
            budget(), model(), demand(output_tokens_named=0), 100, 100,
            id="a maximum of nothing is one",
        ),
        pytest.param(
            budget(), model(), demand(), 400, 400,
            id="where none is named, what the model is expected to answer",
        ),
        pytest.param(
            budget(), model(output_tokens_expected=None), demand(), 612, 612,
            id="where nothing is expected of the model, 512",
        ),
        pytest.param(
            budget(), model(output_tokens_max=10), demand(), 110, 110,
            id="a model never answers more than its maximum",
        ),
        pytest.param(
            budget(reserve="maximum"), model(), demand(), 4100, 400,
            id="the maximum is held, what is expected is charged if nothing is heard",
        ),
        pytest.param(
            budget(reserve="maximum"), model(), demand(output_tokens_named=50), 150, 150,
            id="a named maximum is the maximum",
        ),
        pytest.param(
            budget(), model(), demand(output_tokens_named=50, choices=3), 250, 250,
            id="each choice is an answer, of one prompt",
        ),
        pytest.param(
            budget(reserve="maximum"), model(), demand(has_output=False), 100, 100,
            id="an embedding has no output",
        ),
        pytest.param(
            budget(unit="usd"), model(), demand(output_tokens_named=50), 125, 125,
            id="money, in micro-dollars",
        ),
        pytest.param(
            budget(unit="usd"), model(), demand(prompt_tokens=1, output_tokens_named=0), 1, 1,
            id="money is rounded up",
        ),
        pytest.param(
            budget(unit="usd", reserve="maximum"), model(), demand(), 6050, 500,
            id="money is held and expected as tokens are",
        ),
        pytest.param(
            budget(unit="usd"), model(usd_per_million=Price()), demand(), 0, 0,
            id="a model without a price takes no money",
        ),
        pytest.param(
            budget(unit="requests"), model(), demand(choices=5), 1, 1,
            id="a request is one request, however many choices it asks for",
        ),
        pytest.param(
            budget(unit="concurrent_requests", window=None, reserve="maximum"), model(), demand(),
            1, 0,
            id="a slot is held and never charged",
        ),
    ],
)  # fmt: skip
def test_what_a_request_takes(
    budget: Budget, model: Model, demand: Demand, amount: int, expected: int
) -> None:
    assert claim(budget, model, demand) == Claim(
        "b", budget.unit, budget.limit_units, budget.window, amount, expected
    )


@pytest.mark.parametrize(
    ("fields", "covered"),
    [
        pytest.param({}, True, id="a budget without a scope is about everything"),
        pytest.param({"tiers": ("gold", "iron")}, True, id="its tier"),
        pytest.param({"tiers": ("iron",)}, False, id="another tier"),
        pytest.param({"models": ("b*",)}, True, id="its models, by pattern"),
        pytest.param({"models": ("B*",)}, False, id="a pattern heeds case"),
        pytest.param({"models": ("bi",)}, False, id="a pattern takes the whole name"),
        pytest.param(
            {"models": ("big",), "tiers": ("iron",)}, False, id="both, where both are said"
        ),
        pytest.param({"tiers": ()}, False, id="no tier at all is none"),
    ],
)
def test_a_budget_is_about_what_it_names(fields: dict[str, Any], covered: bool) -> None:
    scoped = budget(**fields)

    found = claims_of((scoped,), tier="gold", model_name="big", model=model(), demand=demand())

    assert bool(found) is covered


def test_claims_keep_the_order_of_the_budgets() -> None:
    budgets = (budget(id="z"), budget(id="x", tiers=("iron",)), budget(id="a"))

    found = claims_of(budgets, tier="gold", model_name="big", model=model(), demand=demand())

    assert [claim.budget for claim in found] == ["z", "a"]


@pytest.mark.parametrize(
    ("unit", "limit", "expected"),
    [
        pytest.param("tokens", "60000", 60_000, id="tokens as they are"),
        pytest.param("usd", "500", 500_000_000, id="dollars in millionths"),
        pytest.param("usd", "0.0000019", 1, id="what is less than a millionth is not there"),
        pytest.param("usd", "1000000000000000", 10**21, id="the largest, to the last digit"),
        pytest.param("requests", "0", 0, id="nothing"),
    ],
)
def test_a_limit_is_an_integer(unit: str, limit: str, expected: int) -> None:
    assert budget(unit=unit, limit=Decimal(limit)).limit_units == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"limit": Decimal(0)}, True, id="a limit of nothing on everything"),
        pytest.param({"limit": Decimal(1)}, False, id="a limit of something"),
        pytest.param({"limit": Decimal(0), "tiers": ("gold",)}, False, id="on one tier"),
        pytest.param({"limit": Decimal(0), "models": ("*",)}, False, id="on some models"),
    ],
)
def test_which_budget_suspends(fields: dict[str, Any], expected: bool) -> None:
    assert budget(**fields).is_suspension is expected


@pytest.mark.parametrize(
    ("limit", "window_seconds", "expected"),
    [
        pytest.param(10, 60.0, True, id="a minute is worth waiting for"),
        pytest.param(10, 3600.0, True, id="an hour is"),
        pytest.param(10, 3601.0, False, id="more is not"),
        pytest.param(10, None, True, id="a slot is"),
        pytest.param(0, 60.0, False, id="a suspension is not"),
    ],
)
def test_when_it_is_worth_waiting(limit: int, window_seconds: float | None, expected: bool) -> None:
    assert is_rate(Balance("b", "tokens", limit, 0, 1.0, window_seconds)) is expected


PRICES = st.decimals(0, 1_000_000, places=9, allow_nan=False, allow_infinity=False)
TOKENS = st.integers(0, 1 << 24)


@given(PRICES, PRICES, TOKENS, TOKENS)
def test_money_is_what_the_price_says(
    input_price: Decimal, output_price: Decimal, prompt_tokens: int, output_tokens: int
) -> None:
    price = Price(input=input_price, output=output_price)
    priced = model(usd_per_million=price, output_tokens_max=1 << 40)
    asked = demand(prompt_tokens=prompt_tokens, output_tokens_named=output_tokens)

    amount = claim(budget(unit="usd"), priced, asked).amount

    exact = Fraction(input_price) * prompt_tokens + Fraction(output_price) * output_tokens
    assert amount == ceil(exact)


@given(
    st.sampled_from(["tokens", "usd", "requests", "concurrent_requests"]),
    st.sampled_from(["expected", "maximum"]),
    TOKENS,
    st.none() | TOKENS,
    st.integers(1, 128),
    st.booleans(),
)
def test_no_more_is_expected_than_is_held(  # noqa: PLR0913, PLR0917  # each is drawn
    unit: str, reserve: str, prompt_tokens: int, named: int | None, choices: int, has_output: bool
) -> None:
    asked = Demand(prompt_tokens, named, choices, has_output)

    found = claim(budget(unit=unit, reserve=reserve), model(), asked)

    assert 0 <= found.expected <= found.amount
