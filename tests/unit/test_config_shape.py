"""extproc/config/shape.py, expected.py and problems.py: one wrong value, one line"""

from typing import Any

import pytest

from extproc.config.problems import ConfigError, Problem, did_you_mean, meant, path_text, quoted
from extproc.config.shape import shape_of
from tests.unit.config_good import GONE, GOOD, HASH, problems_in, read, spoiled, text_of

LIMIT = "tenants/acme/budgets/0/limit"
LIMIT_EXPECTED = "$.tenants.acme.budgets[0].limit: expected a number from 0 to 1000000000000000"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("version", 2, "$.version: expected 1, got 2"),
        ("version", True, "$.version: expected 1, got true"),
        ("version", GONE, "$.version: missing; expected 1"),
        ("identity", GONE, "$.identity: missing; expected a list"),
        ("identity", {}, "$.identity: expected a list, got a mapping"),
        ("listen/port", 65536, "$.listen.port: expected a whole number from 0 to 65535, got 65536"),
        ("listen/port", -1, "$.listen.port: expected a whole number from 0 to 65535, got -1"),
        ("listen/port", 80.5, "$.listen.port: expected a whole number from 0 to 65535, got 80.5"),
        ("listen/port", True, "$.listen.port: expected a whole number from 0 to 65535, got true"),
        (
            "listen/port",
            None,
            "$.listen.port: expected a whole number from 0 to 65535, got nothing",
        ),
        ("listen/address", 5, "$.listen.address: expected text, got 5; put it in quotes"),
        ("rewrite_model", "yes", '$.rewrite_model: expected true or false, got the text "yes"'),
        ("rewrite_model", 1, "$.rewrite_model: expected true or false, got 1"),
        (
            "unknown_tenant",
            "",
            '$.unknown_tenant: expected text of 1 to 256 characters, got the text ""',
        ),
        (
            "models/small/scale",
            0,
            "$.models.small.scale: expected a number above 0, up to 10, got 0",
        ),
        (
            "models/small/scale",
            float("nan"),
            "$.models.small.scale: expected a number above 0, up to 10, got NaN",
        ),
        (
            "models/small/scale",
            10.01,
            "$.models.small.scale: expected a number above 0, up to 10, got 10.01",
        ),
        (
            "complexity/turns",
            {"weight": 1.5, "full_at": 1},
            "$.complexity.turns.weight: expected a number from 0 to 1, got 1.5",
        ),
        (
            "complexity/turns",
            {"weight": 1},
            "$.complexity.turns.full_at: missing; expected a number above 0, up to 1000000000000",
        ),
        (
            "tenants/acme/budgets/1/warn_at/0",
            0,
            (
                "$.tenants.acme.budgets[1].warn_at[0]: expected a number between 0 and 1,"
                " neither of them, got 0"
            ),
        ),
        (
            "tenants/acme/budgets/1/warn_at/1",
            1,
            (
                "$.tenants.acme.budgets[1].warn_at[1]: expected a number between 0 and 1,"
                " neither of them, got 1"
            ),
        ),
        (
            "plans/tin/0/when/prompt_tokens_above",
            -5,
            "$.plans.tin[0].when.prompt_tokens_above: expected a whole number from 0, got -5",
        ),
        (
            "plans/tin/0/when/headers/x-team",
            5,
            "$.plans.tin[0].when.headers.x-team: expected text, got 5; put it in quotes",
        ),
        (
            "tenants/acme/budgets/0/unit",
            "token",
            (
                '$.tenants.acme.budgets[0].unit: expected one of "concurrent_requests", "requests",'
                ' "tokens", "usd", got the text "token"; did you mean "tokens"?'
            ),
        ),
        (
            "identity/3/header",
            "X-Tenant-Id",
            (
                "$.identity[3].header: expected the name of a header, in lower case,"
                ' got the text "X-Tenant-Id"'
            ),
        ),
        (
            "tenants/acme/plan",
            "gold\n",
            (
                '$.tenants.acme.plan: expected text, got the text "gold\\n";'
                " line ends, tabs and other invisible characters are not taken"
            ),
        ),
        ("models/small", "sk-secret", "$.models.small: expected a mapping, got text"),
        ("tenants/acme/budgets", "minute", "$.tenants.acme.budgets: expected a list, got text"),
        ("tenants/acme/budgets/0", [], "$.tenants.acme.budgets[0]: expected a mapping, got a list"),
        (
            "identity/3/header",
            "x" * 129,
            (
                "$.identity[3].header: expected the name of a header,"
                ' in lower case, got the text "xxxxxxxx…"'
            ),
        ),
        (LIMIT, float("inf"), f"{LIMIT_EXPECTED}, got Infinity"),
        (LIMIT, -0.5, f"{LIMIT_EXPECTED}, got -0.5"),
        (LIMIT, 10**15 + 1, f"{LIMIT_EXPECTED}, got 1000000000000001"),
        (LIMIT, 10**40, f"{LIMIT_EXPECTED}, got {10**31}…"),
        (
            LIMIT,
            "60000",
            f'{LIMIT_EXPECTED}, got the text "60000"; write plain digits, without quotes',
        ),
        (
            "pots",
            1,
            (
                '$.pots: unknown key; there is "version", "listen", "admin", "identity",'
                ' "unknown_tenant", "unknown_model", "models", "tiers", "plans", "tenants",'
                ' "complexity", "ledger", "rewrite_model", "meter", "telemetry",'
                ' "limits", "budget_api"'
            ),
        ),
        (
            "limits/tenant",
            1,
            (
                '$.limits.tenant: unknown key; there is "request_body_bytes",'
                ' "prompt_exact_bytes", "tenants"'
            ),
        ),
        (
            "ledger/reservation_second",
            1,
            (
                '$.ledger.reservation_second: unknown key; there is "kind",'
                ' "reservation_seconds", "path", "url", "password_file", "replicas", "cluster",'
                ' "when_unavailable"'
            ),
        ),
    ],
)
def test_a_wrong_value_is_one_line(path: str, value: object, expected: str) -> None:
    assert problems_in(text_of(spoiled({path: value}))) == [expected]


