"""Folders hang together: what they name is there, and patches find what they change.

Put together by mesh/kustomization.py. Not covered: that kustomize itself does the same, which this
suite must not need: `python -m tests.manifests.kustomized` compares both where there is a kubectl.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from extproc.mesh.kustomization import extended, load
from tests.manifests.folder import KUSTOMIZATIONS, Document, documents, resources
from tests.manifests.generate import ISTIO


def _label(path: Path) -> str:
    return str(path.parent.relative_to(ISTIO))


def _files(told: Document) -> list[str]:
    named = [*told.get("resources", []), *told.get("components", [])]
    named += [patch["path"] for patch in told.get("patches", []) if "path" in patch]
    return named


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=_label)
def test_every_file_is_named_and_every_name_is_there(path: Path) -> None:
    (told,) = documents(path)
    named = _files(told)
    beside = {each.name for each in path.parent.glob("*.yaml")} - {"kustomization.yaml"}

    assert beside <= set(named)
    for name in named:
        target = path.parent / name
        assert (target / "kustomization.yaml" if target.is_dir() else target).is_file(), name


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=_label)
def test_no_two_resources_have_one_name(path: Path) -> None:
    names = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in resources(path)
    ]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=_label)
def test_every_folder_can_be_put_together(path: Path) -> None:
    folder = path.parent
    if documents(path)[0]["kind"] == "Component":
        upon = load([folder.with_name(folder.name.partition("-")[0])])
        made = extended(upon, folder)
        assert made[: len(upon)] != upon
    else:
        assert load([folder])


def _targets(patch: Document, path: Path) -> tuple[list[Document], Any]:
    """What a patch changes, and what it says."""
    told = patch["patch"] if "patch" in patch else (path.parent / patch["path"]).read_text()
    change = yaml.safe_load(told)
    where = patch.get("target") or {"kind": change["kind"], "name": change["metadata"]["name"]}
    # A component changes what it is put upon, the folder whose name its own begins with.
    folder = path.parent
    if documents(path)[0]["kind"] == "Component":
        folder = folder.with_name(folder.name.partition("-")[0])
    names = where.get("name", "").split("|")
    found = [
        each
        for each in resources(folder / "kustomization.yaml")
        if each["kind"] == where["kind"]
        and ("name" not in where or each["metadata"]["name"] in names)
    ]
    assert len(found) >= len(names), where
    return found, change


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=_label)
def test_every_patch_finds_what_it_changes(path: Path) -> None:
    for patch in documents(path)[0].get("patches", []):
        found, change = _targets(patch, path)
        if isinstance(change, list):
            for step in change:
                # What is added goes somewhere, and over nothing.
                is_added = step["op"] == "add"
                where, _, key = step["path"].rpartition("/")
                for document in found:
                    place = _at(document, where if is_added else step["path"])
                    assert place is not None, step["path"]
                    assert not is_added or key == "-" or key not in place, step["path"]


def _at(document: Any, pointer: str) -> Any:  # any YAML
    for step in pointer.lstrip("/").split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def test_a_trial_of_a_new_version_leaves_no_filter_with_the_old_service() -> None:
    """Every place that names the service is in the list of patches."""
    path = ISTIO / "overlays" / "canary" / "proxy" / "kustomization.yaml"
    (told,) = documents(path)
    steps = [step["path"] for patch in told["patches"] for step in yaml.safe_load(patch["patch"])]
    named = [
        where
        for each in resources(path)
        for where in _naming(each, "")
        if "/metadata/" not in where
    ]
    changed = [step for step in steps if step.startswith("/spec/configPatches/")]

    assert sorted(changed) == sorted(named)


def _naming(node: Any, where: str) -> list[str]:  # any YAML
    if isinstance(node, dict):
        pairs = [(str(key).replace("/", "~1"), value) for key, value in node.items()]
    elif isinstance(node, list):
        pairs = [(str(index), value) for index, value in enumerate(node)]
    else:
        return [where] if isinstance(node, str) and "llm-extproc.llm-system.svc" in node else []
    return [found for key, value in pairs for found in _naming(value, f"{where}/{key}")]
