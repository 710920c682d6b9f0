"""extproc/policy/decide.py and extproc/policy/refusals.py"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from extproc.llm.dialects import Dialect
from extproc.llm.errors import Fault
from extproc.llm.ranges import Range
from extproc.llm.request import LlmRequest, Message
from extproc.policy.budgets import (
    Answer,
    Balance,
    Budget,
    Denied,
    Reserve,
    Reserved,
    Unavailable,
    Window,
)
from extproc.policy.complexity import Complexity
from extproc.policy.decide import Admitted, Decision, Inquiry, Policy, Routed, admit, decide
from extproc.policy.identity import Evidence, IdentitySource
from extproc.policy.models import Model, Price
from extproc.policy.refusals import Refused, refuse_denied
from extproc.policy.tenants import Tenant
from extproc.policy.tiers import Condition, Rule, Tier

RESERVATION = "ffff" + "0" * 28
MINUTE = Window(seconds=60)
MONTH = Window(calendar="month")


class Words:
    """A counter that keeps the port's contract: one token a word, exactly."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def count(self, encoding: str, texts: Sequence[str]) -> Range:
        self.asked.append(encoding)
        tokens = sum(len(text.split()) for text in texts)
        return Range(tokens, tokens, tokens)


def model(**fields: Any) -> Model:
    known: dict[str, Any] = {
        "encoding": "cl100k_base",
        "context_tokens": 1000,
        "output_tokens_max": 100,
    }
    return Model(**(known | fields))


def budget(id_: str = "minute", **fields: Any) -> Budget:
    known: dict[str, Any] = {"limit": Decimal(500), "unit": "tokens", "window": MINUTE}
    return Budget(id=id_, **(known | fields))


def policy(*budgets: Budget, **fields: Any) -> Policy:
    known: dict[str, Any] = {
        "identity": (IdentitySource(header="x-tenant-id"),),
        "keys": {},
        "unknown_tenant": "reject",
        "unknown_model": "count_only",
        "models": {
            "big": model(usd_per_million=Price(input=Decimal(30), output=Decimal(60))),
            "small": model(encoding="llama3", context_tokens=4000),
        },
        "tiers": {
            "premium": Tier(model="big", downgrade_to="default"),
            "default": Tier(model="small", priority=2),
        },
        "plans": {"gold": (Rule(tier="premium"),)},
        "tenants": {"acme": Tenant(plan="gold", budgets=budgets)},
        "complexity": Complexity(),
    }
    return Policy(**(known | fields))


def run(
    policy: Policy, answers: list[Any] | None = None, **fields: Any
) -> tuple[Decision, list[Reserve]]:
    """Decide with a ledger that gives these answers, else holds all; return what it was asked."""
    known: dict[str, Any] = {
        "dialect": Dialect.OPENAI_CHAT,
        "model": "big",
        "model_span": (0, 0),
        "messages": (Message("user", ("one two three",)),),
        "output_tokens_max": 10,
    }
    request = LlmRequest(**(known | fields))
    inquiry = Inquiry(Admitted("acme", "a test"), {}, "/", request, RESERVATION)
    deciding = decide(policy, inquiry, Words())
    asked: list[Reserve] = []
    answer: Answer | None = None
    while True:
        try:
            ask = deciding.send(answer)  # type: ignore[arg-type]
        except StopIteration as finished:
            return finished.value, asked
        asked.append(ask)
        answer = answers.pop(0) if answers else Reserved(ask.reservation, (), ())


def balance(id_: str = "minute", **fields: Any) -> Balance:
    known: dict[str, Any] = {
        "unit": "tokens",
        "limit": 500,
        "remaining": 0,
        "reset_seconds": 30.0,
        "window_seconds": 60.0,
    }
    return Balance(id_, **(known | fields))


def test_without_budgets_the_ledger_is_not_asked() -> None:
    decision, asked = run(policy())

    assert isinstance(decision.outcome, Routed)
    assert (decision.outcome.tier, decision.outcome.model, asked) == ("premium", "big", [])


def test_what_is_asked_is_the_prompt_and_the_output_maximum_times_the_choices() -> None:
    decision, (ask,) = run(policy(budget()), choices=3)

    (claim,) = ask.claims
    assert (ask.reservation, ask.tenant) == (RESERVATION, "acme")
    assert claim.amount == decision.prompt_count.tokens_max + 3 * 10


def test_a_maximum_beyond_the_models_is_clamped() -> None:
    _, (ask,) = run(policy(budget()), output_tokens_max=10**9)
    _, (clamped,) = run(policy(budget()), output_tokens_max=100)

    assert ask.claims == clamped.claims


