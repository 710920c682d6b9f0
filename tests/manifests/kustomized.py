"""Whether `kubectl kustomize` builds the same as mesh/kustomization.py.

`python -m tests.manifests.kustomized`: every folder below `istio/`, and every component on each
that it fits. Exit code 1: not so.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from extproc.mesh.kustomization import load
from extproc.mesh.manifests import MeshError
from tests.manifests.folder import KUSTOMIZATIONS, documents
from tests.manifests.generate import ISTIO

_COMMAND = ("kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone")


def _folders(scratch: Path) -> Iterator[tuple[str, Path]]:
    """Each folder that stands for itself, alone and with each component."""
    kinds = {path.parent: documents(path)[0]["kind"] for path in KUSTOMIZATIONS}
    alone = [folder for folder, kind in kinds.items() if kind == "Kustomization"]
    for folder in alone:
        yield str(folder.relative_to(ISTIO)), folder
    for component in kinds.keys() - alone:
        for folder in alone:
            name = f"{folder.relative_to(ISTIO)} with {component.relative_to(ISTIO)}"
            made = scratch / name.replace("/", "_")
            made.mkdir()
            said = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [os.path.relpath(folder, made.resolve())],
                "components": [os.path.relpath(component, made.resolve())],
            }
            (made / "kustomization.yaml").write_text(yaml.safe_dump(said))
            yield name, made


def differences(folder: Path) -> list[str] | None:
    """The names of what is not the same; None where a component does not fit."""
    try:
        ours = _by_name(each.document for each in load([folder]))
    except MeshError:
        return None
    run = subprocess.run([*_COMMAND, str(folder)], capture_output=True, text=True, check=False)
    if run.returncode:
        return [run.stderr.strip()]
    theirs = _by_name(each for each in yaml.safe_load_all(run.stdout) if each)
    return [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]


def _by_name(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{each['kind']} {each['metadata'].get('namespace')}/{each['metadata']['name']}": _plain(
            each
        )
        for each in found
    }


def _plain(node: Any) -> Any:
    """Without the tags of images, which mesh/kustomization.py leaves alone."""
    if isinstance(node, Mapping):
        return {k: v.partition(":")[0] if k == "image" else _plain(v) for k, v in node.items()}
    return [_plain(each) for each in node] if isinstance(node, list) else node


def main() -> int:
    """Compare them all."""
    is_same = True
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in _folders(Path(scratch)):
            found = differences(folder)
            if found is not None:
                print(f"{name}: {', '.join(found) or 'the same'}")  # noqa: T201  # a command prints
                is_same = is_same and not found
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
