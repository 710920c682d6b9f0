"""Which manifests belong together: what a kustomization builds is one cluster's."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from extproc.mesh import kustomization
from extproc.mesh.manifests import SUFFIXES, Manifest, MeshError, mapping, read, sequence


def worlds(paths: Iterable[Path]) -> Iterator[tuple[Manifest, ...]]:
    """The manifests of each cluster that the paths may stand for.

    Files, and folders with a kustomization, go together. A folder that merely has kustomizations
    somewhere below stands for as many clusters as there are, but for those that others include:
    overlays exclude each other. A component is tried on the first of them that it fits.

    Raises:
        MeshError: something can't be read.
    """
    common: list[Manifest] = []
    roots: list[Path] = []
    components: list[Path] = []
    for path in paths:
        below = _kustomizations(path)
        if path.is_dir() and below and path not in below:
            roots += _roots(below)
            components += [each for each, said in below.items() if _is_component(said)]
            common += read(_loose(path, set(below)))
        else:
            common += kustomization.load([path])
    built = [tuple(kustomization.load([root])) for root in roots]
    if not built:
        yield tuple(common)
    for manifests in built:
        yield (*common, *manifests)
    for component in components:
        for manifests in built:
            try:
                extended = kustomization.extended(manifests, component)
            except MeshError:
                continue
            yield (*common, *extended)
            break


def _kustomizations(path: Path) -> dict[Path, Any]:
    """Every folder with one, at any depth, and what it says."""
    found = {}
    for file in sorted(path.rglob("*")) if path.is_dir() else ():
        if file.name in kustomization.FILES and file.is_file():
            try:
                found[file.parent] = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
                raise MeshError(str(file), f"can't be read: {type(error).__name__}") from None
    return found


def _roots(found: dict[Path, Any]) -> list[Path]:
    """Those that stand for themselves: no component, and no part of another."""
    parts = {
        (folder / str(name)).resolve()
        for folder, said in found.items()
        for name in sequence(mapping(said).get("resources"))
    }
    return [
        folder
        for folder, said in found.items()
        if not _is_component(said) and folder.resolve() not in parts
    ]


def _is_component(said: object) -> bool:
    return mapping(said).get("kind") == "Component"


def _loose(path: Path, folders: set[Path]) -> list[Path]:
    """The files below that no kustomization may have to do with."""
    return [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix in SUFFIXES and file.is_file() and not folders & set(file.parents)
    ]
