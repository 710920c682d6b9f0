"""The scenario table on the bare exchange."""

import pytest

from extproc.exchange import actions
from tests.scenarios.harness import Bare
from tests.scenarios.table import SCENARIOS, Scenario


@pytest.fixture(scope="module")
def bare() -> Bare:
    return Bare()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(bare: Bare, scenario: Scenario) -> None:
    for call in scenario.before:
        assert isinstance(bare.send(call), actions.Route)

    action = bare.send(scenario.call)

    match action:
        case actions.PassThrough():
            assert (scenario.tier, scenario.status) == (None, 200)
            for name, value in scenario.upstream.items():
                assert (name in action.remove_headers) is (value is None)
        case actions.Route():
            headers = {name: value.decode() for name, value in action.set_headers}
            assert headers["x-llm-tier"] == scenario.tier == action.metadata["tier"]
            for name, value in scenario.upstream.items():
                assert headers.get(name) == value
                assert value is not None or name in action.remove_headers
        case actions.Reject():
            assert (action.status, action.details) == (scenario.status, f"llm_{scenario.reason}")
            assert scenario.says in action.body.decode()
        case actions.Keep() | actions.Replace():
            raise AssertionError(action)
