"""extproc/exchange/settling.py: what a finished request is charged."""

from decimal import Decimal
from typing import Any

import pytest

from extproc.exchange.outcome import Noted, Outcome, Place, Timing, Trace
from extproc.exchange.places import served_model
from extproc.exchange.settling import (
    UNSEEN_EVENTS_MAX,
    Bill,
    bill_of,
    kind_of,
    settlement_of,
)
from extproc.llm.dialects import Dialect
from extproc.llm.usage import TOKENS_MAX, Usage
from extproc.policy.budgets import CHARGE_MAX, Charge
from extproc.policy.complexity import Complexity
from extproc.policy.decide import Policy
from extproc.policy.models import Model, Price


def model(served_by: tuple[str, ...] = (), **price: str) -> Model:
    return Model(
        encoding="cl100k_base",
        context_tokens=8192,
        output_tokens_max=4096,
        served_by=served_by,
        usd_per_million=Price(**{name: Decimal(value) for name, value in price.items()}),
    )


MODELS = {
    "gpt-4": model(("gpt4-adapter",), input="30", output="60"),
    "gpt-3.5-turbo": model(("gpt35-adapter",), input="0.5", output="1.5"),
    "claude": model(input="3", cached_input="0.3", cache_write="3.75", output="15", reasoning="20"),
}
POLICY = Policy((), {}, "reject", "count_only", MODELS, {}, {}, {}, Complexity())
HELD = (
    "minute tokens 500 400 60;month usd 9000 8000 120;calls requests 1 1 180;"
    "slots concurrent_requests 1 0 0"
)
USAGE = '{"prompt_tokens": 100, "completion_tokens": 20}'
AT_GPT4 = Place("premium", "gpt4-adapter", "10.0.0.1:8080", "", 1)
NOWHERE = Place("premium", "gpt4-adapter", "", "", 0)


def ended(*, status: int = 200, place: Place = AT_GPT4, **fields: Any) -> Outcome:
    """A routed call; `fields` are of its metadata or, where they are none, of the outcome."""
    noted: dict[str, Any] = {
        "outcome": "routed",
        "tenant": "acme",
        "dialect": Dialect.OPENAI_CHAT,
        "requested_model": "gpt-4",
        "prompt_tokens": 90,
        "model": "gpt-4",
        "reservation": "r1",
        "reserved": HELD,
        "usage": USAGE,
    }
    outcome: dict[str, Any] = {"flags": "-", "bytes_sent": 4000, "timing": Timing(1, 2, 3, 4, 5)}
    for name, value in fields.items():
        (noted if name in Noted.__struct_fields__ else outcome)[name] = value
    return Outcome(
        stream_id="s",
        started=1.0,
        method="POST",
        path="/",
        status=status,
        details="",
        bytes_received=1,
        noted=Noted(**noted),
        place=place,
        trace=Trace(),
        **outcome,
    )


def test_a_complete_answer_costs_what_its_provider_says() -> None:
    assert bill_of(POLICY, ended()) == Bill("usage", "gpt-4", Usage(100, 20), 100 * 30 + 20 * 60)


@pytest.mark.parametrize(
    ("fields", "completion"),
    [
        pytest.param({"events": 7, "bytes": 700, "bytes_sent": 700}, 7, id="an event is a token"),
        pytest.param({"events": 7, "bytes": 700, "bytes_sent": 1000}, 10, id="those not noted too"),
        pytest.param(
            {"events": 16, "bytes": 10, "bytes_sent": 10**9},
            16 + UNSEEN_EVENTS_MAX,
            id="but not without end",
        ),
        pytest.param({"events": 7, "stream": True}, 0, id="events without bytes are no answer"),
        pytest.param({"stream": True, "bytes": 400}, 0, id="a stream without an event"),
        pytest.param({"bytes": 401}, 101, id="a JSON answer without usage"),
        pytest.param(
            {"bytes": 400, "dialect": Dialect.OPENAI_EMBEDDINGS}, 0, id="vectors are no tokens"
        ),
        pytest.param(
            {"usage": "garbage", "events": 3, "bytes": 4000}, 3, id="usage that can't be believed"
        ),
        pytest.param(
            {"usage": "", "usage_start": '{"input_tokens": 55, "output_tokens": 1}', "events": 0},
            1,
            id="Anthropic's start, and no more",
        ),
    ],
)
def test_where_the_provider_did_not_say_it_is_estimated(
    fields: dict[str, Any], completion: int
) -> None:
    bill = bill_of(POLICY, ended(**({"usage": "", "flags": "DC"} | fields)))

    assert (bill.source, bill.usage.completion) == ("estimated", completion)
    assert bill.usage.prompt == (55 if "usage_start" in fields else 90)


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(ended(status=429), id="the provider's own limit"),
        pytest.param(ended(status=500), id="its failure"),
        pytest.param(ended(status=503, place=NOWHERE, flags="UF"), id="it was never reached"),
        pytest.param(ended(status=200, place=NOWHERE), id="the proxy answered itself"),
        pytest.param(
            ended(status=0, place=NOWHERE, flags="DC", timing=Timing()),
            id="the client left before it was sent",
        ),
        pytest.param(
            ended(status=0, flags="DC", timing=Timing(1, None, None, None, 9)),
            id="the client left while it was being sent",
        ),
    ],
)
def test_what_no_model_answered_is_free(outcome: Outcome) -> None:
    bill = bill_of(POLICY, outcome)
    settlement = settlement_of(outcome, bill)

    assert (bill.source, bill.usage, bill.cost_micro_usd) == ("zero", Usage(), 0)
    assert settlement is not None
    assert {charge.amount for charge in settlement.charges} == {0}


