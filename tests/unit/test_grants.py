"""extproc/policy/grants.py, and what the rulebook makes of grants."""

import msgspec

from extproc.config.loader import load_file
from extproc.policy.budgets import MICRO_USD_PER_USD
from extproc.policy.grants import Grant, raised
from extproc.server.rulebook import Rulebook
from tests.scenarios.table import SETTINGS

LOADED = load_file(SETTINGS)
TENANTS = LOADED.settings.tenants


def grant(tenant: str, budget: str, amount: int, *, name: str = "g") -> Grant:
    return Grant(
        id=name,
        tenant=tenant,
        budget=budget,
        amount=amount,
        until=100.0,
        reason="exam",
        by="token",
        at=0.0,
    )


def limit_of(rulebook: Rulebook, tenant: str) -> int:
    return rulebook.rules.policy.tenants[tenant].budgets[0].limit_units


def test_grants_add_up_and_touch_nothing_else() -> None:
    found = raised(TENANTS, [grant("rich", "minute", 5), grant("rich", "minute", 7, name="h")])

    assert found["rich"].budgets[0].limit_units == TENANTS["rich"].budgets[0].limit_units + 12
    assert found["rich"].budgets[1] == TENANTS["rich"].budgets[1]
    assert all(found[name] is TENANTS[name] for name in TENANTS if name != "rich")


def test_an_amount_of_dollars_is_in_millionths() -> None:
    found = raised(TENANTS, [grant("broke", "month", 1)])

    assert found["broke"].budgets[0].limit_units == MICRO_USD_PER_USD // 100 + 1


def test_grants_of_what_the_settings_do_not_know_add_nothing() -> None:
    assert raised(TENANTS, [grant("nobody", "day", 5)]) is TENANTS
    assert raised(TENANTS, [grant("tiny", "night", 5)])["tiny"] == TENANTS["tiny"]


def test_a_suspended_tenant_stays_suspended() -> None:
    found = raised(TENANTS, [grant("suspended", "day", 5)])

    assert found["suspended"].budgets[0].is_suspension


def test_a_grant_counts_until_its_end() -> None:
    one = grant("tiny", "day", 5)

    assert one.counts(99.9)
    assert not one.counts(100.0)


def test_grants_outlive_what_is_learnt_and_a_reload() -> None:
    rulebook = Rulebook(LOADED)
    rulebook.grant((grant("tiny", "day", 5),))
    before = rulebook.rules.policy.tenants

    rulebook.learn({})
    assert rulebook.rules.policy.tenants is before  # whoever ranks tenants sees that none changed

    day = TENANTS["tiny"].budgets[0]
    tiny = msgspec.structs.replace(
        TENANTS["tiny"], budgets=(msgspec.structs.replace(day, limit=day.limit * 2),)
    )
    settings = msgspec.structs.replace(LOADED.settings, tenants={**TENANTS, "tiny": tiny})
    rulebook.take(LOADED._replace(settings=settings), 1.0)
    assert limit_of(rulebook, "tiny") == 105

    rulebook.grant(())
    assert limit_of(rulebook, "tiny") == 100


def test_without_grants_the_tenants_are_those_of_the_settings() -> None:
    assert Rulebook(LOADED).rules.policy.tenants is TENANTS
