"""extproc/config/names.py, amounts.py, rules.py and ledger_rules.py: how settings go together"""

from typing import Any, Final

import pytest

from tests.unit.config_good import GONE, GOOD, problems_in, spoiled, text_of

MINUTE: Final = {"id": "m", "limit": 1, "unit": "tokens", "window": {"seconds": 60}}
BUDGET: Final = "$.tenants.initech.budgets[0]"


def budget(**changes: object) -> dict[str, Any]:
    """A second tenant with one budget, MINUTE but for these fields."""
    fields = {name: value for name, value in (MINUTE | changes).items() if value is not GONE}
    return {"tenants/initech/budgets": [fields]}


def tiers(**downgrades: str | None) -> dict[str, Any]:
    """More tiers, named with the tier that each goes down to."""
    return {
        f"tiers/{name}": {"model": "small", "downgrade_to": to} for name, to in downgrades.items()
    }


def rules(*conditions: dict[str, Any] | None) -> dict[str, Any]:
    """A plan of one rule for each condition."""
    return {
        "plans/gold": [
            {"tier": "default"} | ({} if when is None else {"when": when}) for when in conditions
        ]
    }


NAMES: Final = [
    pytest.param(
        {"tenants/acme/plan": "god"},
        ['$.tenants.acme.plan: no plan named "god"; did you mean "gold"?'],
        id="a tenant's plan is one of the plans",
    ),
    pytest.param(
        {"plans/gold/0/tier": "xyz"},
        ['$.plans.gold[0].tier: no tier named "xyz"; there is "premium", "default"'],
        id="a rule's tier is one of the tiers",
    ),
    pytest.param(
        {"tiers/default/model": "smal"},
        ['$.tiers.default.model: no model named "smal"; did you mean "small"?'],
        id="a tier's model is one of the models",
    ),
    pytest.param(
        {"tiers/default/downgrade_to": "free"},
        ['$.tiers.default.downgrade_to: no tier named "free"; there is "premium", "default"'],
        id="a tier goes down to one of the tiers",
    ),
    pytest.param(
        {"unknown_tenant": "anybody"},
        [
            '$.unknown_tenant: no tenant named "anybody"; there is "reject", "acme", "initech"',
        ],
        id="unknown tenants are rejected or one of the tenants",
    ),
    pytest.param({"unknown_tenant": "acme"}, [], id="a tenant may stand for them"),
    pytest.param(
        {"unknown_model": "count-only"},
        ['$.unknown_model: no model named "count-only"; did you mean "count_only"?'],
        id="unknown models are counted, denied or one of the models",
    ),
    pytest.param({"unknown_model": "deny"}, [], id="unknown models may be denied"),
    pytest.param({"unknown_model": "count_only"}, [], id="or only counted"),
    pytest.param(
        {"tenants/reject": {"plan": "gold"}},
        ["$.tenants.reject: this word is taken: choose another name"],
        id="no tenant is named as a word of unknown_tenant",
    ),
    pytest.param(
        {"models/deny": GOOD["models"]["small"], "models/count_only": GOOD["models"]["small"]},
        [
            "$.models.deny: this word is taken: choose another name",
            "$.models.count_only: this word is taken: choose another name",
        ],
        id="no model is named as a word of unknown_model",
    ),
    pytest.param(
        budget(tiers=["default", "gold"]),
        [f'{BUDGET}.tiers[1]: no tier named "gold"; there is "premium", "default"'],
        id="a budget's tiers are some of the tiers",
    ),
    pytest.param(
        budget(models=["s*", "medium*"]),
        [f'{BUDGET}.models[1]: "medium*" matches no model; there is "large", "small"'],
        id="a budget's patterns take some of the models",
    ),
    pytest.param(
        tiers(a="b", b="c", c="b"),
        ["$.tiers.b.downgrade_to: leads in a circle: b -> c -> b"],
        id="a circle of tiers is shown once, without what leads into it",
    ),
    pytest.param(
        tiers(a="a", b="c", c="b"),
        [
            "$.tiers.a.downgrade_to: leads in a circle: a -> a",
            "$.tiers.b.downgrade_to: leads in a circle: b -> c -> b",
        ],
        id="every circle is shown",
    ),
    pytest.param(tiers(a="c", b="c", c="default"), [], id="two tiers may go down to one"),
    pytest.param(
        tiers(a="b", b="c") | {"tiers/c": {"model": 5, "downgrade_to": "a"}},
        [
            "$.tiers.c.model: expected text, got 5; put it in quotes",
            "$.tiers.a.downgrade_to: leads in a circle: a -> b -> c -> a",
        ],
        id="a circle is found through a tier that is wrong elsewhere",
    ),
]

