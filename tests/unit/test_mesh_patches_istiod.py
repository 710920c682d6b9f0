"""EnvoyFilters of every kind, at random: a real istiod made the same of them."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from extproc.mesh.manifests import Manifest, parse, read
from extproc.mesh.render import render
from extproc.mesh.world import world_of
from tests.mesh_difference import difference
from tests.unit.test_mesh_render import CASES, NOT_RENDERED, PROXIES

SETS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data/istiod-patches/cases.json").read_text()
)


def ordered(lists: Mapping[str, Any]) -> dict[str, Any]:
    """With keys in their order and numbers as Go writes them, to compare what is printed."""
    text = json.dumps(lists, sort_keys=True)
    found: dict[str, Any] = json.loads(text, parse_float=number)
    return found


def number(text: str) -> float:
    found = float(text)
    return int(found) if found.is_integer() else found


@cache
def manifests() -> tuple[Manifest, ...]:
    return read([CASES[0] / "input.yaml"])


@cache
def unpatched(kind: str) -> dict[str, Any]:
    lists: dict[str, Any] = json.loads((CASES[0] / "bare.json").read_text())[kind]
    kept = [each for each in lists["listeners"] if each["name"] not in NOT_RENDERED]
    return ordered({**lists, "listeners": kept})


@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("case", SETS, ids=range(len(SETS)))
def test_patches_do_what_they_do_in_istiod(case: dict[str, Any], kind: str) -> None:
    head = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter"}
    documents = [json.dumps({**head, **each}) for each in case["filters"]]
    known = world_of([*manifests(), *parse("\n---\n".join(documents), "filters.yaml")])

    found = render(known, PROXIES[kind])

    assert difference(unpatched(kind), ordered(found.lists())) == case[kind]
