"""extproc/mesh/lint: whatever stands in a manifest, it is a finding or nothing, never a crash."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.mesh.lint.lint import DEPTH_MAX, NODES_MAX, TEXT_CHARS_MAX, lint
from extproc.mesh.manifests import Manifest, MeshError, parse

TESTS = Path(__file__).parents[1]
SOURCES = [
    *sorted((TESTS / "mesh_lint").rglob("*.yaml")),
    *sorted((TESTS / "data" / "istiod").rglob("input.yaml")),
]
WORLDS = [parse(source.read_text(), source.name) for source in SOURCES]
JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    1e308,
    float("nan"),
    "",
    "x" * 2000,
    "outbound|99999999999999999999|a|b.c.svc.cluster.local",
    "((((",
    "\x00\n",
    "9" * 5000,
    [],
    [None],
    [[]],
    ["a", 1, {}],
    {},
    {"a": {"b": [1]}},
    {1: 2},
    {"@type": "type.googleapis.com/envoy.nothing.v3.Nothing"},
    {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": 1}},
    {"@type": []},
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a tree but its root."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in inner:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def put(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    for step in path[:-1]:
        tree = tree[step]
    tree[path[-1]] = value


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_nothing_in_a_manifest_makes_it_crash(data: st.DataObject) -> None:
    world = list(data.draw(st.sampled_from(WORLDS)))
    number = data.draw(st.integers(0, len(world) - 1))
    document = deepcopy(dict(world[number].document))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(document))))
        put(document, path, deepcopy(data.draw(st.sampled_from(JUNK))))
    world[number] = world[number]._replace(document=document)

    found = lint(world)

    for finding in found:
        assert finding.line >= 1
        assert all(isinstance(text, str) for text in finding if not isinstance(text, int))
        assert all(text.isprintable() for text in finding if isinstance(text, str))


ISTIO_PLACES = [
    (world, number, path)
    for world in WORLDS
    for number, manifest in enumerate(world)
    if "istio.io" in manifest.group
    for path in places(manifest.document)
][::23]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:20])
def test_no_field_that_is_read_makes_it_crash(junk: Any) -> None:
    for world, number, path in ISTIO_PLACES:
        document = deepcopy(dict(world[number].document))
        put(document, path, deepcopy(junk))
        lint([*world[:number], world[number]._replace(document=document), *world[number + 1 :]])


def test_what_a_manifest_says_stays_on_its_line() -> None:
    (world,) = [world for world in WORLDS if world[0].file == "not-llm.yaml"]
    document = deepcopy(dict(world[0].document))
    document["spec"]["http"][0]["route"][0]["destination"]["subset"] = "\x1b[2J\nb" + "x" * 5000

    (found,) = lint([world[0]._replace(document=document), *world[1:]])

    assert found.rule == "unknown-subset"
    assert found.what.isprintable()
    assert len(found.what) == TEXT_CHARS_MAX + 1


def nested(depth: int) -> Any:
    tree: Any = "end"
    for _ in range(depth):
        tree = [tree]
    return tree


def wide() -> Any:
    """Small as YAML says it, by aliases; more than all memory otherwise."""
    tree: Any = "end"
    for _ in range(60):
        tree = [tree] * 2
    return tree


def circle() -> Any:
    tree: list[Any] = []
    tree.append(tree)
    return tree


@pytest.mark.parametrize("tree", [nested(DEPTH_MAX + 1), wide(), circle(), [1] * (NODES_MAX + 1)])
def test_what_no_real_manifest_is_like_is_an_error(tree: Any) -> None:
    document = {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": tree}
    with pytest.raises(MeshError):
        lint([Manifest("a", 1, "v1", "ConfigMap", "default", "a", document)])