AMOUNTS: Final = [
    pytest.param(
        {"models/small/output_tokens_max": 4097},
        ["$.models.small.output_tokens_max: 4097 is more than context_tokens, 4096"],
        id="an answer fits the context",
    ),
    pytest.param({"models/small/output_tokens_max": 4096}, [], id="it may fill it"),
    pytest.param(
        {"models/large/output_tokens_expected": 4097},
        ["$.models.large.output_tokens_expected: 4097 is more than output_tokens_max, 4096"],
        id="no more is expected than can be",
    ),
    pytest.param(
        {"models/large/usd_per_million/input": 1e-13},
        ["$.models.large.usd_per_million.input: a price has up to 12 decimals"],
        id="prices are finite",
    ),
    pytest.param({"models/large/usd_per_million/input": 1e-12}, [], id="but may be small"),
    pytest.param(
        {"limits/tenants": 1},
        ["$.tenants: 2 tenants; $.limits.tenants allows 1"],
        id="there are no more tenants than allowed",
    ),
    pytest.param({"limits/tenants": 2}, [], id="there may be as many as allowed"),
    pytest.param(
        {"tenants/acme/budgets/2/id": "minute"},
        ['$.tenants.acme.budgets[2].id: "minute" is the id of budgets[0]; each has its own'],
        id="a tenant's budgets have their own ids",
    ),
    pytest.param(budget(id="minute"), [], id="two tenants' budgets may share one"),
    pytest.param(
        budget(limit=0.5),
        [f"{BUDGET}.limit: expected a whole number of tokens, got 0.5"],
        id="tokens are whole",
    ),
    pytest.param(
        budget(limit=0.5, unit="requests"),
        [f"{BUDGET}.limit: expected a whole number of requests, got 0.5"],
        id="requests are whole",
    ),
    pytest.param(budget(limit=0.000001, unit="usd"), [], id="a micro-dollar can be told"),
    pytest.param(
        budget(limit=0.0000015, unit="usd"),
        [f"{BUDGET}.limit: expected up to 6 decimals (micro-dollars), got 0.0000015"],
        id="half of one cannot",
    ),
    pytest.param(budget(limit=10**9, unit="usd"), [], id="a billion dollars can be told"),
    pytest.param(
        budget(limit=10**9 + 1, unit="usd"),
        [f"{BUDGET}.limit: expected up to 1000000000 usd, got 1000000001"],
        id="no more",
    ),
    pytest.param(budget(limit=0), [], id="a limit of 0 suspends"),
    pytest.param(
        budget(models=[], tiers=[]),
        [
            f"{BUDGET}.models: empty: this budget counts nothing; leave models out to count all",
            f"{BUDGET}.tiers: empty: this budget counts nothing; leave tiers out to count all",
        ],
        id="a scope takes something",
    ),
    pytest.param(
        budget(warn_at=[0.8, 0.8]),
        [f"{BUDGET}.warn_at: each share must be above the one before it"],
        id="warnings rise",
    ),
    pytest.param(budget(warn_at=[0.1, 0.8, 0.9]), [], id="there may be many"),
    pytest.param(budget(on_exhausted="downgrade"), [], id="tokens may go down too"),
    pytest.param(
        budget(window=GONE),
        [
            (
                f"{BUDGET}.window: missing; expected {{seconds: 60}} or"
                ' {calendar: month, timezone: "UTC"}, say'
            )
        ],
        id="a budget has a window",
    ),
    pytest.param(
        budget(unit="concurrent_requests", window=GONE), [], id="but calls at one time have none"
    ),
    pytest.param(
        budget(unit="concurrent_requests"),
        [f"{BUDGET}.window: calls at one time have no window; leave it out"],
        id="and may have none",
    ),
    pytest.param(
        budget(window={}),
        [f"{BUDGET}.window: expected one of seconds and calendar"],
        id="a window is of some length",
    ),
    pytest.param(
        budget(window={"seconds": 60, "calendar": "day"}),
        [f"{BUDGET}.window: expected one of seconds and calendar"],
        id="and of one",
    ),
    pytest.param(
        budget(window={"seconds": 60, "timezone": "Europe/Berlin"}),
        [
            (
                f"{BUDGET}.window.timezone: only with calendar: windows of seconds are counted"
                " from 1970 in UTC"
            )
        ],
        id="seconds have no time zone",
    ),
    pytest.param(
        budget(window={"calendar": "day", "timezone": "Europe/Berlin"}), [], id="days have one"
    ),
    pytest.param(
        budget(window={"calendar": "day", "timezone": "Europe/Belin"}),
        [
            (
                f'{BUDGET}.window.timezone: no time zone named "Europe/Belin";'
                ' did you mean "Europe/Berlin"?'
            )
        ],
        id="it exists",
    ),
    pytest.param(
        budget(window={"calendar": "day", "timezone": "../../etc/passwd"}),
        [
            (
                f'{BUDGET}.window.timezone: no time zone named "../../etc/passwd";'
                ' expected one as in "Europe/Berlin"'
            )
        ],
        id="and is no path",
    ),
    pytest.param(
        budget(window={"calendar": "day", "timezone": ""}),
        [f'{BUDGET}.window.timezone: no time zone named ""; expected one as in "Europe/Berlin"'],
        id="nor nothing",
    ),
]

