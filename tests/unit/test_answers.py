"""extproc/exchange/answers.py and what a refusal tells a client"""

from decimal import Decimal

import pytest

from extproc.exchange.answers import reject, tightest, warnings_of
from extproc.exchange.names import BUDGET_STATE
from extproc.llm.dialects import Dialect
from extproc.llm.errors import Fault
from extproc.policy.budgets import Balance, Budget, DecidedBy, Window
from extproc.policy.refusals import Refused

MINUTE = Balance("minute", "tokens", 600, 90, 12.2, 60.0)
MONTH = Balance("month", "usd", 5_000_000, 4_000_000, 9e5, 2_678_400.0)
SLOTS = Balance("slots", "concurrent_requests", 10, 5, None, None)


def headers_of(refused: Refused) -> dict[str, str]:
    return {
        name: value.decode() for name, value in reject(Dialect.OPENAI_CHAT, refused, {}).headers
    }


def test_a_rate_limit_says_when_to_come_back_and_how_the_budgets_stand() -> None:
    refused = Refused(
        Fault.RATE_LIMITED, "m", balances=(MONTH, MINUTE, SLOTS), retry_after_seconds=14
    )

    assert headers_of(refused) == {
        "content-type": "application/json",
        "retry-after": "14",
        "x-llm-budget-policy": "minute",
        "x-llm-budget-limit": "600",
        "x-llm-budget-remaining": "90",
        "x-llm-budget-reset": "13",
        "ratelimit-policy": '"month";q=5000000;w=2678400;llm-unit="micro-usd", '
        '"minute";q=600;w=60;llm-unit="tokens", "slots";q=10;qu="concurrent-requests"',
        "ratelimit": '"minute";r=90;t=13',
    }


@pytest.mark.parametrize("decided_by", ["", "local_share", "deny"])
def test_a_refusal_says_so_if_the_store_of_budgets_was_away(decided_by: DecidedBy) -> None:
    refused = Refused(Fault.LEDGER_UNAVAILABLE, "m", decided_by=decided_by)

    told = reject(Dialect.OPENAI_CHAT, refused, {"tenant": "acme"})

    expected = {BUDGET_STATE: decided_by.encode()} if decided_by else {}
    assert {k: v for k, v in told.headers if "budget" in k} == expected
    assert told.metadata.get("budget_state", "") == decided_by
    assert told.metadata["tenant"] == "acme"


@pytest.mark.parametrize(
    ("fault", "seconds", "gives_up"),
    [
        pytest.param(Fault.RATE_LIMITED, 60, False, id="a wait that SDKs keep to"),
        pytest.param(Fault.RATE_LIMITED, 61, True, id="a wait that SDKs ignore"),
        pytest.param(Fault.BUDGET_EXHAUSTED, None, True, id="a quota that is gone"),
        pytest.param(Fault.TENANT_SUSPENDED, None, True, id="a suspension"),
        pytest.param(Fault.LEDGER_UNAVAILABLE, 1, False, id="a fault of ours"),
        pytest.param(Fault.MALFORMED_REQUEST, None, False, id="a 400, which no SDK repeats"),
    ],
)
def test_sdks_are_told_to_give_up_where_they_would_knock_in_vain(
    fault: Fault, seconds: int | None, gives_up: bool
) -> None:
    found = headers_of(Refused(fault, "m", retry_after_seconds=seconds))

    assert (found.get("x-should-retry") == "false") is gives_up


def test_the_tightest_budget_is_that_with_the_smallest_share_left() -> None:
    assert tightest((MONTH, MINUTE, SLOTS)) == MINUTE
    assert tightest((MONTH, Balance("off", "tokens", 0, 0, None, None))) == Balance(
        "off", "tokens", 0, 0, None, None
    )
    assert tightest(()) is None


@pytest.mark.parametrize(
    ("remaining", "expected"),
    [(21, ()), (20, ("day 0.8",)), (6, ("day 0.8",)), (5, ("day 0.95",)), (0, ("day 0.95",))],
)
def test_a_warning_names_the_highest_share_reached(
    remaining: int, expected: tuple[str, ...]
) -> None:
    budget = Budget(
        id="day",
        limit=Decimal(100),
        unit="tokens",
        window=Window(calendar="day"),
        warn_at=(0.8, 0.95),
    )
    balance = Balance("day", "tokens", 100, remaining, 60.0, 86400.0)

    assert warnings_of((budget,), (balance,)) == expected
