"""extproc/config/loader.py and keys.py"""

from decimal import Decimal
from pathlib import Path

import pytest

from extproc.config.document import SETTINGS_BYTES_MAX
from extproc.config.loader import ConfigError, load_file
from tests.unit.config_good import FILES, GONE, GOOD, HASH, problems_in, read, spoiled, text_of

ROOT = Path(__file__).parents[2]


def lines_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load_file(path)
    return str(refused.value).splitlines()


def test_a_sound_file_becomes_settings_and_keys() -> None:
    loaded = read(text_of(GOOD))

    assert loaded.settings.tiers["premium"].model == "large"
    assert loaded.settings.tenants["acme"].budgets[1].limit == Decimal("0.1")
    assert loaded.settings.models["large"].usd_per_million.cached_input == Decimal("0.1")
    assert loaded.settings.plans["tin"][0].when is not None
    assert loaded.keys == {HASH: "acme"}


def test_the_shipped_example_is_sound() -> None:
    loaded = load_file(ROOT / "examples" / "policy.yaml")

    assert set(loaded.keys.values()) == {"acme", "initech"}


def test_what_may_be_left_out_has_its_default() -> None:
    raw = {name: GOOD[name] for name in ("version", "models", "tiers", "plans", "tenants")}
    loaded = read(text_of(raw | {"identity": [{"header": "x-tenant-id"}]}))

    assert loaded.settings.listen.port == 50051
    assert loaded.settings.unknown_tenant == "reject"
    assert loaded.settings.unknown_model == "count_only"
    assert loaded.settings.ledger.kind == "sqlite"
    assert loaded.settings.meter == "lua"
    assert loaded.settings.admin.address == "127.0.0.1"
    assert loaded.keys == {}


def test_ten_mistakes_of_all_kinds_are_ten_lines() -> None:
    raw = spoiled(
        {
            "listen/port": "http",
            "identity/1/spiffe": "^spiffe://(",
            "models/large/scal": 2,
            "models/small/encoding": "llama4",
            "tiers/premium/model": "larg",
            "plans/tin/1/when": {"stream": True},
            "tenants/acme/budgets/0/window": GONE,
            "tenants/acme/budgets/1/window/timezone": "Asia/Shangai",
            "tenants/initech/plan": 7,
            "ledger/url": "redis://x",
        }
    )

    assert problems_in(text_of(raw)) == [
        (
            "$.listen.port: expected a whole number from 0 to 65535, got the text "
            '"http"; write plain digits, without quotes'
        ),
        (
            '$.models.large.scal: unknown key; there is "encoding", "context_tokens", '
            '"output_tokens_max", "output_tokens_expected", "scale", "served_by", "usd_per_million"'
        ),
        (
            '$.models.small.encoding: expected one of "cl100k_base", "llama3", "o200k_base", '
            '"o200k_harmony", "qwen3", got the text "llama4"; did you mean "llama3"?'
        ),
        "$.tenants.initech.plan: expected text, got 7; put it in quotes",
        '$.tiers.premium.model: no model named "larg"; did you mean "large"?',
        (
            "$.tenants.acme.budgets[0].window: missing; expected {seconds: 60} or "
            '{calendar: month, timezone: "UTC"}, say'
        ),
        (
            '$.tenants.acme.budgets[1].window.timezone: no time zone named "Asia/Shangai"; '
            'did you mean "Asia/Shanghai"?'
        ),
        (
            "$.identity[1].spiffe: no regular expression: missing ), unterminated subpattern "
            "at position 10"
        ),
        (
            "$.plans.tin[1].when: the last rule must apply to all that is left: add a rule "
            "without `when`"
        ),
        '$.ledger.url: says something of a server; that needs kind "valkey"',
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"models": []},
            ["$.models: expected a mapping, got a list"],
            id="names are not missed where their whole section is wrong",
        ),
        pytest.param(
            {"models/small/output_tokens_max": "9"},
            [
                (
                    "$.models.small.output_tokens_max: expected a whole number from 1 to"
                    ' 1099511627776, got the text "9"; write plain digits, without quotes'
                )
            ],
            id="a wrong amount is not compared",
        ),
        pytest.param(
            {
                "tenants/acme/budgets/0/window": GONE,
                "tenants/acme/budgets/0/windw": {"seconds": 60},
            },
            ['$.tenants.acme.budgets[0].windw: unknown key; did you mean "window"?'],
            id="a setting with a typo is not missed as well",
        ),
        pytest.param(
            {"tenants/acme/plan": GONE, "tenants/acme/plans": "gold"},
            ['$.tenants.acme.plans: unknown key; did you mean "plan"?'],
            id="nor is one that must be given",
        ),
        pytest.param(
            {"identity/0": {"jwt_clam": "tenant"}},
            ['$.identity[0].jwt_clam: unknown key; did you mean "jwt_claim"?'],
            id="nor does its section say nothing",
        ),
        pytest.param(
            {"identity/0": {"cookie": "tenant"}},
            [
                (
                    "$.identity[0].cookie: unknown key; there is "
                    '"jwt_claim", "spiffe", "api_key", "header"'
                )
            ],
            id="even where nobody can tell what it was meant to be",
        ),
        pytest.param(
            {"tiers/Gold": {"model": "large"}, "plans/gold/0/tier": "gone"},
            [
                (
                    "$.tiers.Gold: as a key, expected a name of up to 63 of a-z, 0-9, _ and -,"
                    " beginning with a-z or 0-9"
                )
            ],
            id="names are not missed where one of them can't be read",
        ),
    ],
)
def test_what_follows_from_a_mistake_is_not_another(
    changes: dict[str, object], expected: list[str]
) -> None:
    assert problems_in(text_of(spoiled(changes))) == expected


