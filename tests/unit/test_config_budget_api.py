"""The settings of our own interface for budgets."""

from typing import Any

import pytest

from extproc.looking_after import access_of
from tests.unit.config_good import GOOD, problems_with, read, spoiled, text_of


def test_without_the_section_there_is_no_such_port() -> None:
    assert read(text_of(GOOD)).settings.budget_api is None


def test_a_section_without_a_word_is_for_this_machine_only() -> None:
    wanted = read(text_of(spoiled({"budget_api": {}}))).settings.budget_api

    assert wanted is not None
    assert wanted.address == "127.0.0.1"
    access = access_of(wanted)
    assert (access.is_loopback_trusted, access.identities, access.token_file) == (
        True,
        frozenset(),
        None,
    )


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({"loopback": False}, "$.budget_api:"),
        ({"certificate_file": "c"}, "$.budget_api.certificate_file:"),
        ({"key_file": "k"}, "$.budget_api.certificate_file:"),
        ({"client_ca_file": "c"}, "$.budget_api.client_ca_file:"),
        ({"identities": ["spiffe://x/y"]}, "$.budget_api.identities:"),
        ({"address": "127.0.0.1:5"}, "$.budget_api.address:"),
    ],
)
def test_what_does_not_go_together_is_refused(section: dict[str, Any], path: str) -> None:
    assert any(problem.startswith(path) for problem in problems_with(budget_api=section))
