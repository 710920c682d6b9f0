"""extproc/selftest.py: it lets good services start, and none that lets over-budget requests go."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from extproc import app
from extproc.cli import main
from extproc.config.loader import Loaded, load_file
from extproc.exchange.machine import Rules
from extproc.exits import EXIT_SELF_TEST
from extproc.ledger.memory import MemoryLedger
from extproc.ledger.port import OpenLedger
from extproc.policy.budgets import Answer, Reserve, Unavailable
from extproc.selftest import self_test
from extproc.selftest_envoy import SelfTestError
from extproc.server.rulebook import rules_of
from tests.scenarios.table import SETTINGS
from tests.unit.config_good import FILES, read, spoiled, text_of

COUNTER = app.counter_of(load_file(SETTINGS))


def settings(budgets: list[dict[str, Any]], **changes: object) -> Loaded:
    return read(text_of(spoiled({"tenants/acme/budgets": budgets, **changes})))


def outcome(
    loaded: Loaded, rules: Rules | None = None, ledger: type[MemoryLedger] = MemoryLedger
) -> str:
    def new_ledger() -> OpenLedger:
        return ledger(lambda: 1789041600.0, reservation_seconds=900)

    return asyncio.run(self_test(loaded.settings, rules or rules_of(loaded), COUNTER, new_ledger))


MINUTE = {"id": "minute", "limit": 60000, "unit": "tokens", "window": {"seconds": 60}}
MONEY = {"id": "month", "limit": 9, "unit": "usd", "window": {"calendar": "month"}}
SLOTS = {"id": "slots", "limit": 2, "unit": "concurrent_requests"}
CALLS = {"id": "calls", "limit": 5, "unit": "requests", "window": {"calendar": "day"}}
MOVABLE = MINUTE | {"on_exhausted": "downgrade", "tiers": ["premium"]}


def test_the_settings_of_the_scenarios_pass() -> None:
    assert "kinds of tenants are refused" in outcome(load_file(SETTINGS))


@pytest.mark.parametrize(
    "budget",
    [MINUTE, MONEY, SLOTS, CALLS, MOVABLE, MINUTE | {"models": ["large"]}, MINUTE | {"limit": 0}],
    ids=["tokens", "money", "slots", "requests", "downgrade", "one model", "suspended"],
)
def test_each_kind_of_budget_is_used_up_and_seen_to_hold(budget: dict[str, Any]) -> None:
    assert outcome(settings([budget])).startswith("1 kinds of tenants are refused or downgraded")


@pytest.mark.parametrize(
    "source",
    [
        {"jwt_claim": "org.tenant"},
        {"spiffe": "^spiffe://[^/]+/ns/(?P<tenant>[^/]+)/"},
        {"api_key": {"header": "authorization", "scheme": "Bearer", "file": "keys.yaml"}},
        {"api_key": {"header": "x-api-key", "file": "keys.yaml"}},
        {"header": "x-tenant-id"},
    ],
    ids=["a claim", "a certificate", "a bearer's key", "a key", "a header"],
)
def test_tenants_are_introduced_by_whatever_the_settings_go_by(source: dict[str, Any]) -> None:
    assert outcome(settings([MINUTE], identity=[source])).startswith("1 kinds")


@pytest.mark.parametrize(
    "budgets", [[], [MONEY | {"models": ["small"]}]], ids=["none", "of a model that costs nothing"]
)
def test_it_says_so_where_nothing_is_limited(budgets: list[dict[str, Any]]) -> None:
    told = outcome(settings(budgets))

    assert told.startswith("of 1 kinds of tenants none takes" if budgets else "no tenant has a")


RESERVE = MemoryLedger.reserve


class Generous(MemoryLedger):
    """Has room for whatever is asked."""

    async def reserve(self, ask: Reserve) -> Answer:
        claims = tuple(claim._replace(limit=10**9) for claim in ask.claims)
        return await RESERVE(self, ask._replace(claims=claims))


class Away(MemoryLedger):
    """Can't tell."""

    async def reserve(self, _: Reserve) -> Answer:
        return Unavailable("away")


def failure(loaded: Loaded, rules: Rules | None = None, **more: Any) -> str:
    with pytest.raises(SelfTestError) as failed:
        outcome(loaded, rules, **more)
    return str(failed.value)


@pytest.mark.parametrize("budget", [MINUTE, MOVABLE], ids=["refuse", "downgrade"])
def test_a_ledger_that_has_room_for_all_is_noticed(budget: dict[str, Any]) -> None:
    assert "'acme' has used up its budgets, and its request was let go to tier 'premium'" in (
        failure(settings([budget]), ledger=Generous)
    )


def test_a_ledger_that_cannot_tell_is_noticed() -> None:
    assert "'acme' has all its budgets left, and its request was refused with ledger_unavail" in (
        failure(settings([MINUTE]), ledger=Away)
    )


def test_a_downgrade_where_a_refusal_is_due_is_noticed() -> None:
    rules = rules_of(settings([MOVABLE]))

    assert "let go to tier 'default'" in failure(
        settings([MOVABLE | {"on_exhausted": "refuse"}]), rules
    )


def test_rules_that_forgot_a_budget_are_noticed() -> None:
    rules = rules_of(settings([MINUTE]))

    assert "'acme' took nothing of budget 'calls'" in failure(settings([MINUTE, CALLS]), rules)


def test_rules_that_forgot_a_suspension_are_noticed() -> None:
    rules = rules_of(settings([MINUTE]))

    assert "'acme' is suspended" in failure(settings([MINUTE | {"limit": 0}]), rules)


def test_rules_that_let_strangers_in_are_noticed() -> None:
    rules = rules_of(settings([], unknown_tenant="initech"))

    assert "'nobody' is no tenant" in failure(settings([]), rules)


def test_a_service_that_breaks_is_noticed() -> None:
    rules = rules_of(settings([MINUTE]))
    broken = structs.replace(rules, policy=rules.policy._replace(tiers={}))

    assert failure(settings([MINUTE]), broken) == (
        "self-test failed: a request ended with status 13: internal error"
    )


def test_time_stands_still_for_budgets_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """With each look at the clock more than their window is over."""
    monkeypatch.setattr(app, "clock", itertools.count(1789041600.5, 1.25).__next__)
    second = CALLS | {"limit": 1, "window": {"seconds": 1}}
    loaded = settings([second], ledger={"kind": "memory"}, telemetry={"audit": "off"})

    async def run() -> None:
        async with app.assembled(loaded) as service:
            await app.see_refusals(service)

    asyncio.run(run())


def test_serve_ends_with_a_code_of_its_own_and_is_never_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(MemoryLedger, "reserve", Generous.reserve)
    path = tmp_path / "settings.yaml"
    path.write_text(text_of(spoiled({"listen/port": 0, "admin": {"port": 0}})))
    (tmp_path / "keys.yaml").write_text(FILES["keys.yaml"])

    assert main(["serve", "--settings", str(path)]) == EXIT_SELF_TEST

    told = capsys.readouterr()
    assert told.err.splitlines()[-1].startswith("self-test failed: 'acme' has used up its budgets")
    assert "listening" not in told.out