RULES: Final = [
    pytest.param(
        {"identity": []},
        [
            (
                "$.identity: empty: nobody could be told; name one of"
                ' "jwt_claim", "spiffe", "api_key", "header"'
            )
        ],
        id="somebody can be told",
    ),
    pytest.param(
        {"identity/0": {}},
        ['$.identity[0]: says nothing; expected one of "jwt_claim", "spiffe", "api_key", "header"'],
        id="a source says something",
    ),
    pytest.param(
        {"identity/0": {"header": "x-a", "jwt_claim": "a"}},
        [
            (
                '$.identity[0]: expected one source, got "jwt_claim", "header";'
                " make each its own item of the list"
            )
        ],
        id="and one thing",
    ),
    pytest.param(
        {"identity/0": {"jwt_claim": ""}},
        ["$.identity[0].jwt_claim: empty; expected the name of a claim"],
        id="a claim has a name",
    ),
    pytest.param(
        {"identity/1/spiffe": "^spiffe://(.*)"},
        ["$.identity[1].spiffe: names no tenant: it needs a group as in (?P<tenant>[^/]+)"],
        id="a pattern names the tenant",
    ),
    pytest.param(
        {"identity/1/spiffe": "(?P<tenant>.*"},
        [
            (
                "$.identity[1].spiffe: no regular expression: missing ), unterminated subpattern"
                " at position 0"
            )
        ],
        id="a pattern is a regular expression",
    ),
    pytest.param(
        {"identity/1/spiffe": "(?P<tenant>x{99999999999})"},
        ["$.identity[1].spiffe: no regular expression: the repetition number is too large"],
        id="and one that Python takes",
    ),
    pytest.param({"identity/1/spiffe": "[[](?P<tenant>.*)"}, [], id="a warning is no error"),
    pytest.param(
        {"identity/3/header": "x-llm-tier"},
        [
            (
                '$.identity[3].header: "x-llm-tier" is set by this filter and stripped'
                " from requests; take another"
            )
        ],
        id="no name is read from a header that we set",
    ),
    pytest.param(
        {"identity/2/api_key/header": "x-tenant-id"},
        [
            (
                '$.identity[2].api_key.header: "x-tenant-id" is set by this filter and stripped'
                " from requests; take another"
            )
        ],
        id="nor a key",
    ),
    pytest.param(
        {"plans/gold": []},
        ["$.plans.gold: empty; expected at least a rule such as {tier: default}"],
        id="a plan has a rule",
    ),
    pytest.param(
        rules({"stream": True}),
        [
            (
                "$.plans.gold[0].when: the last rule must apply to all that is left:"
                " add a rule without `when`"
            )
        ],
        id="its last one always applies",
    ),
    pytest.param(
        rules(None, {"stream": True}, None, None),
        [
            (
                "$.plans.gold[0]: always applies: no rule behind it is reached; give it a `when` or"
                " move it"
            ),
            (
                "$.plans.gold[2]: always applies: no rule behind it is reached; give it a `when` or"
                " move it"
            ),
        ],
        id="no other one always applies",
    ),
    pytest.param(
        rules({}), ["$.plans.gold[0].when: asks nothing; leave `when` out"], id="a `when` asks"
    ),
    pytest.param(
        rules({"strem": True}, None),
        ['$.plans.gold[0].when.strem: unknown key; did you mean "stream"?'],
        id="a `when` with a typo does not ask nothing as well",
    ),
    pytest.param(
        rules({"models": [], "paths": []}, None),
        [
            "$.plans.gold[0].when.models: empty: the rule never applies; leave it out",
            "$.plans.gold[0].when.paths: empty: the rule never applies; leave it out",
        ],
        id="patterns take something",
    ),
    pytest.param(
        rules({"headers": {"X-Team": "*"}}, None),
        ['$.plans.gold[0].when.headers.X-Team: names of headers are in lower case; write "x-team"'],
        id="headers are in lower case",
    ),
    pytest.param(
        {"listen/address": "0.0.0.0:50051"},
        ['$.listen.address: expected an address or a host name without a port; IPv6 as in "[::]"'],
        id="an address has no port",
    ),
    pytest.param({"listen/address": "[::1]"}, [], id="an address may be one of IPv6"),
    pytest.param({"listen/address": "localhost"}, [], id="or a name"),
    pytest.param({"listen/port": 0}, [], id="a port may be any that is free"),
]

