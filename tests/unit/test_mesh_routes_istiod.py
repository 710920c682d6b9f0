"""extproc/mesh: routes are field by field what a real istiod made of the input."""

import json
from pathlib import Path
from typing import Any

import pytest

from extproc.mesh.manifests import read
from extproc.mesh.routes import dropped, gateway_routes, sidecar_routes
from extproc.mesh.world import Proxy, World, world_of
from tests.mesh_difference import difference

CASES = Path(__file__).parents[2] / "tests/data/istiod"
UNPATCHED = ("1-article", "3-route-features", "4-destination-rules")
FALLBACK = {"cluster", "retry_priority", "request_body_buffer_limit"}
PATCHED = {
    "2-attached": {"gateway": FALLBACK},
    "5-envoyfilter-order": {
        "gateway": {
            "request_body_buffer_limit",
            "request_headers_to_add",
            "request_headers_to_remove",
            "retriable_status_codes",
            "timeout",
            "typed_per_filter_config",
        }
    },
    "6-sidecar-attached": {"sidecar": FALLBACK},
}
"""The fields that EnvoyFilters made or changed."""
MAKERS = {"gateway": gateway_routes, "sidecar": sidecar_routes}
PROXIES = {
    "gateway": Proxy("gateway", "ai-platform", {"istio": "ingressgateway"}),
    "sidecar": Proxy(
        "sidecar", "ai-platform", {"app": "llm-router", "version": "stable"}, "127.0.1.11"
    ),
}


def world(case: str) -> World:
    return world_of(read([CASES / case / "input.yaml"]))


def bare(case: str, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CASES / case / "bare.json").read_text())[kind][
        "routes"
    ]
    return found


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("case", UNPATCHED)
def test_routes_are_istiods(case: str, kind: str) -> None:
    actual = MAKERS[kind](world(case), PROXIES[kind])

    assert difference(bare(case, kind), actual) == []
    assert bare(case, kind) == actual
    assert dropped(world(case), PROXIES[kind]) == []


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("case", PATCHED)
def test_routes_are_istiods_but_for_what_is_patched(case: str, kind: str) -> None:
    actual = MAKERS[kind](world(case), PROXIES[kind])

    paths = {line.partition(": expected ")[0] for line in difference(bare(case, kind), actual)}
    assert {path.rpartition(".")[2] for path in paths} == PATCHED[case].get(kind, set())
