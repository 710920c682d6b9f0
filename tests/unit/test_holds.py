"""extproc/exchange/holds.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.exchange.holds import AMOUNT_DIGITS_MAX, HOLDS_MAX, Hold, holds_of, holds_text
from extproc.policy.budgets import Claim, Unit, Window

MINUTE = Window(seconds=60)

units = st.sampled_from(["tokens", "usd", "requests", "concurrent_requests"])
amounts = st.integers(0, 10**AMOUNT_DIGITS_MAX - 1)
ids = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,62}", fullmatch=True)
claims = st.builds(Claim, ids, units, amounts, st.just(MINUTE), amounts, amounts)


@given(st.lists(st.tuples(claims, st.integers(0, 10**11 - 1)), max_size=5))
def test_what_is_written_is_read_back(pairs: list[tuple[Claim, int]]) -> None:
    text = holds_text([claim for claim, _ in pairs], [float(start) for _, start in pairs])

    assert holds_of(text) == tuple(
        Hold(claim.budget, claim.unit, claim.amount, claim.expected, float(start))
        for claim, start in pairs
    )


def test_it_reads_as_the_manual_says() -> None:
    unit: Unit = "tokens"
    claim = Claim("minute", unit, 60_000, MINUTE, 1234, 600)

    assert holds_text([claim], [1_789_041_600.0]) == "minute tokens 1234 600 1789041600"


def test_nothing_is_held_where_nothing_is_written() -> None:
    assert holds_of("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "minute",
        "minute tokens 1 1",
        "minute tokens 1 1 60 7",
        "minute bananas 1 1 60",
        "minute tokens -1 1 60",
        "minute tokens 1.5 1 60",
        "minute tokens ² 1 60",
        f"minute tokens {'9' * 19} 1 60",
        "Minute tokens 1 1 60",
        "minute tokens 1 1 60;",
        "minute tokens 1 1 60\n",
        ";".join(["minute tokens 1 1 60"] * (HOLDS_MAX + 2)),
    ],
)
def test_what_nobody_wrote_is_not_guessed_at(text: str) -> None:
    assert holds_of(text) is None


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    holds_of(text)
