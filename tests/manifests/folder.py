"""What lies in `istio/`: documents, and folders as kustomize would put them together."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.manifests.generate import ISTIO

Document = dict[str, Any]

KUSTOMIZATIONS: Final = sorted(ISTIO.rglob("kustomization.yaml"))


class Manifest(NamedTuple):
    """One document of a file."""

    path: Path
    document: Document

    @property
    def kind(self) -> str:
        """Version and kind, in one."""
        return f"{self.document['apiVersion']} {self.document['kind']}"

    @property
    def name(self) -> str:
        """For people: file, kind, name."""
        found = f"{self.document['kind']} {self.document['metadata']['name']}"
        return f"{self.path.relative_to(ISTIO)}: {found}"


def documents(path: Path) -> list[Document]:
    """All documents of a file."""
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


def manifests() -> Iterator[Manifest]:
    """Every document for Kubernetes, patches too."""
    for path in sorted(ISTIO.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in documents(path):
                if isinstance(document, dict):  # and no JSON patch
                    yield Manifest(path, document)


def filters() -> list[Manifest]:
    """Every EnvoyFilter."""
    return [found for found in manifests() if found.document["kind"] == "EnvoyFilter"]


def one(path: str, kind: str) -> Document:
    """The only document of a kind in a file below `istio/`."""
    (found,) = [each for each in documents(ISTIO / path) if each["kind"] == kind]
    return found


def resources(kustomization: Path) -> list[Document]:
    """What a kustomization puts together, before its patches."""
    told = documents(kustomization)[0]
    found: list[Document] = []
    for name in told.get("resources", []):
        path = kustomization.parent / name
        if path.is_dir():
            found += resources(path / "kustomization.yaml")
        else:
            found += documents(path)
    return found