@pytest.mark.parametrize(
    "number", ["1e999999999", "0e-999999999", "1e-26", "9" * 26, "." + "1" * 30]
)
@pytest.mark.parametrize("place", ["60000", "4000", "0.7", "100"])
def test_numbers_that_cannot_be_calculated_with_are_refused(number: str, place: str) -> None:
    text = text_of(GOOD).replace(f": {place}\n", f": {number}\n", 1)

    (problem,) = problems_in(text)
    assert "expected a" in problem


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("limits/tenants", "1e2"),
        ("limits/tenants", "100.0"),
        ("models/small/context_tokens", "8.192e3"),
        ("version", "1.0"),
    ],
)
def test_a_whole_number_may_be_written_with_a_point(path: str, written: str) -> None:
    text = text_of(spoiled({path: "HERE"})).replace("HERE", written)

    assert problems_in(text) == []


@pytest.mark.parametrize("raw", [None, [], "text", 5, True])
def test_settings_are_a_mapping(raw: object) -> None:
    (problem,) = problems_in(text_of(raw))

    assert problem.startswith("$: expected a mapping, got ")


def test_null_leaves_a_setting_out_where_it_may_be() -> None:
    raw = spoiled({"telemetry/spans": None, "ledger/url": None, "tiers/default/downgrade_to": None})

    assert read(text_of(raw)).settings.tiers["default"].downgrade_to is None


def test_a_type_that_nobody_taught_is_a_bug() -> None:
    with pytest.raises(TypeError, match="teach `expected`"):
        shape_of(bytes, "x")


@pytest.mark.parametrize(
    ("steps", "path"),
    [
        ((), "$"),
        (("tenants", "acme", "budgets", 0), "$.tenants.acme.budgets[0]"),
        (("models", "gpt-3.5-turbo"), '$.models["gpt-3.5-turbo"]'),
        (("tenants", "7"), '$.tenants["7"]'),
        (("tenants", 'a"b'), '$.tenants["a\\"b"]'),
        (("tenants", HASH), '$.tenants["01234567…"]'),
    ],
)
def test_a_path_can_be_read_back(steps: tuple[Any, ...], path: str) -> None:
    assert path_text(steps) == path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("valkey://user:secret@host:6379", '"valkey://…"'),
        (f"sha256:{HASH}", '"sha256:0…"'),
        ("x" * 81, '"xxxxxxxx…"'),
        ("x" * 80, f'"{"x" * 80}"'),
        ("租户", '"租户"'),
        ("a\nb", '"a\\nb"'),
        ("a\x7f\u202eb\u00a0", '"a\\x7f\\u202eb\\xa0"'),
    ],
)
def test_what_may_be_secret_is_not_quoted_whole(text: str, shown: str) -> None:
    assert quoted(text) == shown


def test_names_are_proposed_or_listed() -> None:
    assert did_you_mean("premum", ["default", "premium"]) == "premium"
    assert did_you_mean("x", ["default", "premium"]) is None
    assert meant("x", ["a", "b"]) == 'there is "a", "b"'
    assert meant("x", []) == "there is none"
    assert meant("x", [f"t{number}" for number in range(11)]).endswith('"t9", …')
    assert meant("x", [f"t{number}" for number in range(10)]).endswith('"t9"')


def test_an_error_prints_a_line_for_each_problem() -> None:
    error = ConfigError(Problem(f"$.{name}", "wrong") for name in "ab")

    assert str(error) == "$.a: wrong\n$.b: wrong"
    assert error.problems == (Problem("$.a", "wrong"), Problem("$.b", "wrong"))