def test_a_denied_tier_moves_to_the_next_where_every_exhausted_budget_says_so() -> None:
    gold = policy(budget(on_exhausted="downgrade"))

    decision, asked = run(gold, [Denied((balance(),)), Reserved(RESERVATION, (), ())])

    assert isinstance(decision.outcome, Routed)
    assert (decision.outcome.tier, decision.outcome.downgraded_from) == ("default", "premium")
    assert [tried.tier for tried in decision.tried] == ["premium", "default"]
    assert len(asked) == 2


def test_one_exhausted_budget_that_refuses_outweighs_one_that_downgrades() -> None:
    mixed = policy(budget(on_exhausted="downgrade"), budget("hour"))

    decision, asked = run(mixed, [Denied((balance(), balance("hour")))])

    assert isinstance(decision.outcome, Refused)
    assert decision.outcome.fault is Fault.RATE_LIMITED
    assert len(asked) == 1


def test_the_end_of_the_chain_is_a_refusal() -> None:
    gold = policy(budget(on_exhausted="downgrade"))

    decision, asked = run(gold, [Denied((balance(),)), Denied((balance(),))])

    assert isinstance(decision.outcome, Refused)
    assert len(asked) == 2


def test_a_client_hears_of_the_budget_that_it_may_wait_for_rather_than_of_a_small_context() -> None:
    gold = policy(
        budget(limit=Decimal(5000), on_exhausted="downgrade"),
        models={"big": model(context_tokens=9000), "small": model(context_tokens=2)},
    )

    decision, _ = run(gold, [Denied((balance(),))])

    assert isinstance(decision.outcome, Refused)
    assert decision.outcome.fault is Fault.RATE_LIMITED


def test_a_prompt_too_long_for_the_context_moves_on_without_asking_the_ledger() -> None:
    decision, asked = run(
        policy(budget(limit=Decimal(9999))), messages=(Message("user", ("x " * 2000,)),)
    )

    assert isinstance(decision.outcome, Routed)
    assert decision.outcome.tier == "default"
    assert len(asked) == 1


def test_a_prompt_too_long_for_every_context_is_refused_with_the_excess() -> None:
    decision, asked = run(policy(), messages=(Message("user", ("x " * 5000,)),))

    assert isinstance(decision.outcome, Refused)
    assert decision.outcome.fault is Fault.CONTEXT_EXCEEDED
    assert asked == []


def test_what_can_never_fit_is_refused_for_good_without_asking_the_ledger() -> None:
    decision, asked = run(policy(budget(limit=Decimal(5))))

    assert isinstance(decision.outcome, Refused)
    assert decision.outcome.fault is Fault.BUDGET_TOO_SMALL
    assert asked == []


def test_money_that_can_never_fit_moves_to_a_tier_that_costs_less() -> None:
    gold = policy(
        budget(
            "month", unit="usd", limit=Decimal("0.000001"), window=MONTH, on_exhausted="downgrade"
        )
    )

    decision, (ask,) = run(gold)

    assert isinstance(decision.outcome, Routed)
    assert decision.outcome.tier == "default"
    assert ask.claims[0].amount == 0


def test_a_ledger_that_cannot_tell_is_no_licence() -> None:
    decision, _ = run(policy(budget()), [Unavailable("gone")])

    assert isinstance(decision.outcome, Refused)
    assert decision.outcome.fault is Fault.LEDGER_UNAVAILABLE


def test_an_unknown_model_is_denied_where_the_settings_say_so() -> None:
    decision, asked = run(policy(budget(), unknown_model="deny"), model="gpt-99")

    assert isinstance(decision.outcome, Refused)
    assert decision.outcome.fault is Fault.UNKNOWN_MODEL
    assert asked == []


def test_an_unknown_model_never_voids_a_money_budget() -> None:
    money = budget(unit="usd", limit=Decimal(1), window=MONTH)
    _, (known,) = run(policy(money))

    _, (unknown,) = run(policy(money), model="gpt-99")
    _, (named,) = run(policy(money, unknown_model="small"), model="gpt-99")

    assert unknown.claims == known.claims
    assert named.claims[0].amount == 0  # `small` is free, and the operator said its price applies


def test_each_model_is_counted_once_in_its_own_encoding() -> None:
    gold = policy(budget(on_exhausted="downgrade"))

    decision, _ = run(gold, [Denied((balance(),))])

    assert decision.counted_for == "big"
    assert [tried.model for tried in decision.tried] == ["big", "small"]


