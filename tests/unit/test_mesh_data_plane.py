"""Renderings are what `envoy-data-plane` takes for Envoy's types: other code of the same protos.

By the wire, for its reader of JSON can't read fields such as `consecutive_5xx`.
"""

import dataclasses
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from extproc.mesh.manifests import read
from extproc.mesh.proto import LISTS, parsed, printed
from extproc.mesh.render import render
from extproc.mesh.world import world_of
from tests.unit.test_mesh_render import CASES, PROXIES

# istiod writes fields that Envoy calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def imported(package: str) -> ModuleType:
    """One of their packages. What is deprecated in them concerns nobody here."""
    with warnings.catch_warnings(action="ignore"):
        return importlib.import_module(f"envoy_data_plane.{package}")


THEIRS: dict[str, Any] = {
    name: getattr(imported(str(kind.DESCRIPTOR.file.package)), kind.DESCRIPTOR.name)
    for name, kind in LISTS.items()
}


def unknown(tree: Any) -> Iterator[bytes]:
    """What they do not know in a message, in all that is in it, and in what is packed there."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = vars(tree)
        if fields["_unknown_fields"]:
            yield fields["_unknown_fields"]
        for field in dataclasses.fields(tree):
            yield from unknown(fields[field.name])
        if "type_url" in fields:
            imported(fields["type_url"].rpartition("/")[2].rpartition(".")[0])
            packed: Any = tree
            yield from unknown(packed.unpack())
    elif isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from unknown(each)


@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_others_know_every_field_of_a_rendering(case: Path, kind: str) -> None:
    rendered = render(world_of(read([case / "input.yaml"])), PROXIES[kind])

    for name, trees in rendered.lists().items():
        for tree in trees:
            sent = parsed(tree, LISTS[name]).SerializeToString()
            theirs = THEIRS[name].parse(sent)
            assert not list(unknown(theirs))
            back = LISTS[name]()
            back.ParseFromString(bytes(theirs))
            assert printed(back) == tree


def test_a_field_that_they_do_not_know_would_be_seen() -> None:
    field_1000 = b"\xc2\x3e\x01x"

    assert list(unknown(THEIRS["clusters"].parse(field_1000))) == [field_1000]