def test_a_tag_and_what_it_makes_of_the_value_are_one_problem() -> None:
    text = text_of(GOOD).replace("version: 1", "version: !!str 1")

    assert problems_in(text) == ["$.version: line 1: tags are not taken; leave it out"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param(f"{HASH.upper()}: acme", [], id="capitals are taken"),
        pytest.param("{}", [], id="there may be no keys yet"),
        pytest.param(
            f"{HASH}: acmee",
            ['keys.yaml, line 1: no such tenant; did you mean "acme"?'],
            id="a tenant that does not exist is refused",
        ),
        pytest.param(
            f"{HASH}: acme\nsk-live-secret: acme",
            ["keys.yaml, line 2: expected a SHA-256, 64 hexadecimal digits, got 14 characters"],
            id="a key in place of its hash is refused",
        ),
        pytest.param(
            f"{HASH}: acme\n{HASH}: initech",
            ["keys.yaml, line 2: given twice, on lines 1 and 2"],
            id="a hash given twice is refused",
        ),
        pytest.param(
            f"{HASH}: acme\n{HASH.upper()}: acme",
            ["keys.yaml, line 2: this hash is given above in other letters"],
            id="and in other letters too",
        ),
        pytest.param(
            f"{HASH}: [acme]",
            ["keys.yaml, line 1: expected the name of a tenant in quotes"],
            id="a tenant is text",
        ),
        pytest.param(
            f"{'1' * 64}: acme",
            ["keys.yaml: line 1: a key must be text; quote it"],
            id="a hash of digits only must be quoted",
        ),
        pytest.param(
            "",
            ["keys.yaml: expected a mapping of the SHA-256 of each key to its tenant, got nothing"],
            id="an empty file is refused",
        ),
        pytest.param(
            "sk-live-secret",
            ["keys.yaml: expected a mapping of the SHA-256 of each key to its tenant, got text"],
            id="a bare key is not repeated",
        ),
        pytest.param(
            "a: [",
            ["keys.yaml: line 2, column 1: did not find expected node content"],
            id="a file that is no YAML is refused with the place",
        ),
    ],
)
def test_the_file_of_keys(keys: str, expected: list[str]) -> None:
    assert problems_in(text_of(GOOD), {"keys.yaml": keys}) == expected


def test_hashes_arrive_in_lower_case() -> None:
    loaded = read(text_of(GOOD), {"keys.yaml": f"{HASH.upper()}: acme"})

    assert loaded.keys == {HASH: "acme"}


def test_a_missing_file_of_keys_is_one_problem_among_the_others() -> None:
    raw = spoiled({"identity/2/api_key/file": "gone.yaml", "tenants/acme/plan": "god"})

    assert problems_in(text_of(raw)) == [
        '$.tenants.acme.plan: no plan named "god"; did you mean "gold"?',
        "$.identity[2].api_key.file: can't be read: No such file or directory",
    ]


def test_tenants_of_keys_are_not_missed_where_the_tenants_are_wrong() -> None:
    raw = spoiled({"tenants": ["acme"]})

    assert problems_in(text_of(raw)) == ["$.tenants: expected a mapping, got a list"]


def test_several_sources_of_keys_share_them() -> None:
    other = {"api_key": {"header": "api-key", "file": "more.yaml"}}
    again = {"api_key": {"header": "x-api-key", "file": "keys.yaml"}}
    text = text_of(spoiled({"identity/4": other, "identity/5": again}))
    more = "f" * 64

    assert read(text, FILES | {"more.yaml": f"{more}: initech"}).keys == {
        HASH: "acme",
        more: "initech",
    }
    assert problems_in(text, FILES | {"more.yaml": f"{HASH}: initech"}) == [
        "more.yaml: gives a key that another file gives, to another tenant"
    ]


def test_the_file_of_keys_is_found_from_the_directory_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(text_of(GOOD))
    (tmp_path / "keys.yaml").write_text(FILES["keys.yaml"])

    assert load_file(tmp_path / "policy.yaml").keys == {HASH: "acme"}


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_bytes(b"\xef\xbb\xbf" + text_of(GOOD).encode())
    (tmp_path / "keys.yaml").write_bytes(b"\xef\xbb\xbf" + FILES["keys.yaml"].encode())

    assert load_file(tmp_path / "policy.yaml").keys == {HASH: "acme"}


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    assert lines_of(path) == [f"{path}: can't be read: No such file or directory"]
    assert lines_of(tmp_path) == [f"{tmp_path}: can't be read: Is a directory"]

    path.write_bytes(b"version: 1\nlisten: \xff\n")
    assert lines_of(path) == [f"{path}: line 2: not UTF-8"]

    path.write_bytes(b"#" * (SETTINGS_BYTES_MAX + 1))
    assert lines_of(path) == [f"{path}: can't be read: File too large"]
