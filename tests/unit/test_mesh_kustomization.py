"""extproc/mesh/kustomization.py: what `kubectl apply -k` would apply."""

from pathlib import Path

import pytest

from extproc.mesh.kustomization import extended, load
from extproc.mesh.manifests import Manifest, MeshError

RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: NAME, namespace: n, annotations: {a/b: x}}
spec: {host: h, subsets: [{name: one}, {name: two}]}
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: n}\nspec: {ports: []}\n"


def built(folder: Path, said: str, **files: str) -> tuple[Manifest, ...]:
    """Build a folder with two rules, a service, these files and this kustomization."""
    for name in ("first", "second"):
        (folder / f"{name}.yaml").write_text(RULE.replace("NAME", name))
    (folder / "service.yaml").write_text(SERVICE)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    (folder / "kustomization.yaml").write_text(said)
    return load([folder])


def names(manifests: tuple[Manifest, ...]) -> list[str]:
    return [each.name for each in manifests]


def test_resources_come_in_their_order_and_nothing_else_does(tmp_path: Path) -> None:
    assert names(built(tmp_path, "resources: [second.yaml, first.yaml]")) == ["second", "first"]


def test_folders_without_a_kustomization_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.yaml").write_text(SERVICE)

    assert names(load([tmp_path])) == ["s"]


def test_a_kustomization_builds_on_another(tmp_path: Path) -> None:
    (tmp_path / "over").mkdir()
    built(tmp_path, "resources: [first.yaml]")
    (tmp_path / "over" / "kustomization.yaml").write_text("resources: [..]\nnameSuffix: -x\n")

    assert names(load([tmp_path / "over"])) == ["first-x"]


def test_a_component_changes_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "kustomization.yaml").write_text(
        "kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\n"
        "patches: [{target: {name: fir.*}, patch: '[{op: remove, path: /spec/host}]'}]\n"
    )
    first, second = built(tmp_path, "resources: [first.yaml, second.yaml]\ncomponents: [part]")

    assert "host" not in first.spec
    assert second.spec["host"] == "h"


@pytest.mark.parametrize(
    ("step", "subsets"),
    [
        ("{op: replace, path: /spec/subsets/0/name, value: x}", [{"name": "x"}, {"name": "two"}]),
        ("{op: replace, path: /spec/subsets/0, value: x}", ["x", {"name": "two"}]),
        ("{op: add, path: /spec/subsets/1, value: x}", [{"name": "one"}, "x", {"name": "two"}]),
        ("{op: add, path: /spec/subsets/-, value: x}", [{"name": "one"}, {"name": "two"}, "x"]),
        ("{op: add, path: /spec/subsets, value: []}", []),
        ("{op: remove, path: /spec/subsets/1}", [{"name": "one"}]),
    ],
)
def test_json_patches_change_one_place(tmp_path: Path, step: str, subsets: list[object]) -> None:
    said = "resources: [first.yaml]\npatches: [{target: {kind: DestinationRule}, patch: '[%s]'}]"

    (rule,) = built(tmp_path, said % step)
    assert rule.spec["subsets"] == subsets


def test_a_pointer_may_name_keys_with_slashes(tmp_path: Path) -> None:
    step = "[{op: replace, path: /metadata/annotations/a~1b, value: y}]"
    (rule,) = built(
        tmp_path, f"resources: [first.yaml]\npatches: [{{target: {{}}, patch: '{step}'}}]"
    )

    assert rule.metadata["annotations"] == {"a/b": "y"}


def test_a_merge_replaces_lists_and_takes_away_what_is_null(tmp_path: Path) -> None:
    merge = RULE.replace("NAME", "first").replace("{host: h, ", "{host: null, new: 1, ")
    merge = merge.replace(", {name: two}", "")
    said = "resources: [first.yaml, second.yaml]\npatches: [{path: merge.txt}]"

    first, second = built(tmp_path, said, merge__txt=merge)
    assert first.spec == {"new": 1, "subsets": [{"name": "one"}]}
    assert second.spec["host"] == "h"


def test_a_merge_may_delete(tmp_path: Path) -> None:
    delete = RULE.replace("NAME", "first") + "$patch: delete\n"
    said = "resources: [first.yaml, second.yaml]\npatches: [{path: delete.txt}]"

    assert names(built(tmp_path, said, delete__txt=delete)) == ["second"]


def test_a_generated_map_takes_the_place_of_another(tmp_path: Path) -> None:
    generated = "[{name: m, namespace: n, files: [k=a.txt], literals: [x=y]}]"
    built(tmp_path, f"configMapGenerator: {generated}", a__txt="old")
    (tmp_path / "over").mkdir()
    (tmp_path / "over" / "a.txt").write_text("new")
    (tmp_path / "over" / "kustomization.yaml").write_text(
        f"resources: [..]\nconfigMapGenerator: {generated}\n"
    )

    (made,) = load([tmp_path / "over"])
    assert made.title == "ConfigMap n/m"
    assert made.document["data"] == {"k": "new", "x": "y"}


def test_a_namespace_moves_all_that_lies_in_one(tmp_path: Path) -> None:
    space = "kind: Namespace\napiVersion: v1\nmetadata: {name: n}\n"
    said = "resources: [space.yaml, service.yaml]\nnamespace: other"

    assert [each.title for each in built(tmp_path, said, space__yaml=space)] == [
        "Namespace other",
        "Service other/s",
    ]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("bases: [x]", "bases: not followed here"),
        ("resources: [none.yaml]", "none.yaml is neither"),
        ("components: [none]", "none has no kustomization"),
        ("resources: [{}]", "neither"),
        ("resources: [", "can't be read"),
        ("resources: [.]", "nested deeper"),
        ("configMapGenerator: [{name: m, files: [none]}]", "none: FileNotFoundError"),
        ("patches: [{path: none}]", "none: FileNotFoundError"),
        ("patches: [{patch: '['}]", "no YAML"),
        ("patches: [{patch: 'x'}]", "neither a resource nor"),
        ("patches: [{target: {kind: Pod}, patch: '[]'}]", "changes nothing"),
        (
            "resources: [service.yaml]\npatches: [{target: {}, patch: '{spec: {}}'}]",
            "Kubernetes' own",
        ),
        (
            (
                "resources: [first.yaml]\n"
                "patches: [{target: {}, patch: '[{op: replace, path: /spec/x, value: 1}]'}]"
            ),
            "replace /spec/x: there is no such place",
        ),
        (
            "resources: [first.yaml]\npatches: [{target: {}, patch: '[{op: move, path: /spec}]'}]",
            "no such place",
        ),
    ],
)
def test_what_cannot_be_followed_says_so(tmp_path: Path, said: str, why: str) -> None:
    with pytest.raises(MeshError, match=why):
        built(tmp_path, said)


def test_a_component_may_be_given_what_to_change(tmp_path: Path) -> None:
    before = built(tmp_path, "resources: [first.yaml]")
    (tmp_path / "part").mkdir()

    with pytest.raises(MeshError, match="has no kustomization"):
        extended(before, tmp_path / "part")
    (tmp_path / "part" / "kustomization.yaml").write_text("nameSuffix: -x\n")
    assert names(extended(before, tmp_path / "part")) == ["first-x"]
