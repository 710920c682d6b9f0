"""extproc/mesh/render.py: the rendering equals what a real istiod made of the same manifests."""

import json
from pathlib import Path
from typing import Any

import pytest

from extproc.mesh.manifests import read
from extproc.mesh.render import render
from extproc.mesh.world import Proxy, world_of
from tests.mesh_difference import difference

CASES = sorted(
    path for path in (Path(__file__).parents[1] / "data/istiod").iterdir() if path.is_dir()
)
PROXIES = {
    "gateway": Proxy("gateway", "ai-platform", {"istio": "ingressgateway"}),
    "sidecar": Proxy(
        "sidecar", "ai-platform", {"app": "llm-router", "version": "stable"}, "127.0.1.11"
    ),
}
NOT_RENDERED = {"virtualInbound", "virtualOutbound", "0.0.0.0_443"}
"""Of a sidecar: neither is an outbound listener of HTTP."""


def test_there_are_cases() -> None:
    assert len(CASES) == 6


@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_the_rendering_is_what_istiod_sends(case: Path, kind: str) -> None:
    expected: dict[str, Any] = json.loads((case / "bare.json").read_text())[kind]
    expected["listeners"] = [
        each for each in expected["listeners"] if each["name"] not in NOT_RENDERED
    ]

    rendered = render(world_of(read([case / "input.yaml"])), PROXIES[kind])

    found = difference(expected, dict(rendered.lists()))
    assert not found, "\n".join(found)