def test_a_client_that_leaves_while_the_model_reads_pays_for_the_prompt() -> None:
    outcome = ended(status=0, flags="DC", usage="", timing=Timing(1, 2, None, None, 9))

    assert bill_of(POLICY, outcome) == Bill("estimated", "gpt-4", Usage(90, 0), 2700)


def test_counting_tokens_is_free_but_a_request() -> None:
    outcome = ended(dialect=Dialect.ANTHROPIC_COUNT_TOKENS, usage="")
    settlement = settlement_of(outcome, bill_of(POLICY, outcome))

    assert settlement is not None
    assert [charge.amount for charge in settlement.charges] == [0, 0, 1, 0]


def test_each_budget_is_charged_in_its_unit_and_in_the_window_of_admission() -> None:
    outcome = ended()
    settlement = settlement_of(outcome, bill_of(POLICY, outcome))

    assert settlement is not None
    assert (settlement.reservation, settlement.tenant) == ("r1", "acme")
    assert settlement.charges == (
        Charge("minute", 60.0, 120),
        Charge("month", 120.0, 4200),
        Charge("calls", 180.0, 1),
        Charge("slots", 0.0, 0),
    )


@pytest.mark.parametrize("fields", [{"reservation": ""}, {"reserved": "what?"}])
def test_without_what_was_held_nothing_can_be_settled(fields: dict[str, Any]) -> None:
    outcome = ended(**fields)

    assert settlement_of(outcome, bill_of(POLICY, outcome)) is None


def test_every_kind_of_token_has_its_price() -> None:
    usage = (
        '{"input_tokens": 1000, "cache_read_input_tokens": 2000,'
        ' "cache_creation_input_tokens": 400, "output_tokens": 100,'
        ' "output_tokens_details": {"reasoning_tokens": 60}}'
    )
    outcome = ended(model="claude", requested_model="claude", usage=usage, place=Place(host="h"))

    assert bill_of(POLICY, outcome).cost_micro_usd == (1000 * 3 + 600 + 1500 + 40 * 15 + 60 * 20)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        pytest.param(Place(cluster="gpt35-adapter", host="h"), "gpt-3.5-turbo", id="a cluster"),
        pytest.param(
            Place(cluster="outbound|8080|v1|gpt35-adapter.models.svc.cluster.local", host="h"),
            "gpt-3.5-turbo",
            id="a cluster of istiod's",
        ),
        pytest.param(
            Place(workload="gpt35-adapter-7c9;models;gpt35-adapter;v1;Kubernetes", host="h"),
            "gpt-3.5-turbo",
            id="a workload",
        ),
        pytest.param(Place(host="gpt35-adapter:443"), "gpt-3.5-turbo", id="a host"),
        pytest.param(Place(cluster="elsewhere", host="h"), "gpt-4", id="nobody we know"),
        pytest.param(Place(cluster="gpt4-adapter", host="h"), "gpt-4", id="the one meant"),
    ],
)
def test_the_model_that_served_is_charged(place: Place, expected: str) -> None:
    assert served_model(MODELS, "gpt-4", place) == expected
    assert bill_of(POLICY, ended(place=place)).model == expected


def test_of_models_that_share_a_workload_the_one_meant_is_charged() -> None:
    shared = {name: model(("llama",)) for name in ("a", "b")}

    assert served_model(shared, "b", Place(cluster="llama")) == "b"


def test_a_model_that_stands_for_unknown_ones_gives_its_price() -> None:
    policy = POLICY._replace(unknown_model="gpt-3.5-turbo")
    unknown = ended(requested_model="o9-mini")
    fallen_back = ended(requested_model="o9-mini", place=Place(cluster="gpt35-adapter", host="h"))

    assert bill_of(policy, unknown) == Bill("usage", "gpt-4", Usage(100, 20), 80)
    assert bill_of(policy, fallen_back).model == "gpt-3.5-turbo"


def test_a_model_that_is_gone_from_the_settings_costs_nothing_and_its_tokens_count() -> None:
    assert bill_of(POLICY, ended(model="gone", place=Place(host="h"))) == Bill(
        "usage", "gone", Usage(100, 20), 0
    )


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "call"),
        ({"outcome": "refused"}, "refused"),
        ({"outcome": "", "unattributed": True}, "unattributed"),
        ({"outcome": ""}, "other"),
        ({"outcome": "something else"}, "other"),
    ],
)
def test_a_record_is_of_one_kind(fields: dict[str, Any], kind: str) -> None:
    assert kind_of(ended(**fields)) == kind


@pytest.mark.parametrize(
    ("fields", "is_aborted"),
    [
        ({}, False),
        ({"flags": "DC"}, True),
        ({"flags": "UF,URX"}, False),
        ({"flags": "NR,UT"}, True),
        ({"status": 0}, True),
    ],
)
def test_an_answer_is_whole_or_it_is_not(fields: dict[str, Any], is_aborted: bool) -> None:
    assert ended(**fields).is_aborted == is_aborted


def test_no_claim_of_a_provider_is_more_than_a_ledger_can_keep() -> None:
    dear = POLICY._replace(models={"gpt-4": model(("gpt4-adapter",), output="1000000")})
    outcome = ended(usage=f'{{"completion_tokens": {TOKENS_MAX}}}')
    settlement = settlement_of(outcome, bill_of(dear, outcome))

    assert settlement is not None
    assert settlement.charges[1].amount == CHARGE_MAX
