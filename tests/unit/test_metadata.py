"""What the filter notes about a request that it lets go: names and values that others read."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import structs

from extproc import app
from extproc.config.loader import load_file
from extproc.exchange import actions
from extproc.exchange.holds import holds_of
from extproc.exchange.outcome import Noted
from extproc.ledger.memory import MemoryLedger
from extproc.policy.budgets import Answer, Reserve
from extproc.server.rulebook import rules_of
from tests.scenarios.harness import Bare
from tests.scenarios.table import SETTINGS, Call, chat


@pytest.fixture(scope="module")
def bare() -> Bare:
    return Bare()


def routed(bare: Bare, call: Call) -> actions.Route:
    action = bare.send(call)
    assert isinstance(action, actions.Route), action
    return action


class Away(MemoryLedger):
    """Its store is, and each is given his share."""

    async def reserve(self, ask: Reserve) -> Answer:
        return (await super().reserve(ask))._replace(decided_by="local_share")


def test_it_is_said_that_the_store_of_budgets_was_away() -> None:
    call = Call(chat(max_tokens=7), tenant="per-minute")
    away = Bare()
    assert "budget_state" not in routed(away, call).metadata

    away.ledger = Away(app.clock, reservation_seconds=60)

    assert routed(away, call).metadata["budget_state"] == "local_share"


def test_all_that_is_needed_to_settle_is_there(bare: Bare) -> None:
    metadata = dict(
        routed(bare, Call(chat(temperature=0.5, max_tokens=7), tenant="per-minute")).metadata
    )

    (hold,) = holds_of(metadata.pop("reserved")) or ()
    assert (hold.budget, hold.unit, hold.amount, hold.expected) == ("hour", "tokens", 17, 17)
    assert hold.window_start % 3600 == 0
    assert len(metadata.pop("reservation")) == 32
    assert 0 <= metadata.pop("budget_reset") <= 3600
    assert metadata == {
        "outcome": "routed",
        "tenant": "per-minute",
        "identity": "header x-tenant-id",
        "plan": "premium",
        "dialect": "openai_chat",
        "requested_model": "gpt-4",
        "stream": False,
        "complexity": metadata["complexity"],
        "prompt_tokens": 10,
        "temperature": 0.5,
        "output_tokens_max": 7,
        "tier": "premium",
        "model": "gpt-4",
        "priority": 0,
        "budget_policy": "hour",
        "budget_unit": "tokens",
        "budget_limit": metadata["budget_limit"],
        "budget_remaining": metadata["budget_limit"] - 17,
        "budget_window": 3600.0,
    }


def test_what_a_request_does_not_say_is_not_noted(bare: Bare) -> None:
    metadata = routed(bare, Call(chat())).metadata

    assert not {"temperature", "output_tokens_max", "strip_usage"} & metadata.keys()
    assert not any(name.startswith("budget_") for name in metadata)


@pytest.mark.parametrize("asks", [True, False])
def test_the_meter_is_told_to_take_off_what_the_client_did_not_ask_for(
    bare: Bare, asks: bool
) -> None:
    action = routed(bare, Call(chat(stream=True, stream_options={"include_usage": asks})))

    assert action.metadata.get("strip_usage", False) is not asks
    assert (action.body is None) is asks
    if action.body is not None:
        assert json.loads(action.body)["stream_options"] == {"include_usage": True}


def test_nothing_is_asked_for_where_nobody_could_take_it_off() -> None:
    bare = Bare()
    bare.rules = structs.replace(bare.rules, asks_for_usage=False)

    action = routed(bare, Call(chat(stream=True)))

    assert action.body is None
    assert "strip_usage" not in action.metadata


def test_a_record_says_by_itself_whether_its_answer_is_observed(bare: Bare) -> None:
    watched = Bare()
    watched.rules = structs.replace(watched.rules, is_observed=True)

    assert routed(watched, Call(chat())).metadata["meter"] == "observe"
    assert "meter" not in routed(bare, Call(chat())).metadata


def test_the_settings_say_what_meters() -> None:
    loaded = load_file(SETTINGS)
    observing = msgspec.structs.replace(loaded.settings, meter="observe")

    rules = [rules_of(loaded), rules_of(loaded._replace(settings=observing))]

    assert [(rule.is_observed, rule.asks_for_usage) for rule in rules] == [
        (False, True),
        (True, False),
    ]


def test_a_rewritten_model_and_the_wish_for_usage_go_into_one_body() -> None:
    bare = Bare()
    bare.rules = structs.replace(bare.rules, rewrite_model=True)

    action = routed(bare, Call(chat(stream=True), tenant="initech"))

    assert action.body is not None
    sent: dict[str, Any] = json.loads(action.body)
    assert (sent["model"], sent["stream_options"]) == ("local-llama", {"include_usage": True})
    assert dict(action.set_headers)["content-length"] == b"%d" % len(action.body)


def test_every_answer_comes_uncompressed(bare: Bare) -> None:
    assert "accept-encoding" in routed(bare, Call(chat())).remove_headers
    assert "accept-encoding" in routed(bare, Call(chat(stream=True))).remove_headers


def test_the_desk_reads_what_the_filter_writes(bare: Bare) -> None:
    written = routed(bare, Call(chat(max_tokens=7), tenant="per-minute")).metadata

    # The budget's figures are for the client's headers, `strip_usage` for the meter.
    for_others = {"budget_policy", "budget_unit", "budget_limit", "budget_remaining"}
    for_others |= {"budget_reset", "budget_window", "strip_usage"}
    assert written.keys() - for_others <= set(Noted.__struct_fields__)
