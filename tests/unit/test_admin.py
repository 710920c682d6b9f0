"""extproc/admin/: what is shown of budgets, tenants, settings; everything but the sockets."""

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import structs

from extproc.admin.amounts import BUDGETS_SHOWN_MAX, BudgetShown, exhausted_in_seconds, window_text
from extproc.admin.headers import is_loopback, is_own_name
from extproc.admin.overview import Overview, Overviews, query_of
from extproc.admin.page import CONTENT_SECURITY_POLICY, PAGE
from extproc.admin.ranking import ACCOUNTS_AT_ONCE_MAX
from extproc.admin.redaction import TENANTS_SHOWN_MAX, redacted, settings_shown
from extproc.admin.views import InForce, Reload
from extproc.config.settings import LedgerSettings
from extproc.exchange.outcome import Noted
from extproc.ledger.memory import MemoryLedger
from extproc.ledger.port import Size
from extproc.policy.windows import Span, Window
from extproc.telemetry.recent import Burn
from tests.browser.fed import Fed, budget, tenant
from tests.ledger_books import NOON

MONTH = {"calendar": "month"}


def look(fed: Fed, **parameters: str) -> Overview:
    query = query_of(parameters)
    assert not isinstance(query, str), query
    return asyncio.run(Overviews(fed.views).overview(query))


def call(fed: Fed, name: str, **amounts: int) -> None:
    """Let a call of 120 tokens happen."""
    asyncio.run(fed.call(name, amounts))


def names(overview: Overview) -> list[str]:
    return [row.tenant for row in overview.tenants.rows]


def only_budget(overview: Overview) -> BudgetShown:
    ((shown,),) = (row.budgets for row in overview.tenants.rows)
    return shown


def test_a_budget_says_what_is_charged_what_is_held_and_what_is_left() -> None:
    fed = Fed({"acme": tenant(budget("minute", 1000))})
    call(fed, "acme", minute=500)
    asyncio.run(fed.hold("acme", {"minute": 300}))
    fed.clock.now += 20

    shown = only_budget(look(fed))

    assert (shown.limit, shown.committed, shown.reserved, shown.remaining) == (1000, 120, 300, 580)
    assert (shown.used_share, shown.state, shown.unit) == (0.42, "ok", "tokens")
    assert shown.window is not None
    assert (shown.window.text, shown.window.start, shown.window.end) == ("60 s", NOON, NOON + 60)
    assert shown.burn_per_minute_1 == shown.burn_per_minute_15 == 120


def test_money_is_shown_in_dollars() -> None:
    fed = Fed({"acme": tenant(budget("month", 500, "usd", window=MONTH))})
    asyncio.run(fed.hold("acme", {"month": 2_500_000}))
    call(fed, "acme", month=900_000)

    shown = only_budget(look(fed))

    assert (shown.limit, shown.reserved, shown.committed) == (500.0, 2.5, 0.0054)
    assert shown.remaining == pytest.approx(497.4946)


@pytest.mark.parametrize(
    ("limit", "held", "other", "state"),
    [
        pytest.param(1000, 799, {}, "ok", id="below four fifths"),
        pytest.param(1000, 800, {}, "warn", id="from four fifths on"),
        pytest.param(1000, 500, {"warn_at": [0.5, 0.9]}, "warn", id="the first of its own shares"),
        pytest.param(1000, 1000, {}, "exhausted", id="nothing left"),
        pytest.param(1000, 1200, {}, "exhausted", id="more than the limit was used"),
        pytest.param(0, 0, {}, "suspended", id="a limit of nothing"),
        pytest.param(0, 0, {"models": ["gpt-4"]}, "suspended", id="of some models"),
    ],
)
def test_the_state_of_a_budget(limit: int, held: int, other: Any, state: str) -> None:
    fed = Fed({"acme": tenant(budget("minute", limit, **other))})
    if held:
        asyncio.run(fed.hold("acme", {"minute": held}))

    overview = look(fed)

    assert only_budget(overview).state == state
    is_all = state != "suspended" or not other
    assert overview.tenants.rows[0].state == (state if is_all else "ok")
    assert overview.tenants.states[state if is_all else "ok"] == 1


