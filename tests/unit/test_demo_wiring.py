"""extproc/demo/envoy.py: the manifests of `istio/` are what an Envoy is run from."""

from pathlib import Path
from typing import Any, Literal

import pytest

from extproc.demo.attachment import Wiring
from extproc.demo.envoy import ADAPTERS, SERVICE_CLUSTER, config
from extproc.demo.replicas import TRAFFIC


def filters(meter: Literal["lua", "observe"]) -> list[dict[str, Any]]:
    wiring = Wiring(1, dict.fromkeys(ADAPTERS, 1), meter=meter)
    tree = config(wiring, access_log=Path("log"))
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
    found = [one["name"] for one in filters(meter)]
    assert [name for name in found if name.startswith("llm.") or name == found[-1]] == expected


def test_all_replicas_are_endpoints_and_one_that_is_gone_is_left_alone() -> None:
    wiring = Wiring(1, dict.fromkeys(ADAPTERS, 9), more_service_ports=[2, 3], more=[TRAFFIC])
    tree = config(wiring, access_log=Path("log"))
    (found,) = (
        one for one in tree["static_resources"]["clusters"] if one["name"] == SERVICE_CLUSTER
    )

    assert [
        endpoint["endpoint"]["address"]["socket_address"]["port_value"]
        for locality in found["load_assignment"]["endpoints"]
        for endpoint in locality["lb_endpoints"]
    ] == [1, 2, 3]
    assert found["lb_policy"] == "LEAST_REQUEST"
    assert "consecutive_local_origin_failure" in found["outlier_detection"]


def test_a_copy_is_made_of_answers_and_of_nothing_else() -> None:
    (config,) = (one["typed_config"] for one in filters("observe") if one["name"] == "llm.observe")

    assert (config["observability_mode"], config["failure_mode_allow"]) == (True, True)
    assert config["processing_mode"] == {
        "request_header_mode": "SKIP",
        "request_trailer_mode": "SKIP",
        "response_header_mode": "SEND",
        "response_body_mode": "STREAMED",
        "response_trailer_mode": "SEND",
    }
    assert config["metadata_options"] == {"forwarding_namespaces": {"untyped": ["llm"]}}
