"""Whatever stands in a manifest, it is rendered or refused in words: never another exception."""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.mesh.bootstrap import bootstrap
from extproc.mesh.manifests import Manifest, MeshError, read
from extproc.mesh.render import render
from extproc.mesh.world import Proxy, world_of

CASES = Path(__file__).parents[1] / "data" / "istiod"
KNOWN = [
    read([CASES / case / "input.yaml"])
    for case in ("2-attached", "3-route-features", "4-destination-rules", "5-envoyfilter-order")
]
PROXIES = (
    Proxy("gateway", "ai-platform", {"istio": "ingressgateway"}),
    Proxy("sidecar", "ai-platform", {"app": "llm-router", "version": "stable"}),
)
JUNK: list[Any] = [None, True, -1, 0, 1 << 70, 1.5, "", "x", "é\n", "*", [], {}, [1], {"a": 1}]
JUNK += [[None], [{}]]


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree where something else could stand."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


def spoiled(manifest: Manifest, number: int, junk: Any) -> Manifest:
    """Put something else at one place, but not in what names the resource."""
    document = copy.deepcopy(dict(manifest.document))
    said = {
        key: value
        for key, value in document.items()
        if key not in {"apiVersion", "kind", "metadata"}
    }
    found = [place for place in places(said) if place[0] is not said]
    if found:
        tree, key = found[number % len(found)]
        tree[key] = copy.deepcopy(junk)
    return manifest._replace(document=document)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(KNOWN),
    st.integers(0, 1 << 16),
    st.integers(0, 1 << 16),
    st.sampled_from(JUNK),
    st.sampled_from(PROXIES),
)
def test_a_spoiled_manifest_is_rendered_or_refused(
    known: tuple[Manifest, ...], which: int, place: int, junk: Any, proxy: Proxy
) -> None:
    manifests = list(known)
    which %= len(manifests)
    manifests[which] = spoiled(manifests[which], place, junk)

    with contextlib.suppress(MeshError):
        bootstrap(render(world_of(manifests), proxy))