@pytest.mark.parametrize(
    ("remaining", "burn", "span", "seconds"),
    [
        pytest.param(50, Burn(100, 1), Span(0, 60), 30, id="a short window burns by the minute"),
        pytest.param(50, Burn(1, 100), Span(0, 86400), 30, id="a long one by the quarter hour"),
        pytest.param(50, Burn(50, 50), Span(0, 60), None, id="it lasts until the window ends"),
        pytest.param(50, Burn(0, 0), Span(0, 60), None, id="nobody uses it"),
        pytest.param(-5, Burn(9, 9), Span(0, 60), 0, id="it is gone"),
        pytest.param(50, Burn(9, 9), None, None, id="there is no window to outlive"),
    ],
)
def test_when_a_budget_will_be_gone(
    remaining: int, burn: Burn, span: Span | None, seconds: float | None
) -> None:
    assert exhausted_in_seconds(remaining, burn, span, 0.0) == seconds


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (None, ""),
        (Window(seconds=90), "90 s"),
        (Window(calendar="day"), "day"),
        (Window(calendar="month", timezone="Asia/Shanghai"), "month, Asia/Shanghai"),
    ],
)
def test_a_window_is_named_as_in_the_settings(window: Window | None, text: str) -> None:
    assert window_text(window) == text


def test_a_tenant_with_very_many_budgets_shows_the_first_of_them() -> None:
    fed = Fed({"acme": tenant(*[budget(f"b{n}", 10) for n in range(BUDGETS_SHOWN_MAX + 3)])})

    (row,) = look(fed).tenants.rows

    assert (len(row.budgets), row.budgets_left_out) == (BUDGETS_SHOWN_MAX, 3)


def many() -> Fed:
    fed = Fed({f"t{n}": tenant(budget("minute", 1000)) for n in range(9)})
    for name, amount in (("t3", 1000), ("t5", 900), ("t1", 400)):
        asyncio.run(fed.hold(name, {"minute": amount}))
    return fed


class Crowded(MemoryLedger):
    """A ledger with so many accounts that they can't be added up in one go."""

    @property
    def size(self) -> Size:
        return super().size._replace(accounts=ACCOUNTS_AT_ONCE_MAX + 1)


@pytest.mark.parametrize("kind", [MemoryLedger, Crowded])
def test_those_who_have_used_most_come_first(kind: type[MemoryLedger]) -> None:
    fed = many()
    fed.ledger.__class__ = kind

    overview = look(fed)

    assert names(overview) == ["t3", "t5", "t1", "t0", "t2", "t4", "t6", "t7", "t8"]
    assert overview.tenants.states == {"ok": 7, "warn": 1, "exhausted": 1, "suspended": 0}


def test_an_account_of_a_tenant_that_the_settings_forgot_is_not_shown() -> None:
    fed = many()
    fed.rulebook.rules = structs.replace(
        fed.rulebook.rules,
        policy=fed.rulebook.rules.policy._replace(tenants={"t1": tenant(budget("day", 9))}),
    )

    assert names(look(fed)) == ["t1"]


def test_tenants_come_page_by_page() -> None:
    fed = many()

    first = look(fed, limit="4", sort="name")
    second = look(fed, limit="4", sort="name", cursor=str(first.tenants.next))
    third = look(fed, limit="4", sort="name", cursor=str(second.tenants.next))

    assert names(first) + names(second) + names(third) == [f"t{n}" for n in range(9)]
    assert (third.tenants.next, third.tenants.total) == (None, 9)
    assert names(look(fed, cursor="99")) == []


