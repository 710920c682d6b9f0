"""extproc/server/rulebook.py and config/lasting.py: what a reload swaps, and what it can't."""

from typing import Any

import msgspec
import pytest

from extproc.config.lasting import LASTING, kept
from extproc.config.loader import Loaded
from extproc.policy.experience import ANSWERS_MIN, Experience
from extproc.server.rulebook import Attempt, Rulebook
from tests.unit.config_good import read, spoiled, text_of


def loaded(**changes: Any) -> Loaded:
    return read(text_of(spoiled(changes)))


BEGUN = loaded().settings


def test_other_settings_come_into_force_as_one_value() -> None:
    book = Rulebook(loaded(), since=5.0)
    began_with = book.rules
    other = loaded(**{"tenants/new": {"plan": "tin"}})

    book.take(other, at=9.0, needs_restart=("$.meter",))

    assert "new" in book.rules.policy.tenants
    assert "new" not in began_with.policy.tenants
    assert (book.loaded, book.since, book.last_attempt) == (other, 9.0, Attempt(9.0))
    assert book.needs_restart == ("$.meter",)


def test_what_was_learnt_outlives_a_reload() -> None:
    known = {"large": Experience(answers=ANSWERS_MIN, prompt_ratio=2.0)}
    book = Rulebook(loaded(), known)
    corrected = book.rules.policy.models["large"]
    assert corrected != BEGUN.models["large"]

    book.take(loaded(**{"tenants/new": {"plan": "tin"}}), at=9.0)

    assert book.rules.policy.models["large"] == corrected


def test_settings_that_were_refused_change_nothing_but_what_is_told() -> None:
    book = Rulebook(loaded(), since=5.0)
    before = (book.loaded, book.rules, book.since, book.needs_restart)

    book.refuse(("$.tiers: missing",), at=9.0)

    assert (book.loaded, book.rules, book.since, book.needs_restart) == before
    assert book.last_attempt == Attempt(9.0, ("$.tiers: missing",))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("listen/address", "127.0.0.9"),
        ("listen/port", 1),
        ("admin", {"address": "127.0.0.9"}),
        ("admin", {"port": 1}),
        ("ledger/kind", "sqlite"),
        ("ledger/path", "/elsewhere"),
        ("ledger/reservation_seconds", 5),
        ("ledger/when_unavailable", "deny"),
        ("meter", "observe"),
        ("telemetry/audit", "stdout"),
        ("telemetry/spans", "http://collector:4317"),
        ("limits/request_body_bytes", 1024),
        ("limits/prompt_exact_bytes", 0),
    ],
)
def test_what_was_opened_stays_as_it_is_and_is_told(path: str, value: object) -> None:
    new = loaded(**{path: value, "tenants/new": {"plan": "tin"}}).settings

    found = kept(new, running=BEGUN, begun=BEGUN)

    inner = next(iter(value)) if isinstance(value, dict) else ""
    assert found.needs_restart == ("$." + f"{path}/{inner}".strip("/").replace("/", "."),)
    expected = loaded(**{"tenants/new": {"plan": "tin"}}).settings
    assert found.settings == expected


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("identity", [{"header": "x-other"}]),
        ("unknown_tenant", "initech"),
        ("unknown_model", "deny"),
        ("models/small/context_tokens", 2048),
        ("tiers/default/priority", 9),
        ("plans/gold", [{"tier": "default"}]),
        ("complexity", {"prompt_tokens": {"weight": 1, "full_at": 4000}}),
        ("rewrite_model", False),
        ("limits/tenants", 99),
    ],
)
def test_everything_else_changes(path: str, value: object) -> None:
    new = loaded(**{path: value}).settings

    assert kept(new, running=BEGUN, begun=BEGUN) == (new, ())
    assert new != BEGUN


def test_each_section_is_either_looked_at_above_or_lasts() -> None:
    changing = {"version", "identity", "unknown_tenant", "unknown_model", "models", "tiers"}
    changing |= {"plans", "tenants", "complexity", "rewrite_model", "limits"}
    lasting = {steps[0] for steps in LASTING}

    assert changing | lasting == set(BEGUN.__struct_fields__)


def test_what_the_command_line_said_stays_and_is_no_change() -> None:
    listen = msgspec.structs.replace(BEGUN.listen, port=0)
    running = msgspec.structs.replace(BEGUN, listen=listen)

    found = kept(BEGUN, running=running, begun=BEGUN)

    assert (found.settings.listen.port, found.needs_restart) == (0, ())