TELEMETRY = [
    pytest.param(
        {"telemetry": {"spans": spans, "audit": "off"}},
        [
            (
                '$.telemetry.spans: expected a collector such as "http://collector:4317";'
                " https:// speaks TLS"
            )
        ],
        id=f"a collector at {spans!r}",
    )
    for spans in ("collector:4317", "http://collector", "grpc://collector:4317", "http://a:1/v1")
] + [
    pytest.param(
        {"telemetry": {"audit": ""}},
        ['$.telemetry.audit: empty: expected "stdout", "off" or a file'],
        id="an audit without a name",
    ),
]

NO_SERVER = (
    '$.ledger.url: expected a server such as "valkey://valkey:6379/0"; valkeys:// speaks TLS'
)
LEDGER = [
    pytest.param(
        {"ledger": {"kind": "valkey"}},
        ['$.ledger.url: missing: "valkey" needs its server'],
        id="a server that nobody names",
    ),
    pytest.param(
        {"ledger": {"kind": "valkey", "url": "valkey://a"}, "meter": "observe"},
        [
            (
                '$.meter: "observe" is for one service: with a ledger of several ("valkey"), the'
                " copy of an answer may come to one and its record to another"
            )
        ],
        id="observed by several",
    ),
    *(
        pytest.param(
            {"ledger": {"kind": "valkey", "url": url}},
            [NO_SERVER],
            id=f"no server: {url}",
        )
        for url in ("valkey", "http://a:1", "valkey://", "valkey://a b", "valkey://a:1/x")
    ),
    pytest.param(
        {
            "ledger": {
                "kind": "sqlite",
                "url": "valkey://me:secret@host",
                "password_file": "/p",
                "when_unavailable": "local_share",
            },
            "tenants/acme/when_unavailable": "deny",
        },
        [
            '$.ledger.url: says something of a server; that needs kind "valkey"',
            '$.ledger.password_file: says something of a server; that needs kind "valkey"',
            (
                '$.ledger.when_unavailable: "local_share" shares what is left of a server\'s'
                ' budgets; that needs "valkey"'
            ),
            (
                '$.tenants.acme.when_unavailable: a tenant has its own only with kind "valkey";'
                " else the ledger has one"
            ),
        ],
        id="words about a server, and none",
    ),
    *(
        pytest.param({"ledger": {"kind": "valkey", "url": url}}, [], id=url)
        for url in (
            "valkey://valkey:6379/0",
            "valkeys://me:secret@valkey.shop.svc:6379",
            "rediss://[::1]:6379",
            "unix:///run/valkey.sock",
        )
    ),
]


@pytest.mark.parametrize(("changes", "expected"), [*NAMES, *AMOUNTS, *RULES, *TELEMETRY, *LEDGER])
def test_how_settings_go_together(changes: dict[str, object], expected: list[str]) -> None:
    assert problems_in(text_of(spoiled(changes))) == expected


def test_a_part_of_the_world_is_no_time_zone() -> None:
    wrong = budget(window={"calendar": "day", "timezone": "America"})

    (problem,) = problems_in(text_of(spoiled(wrong)))
    assert problem.startswith(f'{BUDGET}.window.timezone: no time zone named "America"; ')