def test_a_part_of_the_name_is_enough_to_find_a_tenant() -> None:
    fed = Fed({"Acme/Research": tenant(), "acme": tenant(), "initech": tenant()})

    assert names(look(fed, tenant="ACME")) == ["Acme/Research", "acme"]
    assert names(look(fed, tenant="research")) == ["Acme/Research"]


def test_tenants_can_be_asked_for_by_state() -> None:
    fed = many()

    assert names(look(fed, state="exhausted")) == ["t3"]
    assert look(fed, state="ok").tenants.matching == 7
    assert look(fed, state="suspended").tenants.rows == []


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ({"limit": "0"}, "$.limit"),
        ({"limit": "501"}, "$.limit"),
        ({"limit": "many"}, "$.limit"),
        ({"cursor": "-1"}, "$.cursor"),
        ({"sort": "size"}, "$.sort"),
        ({"state": "dead"}, "$.state"),
        ({"tenant": "x" * 257}, "$.tenant"),
        ({"tennant": "x"}, "tennant"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(parameters: dict[str, str], part: str) -> None:
    told = query_of(parameters)

    assert isinstance(told, str)
    assert part in told


def test_the_ranking_is_made_anew_when_the_settings_change() -> None:
    fed = many()

    async def twice() -> tuple[Overview, Overview]:
        overviews = Overviews(fed.views)
        query = query_of({})
        assert not isinstance(query, str)
        before = await overviews.overview(query)
        policy = fed.rulebook.rules.policy._replace(tenants={"new": tenant()})
        fed.rulebook.rules = structs.replace(fed.rulebook.rules, policy=policy)
        return before, await overviews.overview(query)

    before, after = asyncio.run(twice())

    assert before.tenants.total == 9
    assert names(after) == ["new"]


def test_models_and_tiers_are_there_before_anybody_uses_them() -> None:
    overview = look(Fed())

    assert [model["model"] for model in overview.models] == [
        "gpt-4",
        "gpt-3.5-turbo",
        "claude-sonnet",
        "local-llama",
    ]
    assert [tier["tier"] for tier in overview.tiers] == ["premium", "long", "standard", "default"]
    assert (overview.hops, overview.news, overview.refusals) == ([], [], {})


def test_everything_that_happened_is_there_as_plain_json() -> None:
    fed = Fed({"acme": tenant(budget("minute", 1000))})
    asyncio.run(fed.call("acme", {"minute": 500}, downgraded_from="long", reason="no room"))
    asyncio.run(fed.record(Noted(outcome="refused", reason="rate_limited"), status=429))
    asyncio.run(fed.record(Noted(), cluster="retrieval", seconds=2))
    fed.not_ready = "the ledger is opening"

    told = msgspec.json.decode(msgspec.json.encode(look(fed)))

    assert told["models"][0]["first_token_seconds"].keys() == {"now", "median", "p95"}
    assert told["models"][0]["stream_tokens_per_second"].keys() == {"now", "median", "p5"}
    assert {hop["cluster"]: hop["is_model"] for hop in told["hops"]} == {
        "gpt4-adapter": True,
        "retrieval": False,
    }
    assert told["tiers"][1] == {
        "tier": "long",
        "requests": 0,
        "downgraded": 1,
        "model": "claude-sonnet",
    }
    assert [one["kind"] for one in told["news"]] == ["refused", "downgraded"]
    assert told["refusals"] == {"rate_limited": 1}
    assert told["not_ready"] == "the ledger is opening"
    assert told["ledger"] == {
        "problem": "",
        "without_store": {},
        "reservations_held": 0,
        "reservations_expired": 0,
        "accounts": 1,
    }


def test_the_last_reload_is_told_with_its_problems() -> None:
    fed = Fed()
    assert look(fed).settings.last_reload is None

    fed.last_reload = Reload(NOON + 5, ("$.tiers: expected an object",))

    assert look(fed).settings.last_reload == {
        "at": NOON + 5,
        "is_in_force": False,
        "problems": ("$.tiers: expected an object",),
    }


def test_settings_that_wait_for_a_restart_are_told() -> None:
    fed = Fed()
    assert look(fed).settings.needs_restart == ()

    fed.needs_restart = ("$.listen.port",)

    assert look(fed).settings.needs_restart == ("$.listen.port",)
    in_force = InForce(fed.loaded.settings, NOON, None, fed.needs_restart)
    assert settings_shown(in_force).needs_restart == ("$.listen.port",)


def test_settings_are_shown_without_what_lets_somebody_in() -> None:
    fed = Fed()
    key_hash = next(iter(fed.loaded.keys))
    url = "redis://user:hunter2@valkey:6379/0?password=hunter2"
    settings = msgspec.structs.replace(
        fed.loaded.settings,
        ledger=LedgerSettings(kind="valkey", url=url, path=f"/keys/{key_hash}"),
    )

    shown = settings_shown(InForce(settings, NOON))
    text = msgspec.json.encode(shown).decode()

    assert "hunter2" not in text
    assert key_hash not in text
    assert shown.settings["ledger"]["url"] == "redis://…@valkey:6379/0?…"
    assert "^spiffe://[^/]+/ns/(?P<tenant>[^/]+)/" in str(shown.settings["identity"])
    assert shown.settings["tenants"]["acme"]["budgets"][1]["limit"] == 500


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"password": "hunter2"}, {"password": "…"}),
        ({"a": [{"client_secret": "hunter2"}]}, {"a": [{"client_secret": "…"}]}),
        ({"to": "http://[::1"}, {"to": "…"}),
        ({"n": 5, "on": True, "none": None}, {"n": 5, "on": True, "none": None}),
        ({"to": "http://otel:4317/v1"}, {"to": "http://otel:4317/v1"}),
    ],
)
def test_secrets_are_hidden_wherever_they_stand(given: Any, told: Any) -> None:
    assert redacted(given) == told


