"""extproc/mesh: clusters and endpoints are field by field what a real istiod made of the input."""

import json
from pathlib import Path
from typing import Any

import pytest

from extproc.mesh.clusters import clusters
from extproc.mesh.endpoints import endpoints
from extproc.mesh.manifests import read
from extproc.mesh.world import Proxy, World, world_of
from tests.mesh_difference import difference

CASES = Path(__file__).parents[2] / "tests/data/istiod"
PATCHED = {
    ("2-attached", "gateway"): {"llm-fallback-premium"},
    ("5-envoyfilter-order", "gateway"): {
        "outbound|8080||gpt4-adapter.ai-platform.svc.cluster.local"
    },
    ("6-sidecar-attached", "sidecar"): {"llm-fallback-premium"},
}
"""Clusters that EnvoyFilters made or changed."""
PROXIES = {
    "gateway": Proxy("gateway", "ai-platform", {"istio": "ingressgateway"}),
    "sidecar": Proxy(
        "sidecar", "ai-platform", {"app": "llm-router", "version": "stable"}, "127.0.1.11"
    ),
}
NAMES = (
    "1-article",
    "2-attached",
    "3-route-features",
    "4-destination-rules",
    "5-envoyfilter-order",
    "6-sidecar-attached",
)


def world(case: str) -> World:
    return world_of(read([CASES / case / "input.yaml"]))


def bare(case: str, kind: str, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CASES / case / "bare.json").read_text())[kind][what]
    return found


@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("case", NAMES)
def test_clusters_are_istiods(case: str, kind: str) -> None:
    patched = PATCHED.get((case, kind), set())
    expected = [each for each in bare(case, kind, "clusters") if each["name"] not in patched]
    actual = clusters(world(case), PROXIES[kind])

    assert difference(expected, [each for each in actual if each["name"] not in patched]) == []


@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("case", NAMES)
def test_endpoints_are_istiods(case: str, kind: str) -> None:
    expected = bare(case, kind, "endpoints")

    assert difference(expected, endpoints(world(case), PROXIES[kind])) == []