def test_every_rule_that_was_looked_at_is_in_the_trail() -> None:
    decision, _ = run(policy())

    assert [(verdict.tier, verdict.applies) for verdict in decision.verdicts] == [("premium", True)]


@pytest.mark.parametrize(
    ("name", "unknown_tenant", "expected"),
    [
        pytest.param("acme", "reject", "acme", id="a tenant we know"),
        pytest.param("other", "reject", None, id="a tenant we don't know"),
        pytest.param("other", "acme", "acme", id="one that stands for all of them"),
        pytest.param("", "acme", "acme", id="nobody"),
    ],
)
def test_who_is_admitted(name: str, unknown_tenant: str, expected: str | None) -> None:
    found = admit(policy(unknown_tenant=unknown_tenant), Evidence({"x-tenant-id": name}, {}, ""))

    assert (found.tenant if isinstance(found, Admitted) else None) == expected


def test_a_refused_tenants_name_is_not_repeated() -> None:
    found = admit(policy(), Evidence({"x-tenant-id": "s3cret"}, {}, ""))

    assert isinstance(found, Refused)
    assert "s3cret" not in found.message


def test_a_limit_of_zero_suspends_before_the_body() -> None:
    found = admit(policy(budget(limit=Decimal(0))), Evidence({"x-tenant-id": "acme"}, {}, ""))

    assert isinstance(found, Refused)
    assert found.fault is Fault.TENANT_SUSPENDED


@pytest.mark.parametrize(
    ("exhausted", "fault"),
    [
        pytest.param((balance(),), Fault.RATE_LIMITED, id="a minute is waited for"),
        pytest.param(
            (balance(window_seconds=2.6e6, reset_seconds=9e5),),
            Fault.BUDGET_EXHAUSTED,
            id="a month is not",
        ),
        pytest.param(
            (balance(), balance("m", window_seconds=2.6e6, reset_seconds=9e5)),
            Fault.BUDGET_EXHAUSTED,
            id="the longest wait counts",
        ),
        pytest.param(
            (balance(unit="concurrent_requests", reset_seconds=None, window_seconds=None),),
            Fault.RATE_LIMITED,
            id="a slot is waited for",
        ),
        pytest.param((balance(limit=0),), Fault.TENANT_SUSPENDED, id="nothing at all"),
    ],
)
def test_what_a_client_is_told_of_a_denial(exhausted: tuple[Balance, ...], fault: Fault) -> None:
    assert refuse_denied(exhausted, reservation=RESERVATION, may_downgrade=False).fault is fault


@pytest.mark.parametrize("first", ["0000", "8000", "ffff"])
@pytest.mark.parametrize("reset", [0.001, 1.0, 29.9, 3600.0])
def test_retry_after_is_never_early_and_never_much_late(first: str, reset: float) -> None:
    refused = refuse_denied(
        (balance(reset_seconds=reset),), reservation=first + "0" * 28, may_downgrade=False
    )

    assert refused.retry_after_seconds is not None
    assert reset <= refused.retry_after_seconds <= reset + 5 + 1


def test_the_message_names_the_budget_and_not_the_spend() -> None:
    refused = refuse_denied((balance(remaining=123),), reservation=RESERVATION, may_downgrade=False)

    assert "'minute' (500 tokens per minute)" in refused.message
    assert "123" not in refused.message


def test_a_request_may_take_the_whole_limit_and_the_whole_context() -> None:
    words = Message("user", ("x " * 500,))
    counted, (ask,) = run(policy(budget(limit=Decimal(99_999))), messages=(words,))
    needed = ask.claims[0].amount
    shortest = counted.prompt_count.tokens_min

    exact = policy(
        budget(limit=Decimal(needed)),
        models={"big": model(context_tokens=shortest), "small": model()},
    )
    decision, _ = run(exact, messages=(words,))

    assert isinstance(decision.outcome, Routed)
    assert decision.outcome.tier == "premium"


@pytest.mark.parametrize(
    ("unknown_model", "counted_for"),
    [
        pytest.param("count_only", "small", id="that of the plan's last tier"),
        pytest.param("big", "big", id="that which stands for unknown ones"),
    ],
)
def test_rules_see_an_unknown_model_in_the_tokens_of_another(
    unknown_model: str, counted_for: str
) -> None:
    plans = {"gold": (Rule(tier="premium", when=Condition(stream=True)), Rule(tier="default"))}

    decision, _ = run(policy(unknown_model=unknown_model, plans=plans), model="gpt-99")

    assert decision.counted_for == counted_for