def test_of_very_many_tenants_the_settings_show_some_and_say_so() -> None:
    fed = Fed({f"t{n:04d}": tenant() for n in range(TENANTS_SHOWN_MAX + 50)})
    in_force = InForce(fed.loaded.settings, NOON)

    everyone = settings_shown(in_force)
    some = settings_shown(in_force, tenant="T024")

    assert len(everyone.settings["tenants"]) == TENANTS_SHOWN_MAX
    assert (everyone.tenants_total, everyone.tenants_left_out) == (250, 50)
    assert list(some.settings["tenants"]) == [f"t024{n}" for n in range(10)]


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("localhost", True),
        ("localhost:9090", True),
        ("LOCALHOST", True),
        ("admin.localhost:9090", True),
        ("127.0.0.1", True),
        ("127.0.0.1:9090", True),
        ("[::1]:9090", True),
        ("[::1]", True),
        ("10.1.2.3:9090", True),
        ("evil.example", False),
        ("evil.example:9090", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evillocalhost", False),
        ("", False),
    ],
)
def test_a_foreign_name_is_told_from_our_own(host: str, *, is_own: bool) -> None:
    assert is_own_name(host) is is_own


@pytest.mark.parametrize(
    ("address", "is_local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("pod", False)],  # noqa: S104  # an example
)
def test_an_address_that_only_this_machine_reaches(address: str, *, is_local: bool) -> None:
    assert is_loopback(address) is is_local


def test_the_page_holds_all_of_itself_and_its_policy_nothing_else() -> None:
    assert "/*style*/" not in PAGE
    assert "/*script*/" not in PAGE
    assert "</script>" not in PAGE.rpartition("</script>")[0].partition("<script>")[2]
    assert "http://" not in PAGE.replace("http://www.w3.org/2000/svg", "")
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert " style=" not in PAGE
    assert "innerHTML" not in PAGE
    assert " onclick" not in PAGE
