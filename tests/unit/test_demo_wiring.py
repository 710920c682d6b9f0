"""extproc/demo/envoy.py: what is left open in `envoy.yaml` is filled in as the settings have it."""

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from extproc.demo.envoy import ADAPTERS, Wiring, bootstrap


def filters(meter: Literal["lua", "observe"]) -> list[dict[str, Any]]:
    wiring = Wiring(1, dict.fromkeys(ADAPTERS, 1), meter=meter)
    tree = yaml.safe_load(bootstrap(wiring, access_log=Path("log")))
    (chain,) = tree["static_resources"]["listeners"][0]["filter_chains"]
    found: list[dict[str, Any]] = chain["filters"][0]["typed_config"]["http_filters"]
    return found


@pytest.mark.parametrize(
    ("meter", "expected"),
    [
        ("lua", ["llm.policy", "llm.meter", "envoy.filters.http.router"]),
        ("observe", ["llm.policy", "llm.observe", "envoy.filters.http.router"]),
    ],
)
def test_there_is_one_meter_between_the_filter_and_the_router(
    meter: Literal["lua", "observe"], expected: list[str]
) -> None:
    assert [one["name"] for one in filters(meter)] == expected


def test_a_copy_is_made_of_answers_and_of_nothing_else() -> None:
    (config,) = (one["typed_config"] for one in filters("observe") if one["name"] == "llm.observe")

    assert (config["observability_mode"], config["failure_mode_allow"]) == (True, True)
    assert config["processing_mode"] == {
        "request_header_mode": "SKIP",
        "request_body_mode": "NONE",
        "request_trailer_mode": "SKIP",
        "response_header_mode": "SEND",
        "response_body_mode": "STREAMED",
        "response_trailer_mode": "SEND",
    }
    assert config["metadata_options"] == {"forwarding_namespaces": {"untyped": ["llm"]}}
