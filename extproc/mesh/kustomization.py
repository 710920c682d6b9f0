"""What `kubectl apply -k` would apply: a folder's kustomization, followed as far as ours go.

Known: resources, components, patches (strategic merges of custom resources, where a list replaces
a list, and JSON patches of RFC 6902), generated ConfigMaps without a hash in their names, and
namespace, namePrefix and nameSuffix of the resources themselves, not of what refers to them. Images
make no difference to a mesh. Anything else is an error.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from extproc.mesh.manifests import (
    CLUSTER_WIDE,
    DEFAULT_NAMESPACE,
    Manifest,
    MeshError,
    mapping,
    parse,
    read,
    sequence,
)

FILES: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
DEPTH_MAX: Final = 16

_KNOWN: Final = frozenset(
    (
        "apiVersion",
        "kind",
        "metadata",
        "resources",
        "components",
        "patches",
        "configMapGenerator",
        "generatorOptions",
        "images",
        "namespace",
        "namePrefix",
        "nameSuffix",
    )
)


def load(paths: Iterable[Path]) -> tuple[Manifest, ...]:
    """Read files and folders; a folder with a kustomization is built, any other is read whole.

    Raises:
        MeshError: something can't be read, or a kustomization asks for what is not known here.
    """
    found: list[Manifest] = []
    for path in paths:
        file = _kustomization_in(path)
        found += read([path]) if file is None else _built(file, (), 0)
    return tuple(found)


def extended(manifests: Iterable[Manifest], component: Path) -> tuple[Manifest, ...]:
    """What a component in this folder makes of these resources.

    Raises:
        MeshError: as `load`.
    """
    file = _kustomization_in(component)
    if file is None:
        raise MeshError(str(component), "has no kustomization")
    return tuple(_built(file, tuple(manifests), 0))


def _kustomization_in(path: Path) -> Path | None:
    return next((path / name for name in FILES if (path / name).is_file()), None)


def _built(file: Path, before: Sequence[Manifest], depth: int) -> list[Manifest]:
    """Build one kustomization; a component is given what those before it made."""
    if depth > DEPTH_MAX:
        raise MeshError(str(file), f"nested deeper than {DEPTH_MAX} kustomizations")
    said = _said(file)
    made = [*before]
    for at, name in enumerate(sequence(said.get("resources"))):
        made += _resource(file, f"resources[{at}]", str(name), depth)
    for each in sequence(said.get("configMapGenerator")):
        made = _with_config_map(made, _config_map(file, each))
    for at, name in enumerate(sequence(said.get("components"))):
        component = _kustomization_in(file.parent / str(name))
        if component is None:
            raise MeshError(str(file), f"components[{at}]: {name} has no kustomization")
        made = _built(component, made, depth + 1)
    for at, patch in enumerate(sequence(said.get("patches"))):
        made = _patched(file, f"patches[{at}]", mapping(patch), made)
    return [_renamed(each, said) for each in made]


def _said(file: Path) -> Mapping[str, Any]:
    try:
        said = mapping(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise MeshError(str(file), f"can't be read: {type(error).__name__}") from None
    unknown = sorted(set(said) - _KNOWN)
    if unknown:
        raise MeshError(str(file), f"{unknown[0]}: not followed here; give what kustomize builds")
    return said


def _resource(file: Path, at: str, name: str, depth: int) -> Sequence[Manifest]:
    path = file.parent / name
    if path.is_file():
        return read([path])
    inner = _kustomization_in(path)
    if inner is None:
        where = f"{file}: {at}"
        raise MeshError(where, f"{name} is neither a file nor a kustomization")
    return _built(inner, (), depth + 1)


def _config_map(file: Path, said: Mapping[str, Any]) -> Manifest:
    texts: dict[str, str] = {}
    for entry in sequence(said.get("files")):
        key, _, name = str(entry).rpartition("=")
        source = file.parent / name
        try:
            texts[key or source.name] = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            where = f"{file}: configMapGenerator"
            raise MeshError(where, f"{name}: {type(error).__name__}") from None
    for entry in sequence(said.get("literals")):
        key, _, text = str(entry).partition("=")
        texts[key] = text
    name, namespace = str(said.get("name")), str(said.get("namespace") or DEFAULT_NAMESPACE)
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": texts,
    }
    return Manifest(str(file), 1, "v1", "ConfigMap", namespace, name, document)


def _with_config_map(before: Sequence[Manifest], made: Manifest) -> list[Manifest]:
    """Put it in the place of the one it replaces, if there is one."""
    others = [each for each in before if each.title != made.title]
    return [*others, made]


def _patched(
    file: Path, at: str, said: Mapping[str, Any], manifests: Sequence[Manifest]
) -> list[Manifest]:
    where = f"{file}: {at}"
    text = _text_of(file, where, said)
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        raise MeshError(where, "no YAML") from None
    target = mapping(said.get("target"))
    if isinstance(tree, list):
        change: Callable[[Any], Any] = lambda document: _json_patched(document, tree, where)  # noqa: E731  # one of two
    elif isinstance(tree, dict):
        if "target" not in said:
            patch = parse(text, str(file))[0]
            target = {"kind": patch.kind, "name": re.escape(patch.name)}
        change = lambda document: _merged(document, tree)  # noqa: E731  # the other
    else:
        raise MeshError(where, "neither a resource nor a JSON patch")
    made: list[Manifest] = []
    is_met = False
    for manifest in manifests:
        if not _is_target(manifest, target):
            made.append(manifest)
            continue
        is_met = True
        if isinstance(tree, dict) and tree.get("$patch") == "delete":
            continue
        if isinstance(tree, dict) and "." not in manifest.group:
            raise MeshError(where, f"{manifest.title}: merges of Kubernetes' own kinds are unknown")
        made.append(_with(manifest, change(copy.deepcopy(manifest.document))))
    if not is_met:
        raise MeshError(where, "changes nothing: no resource is meant by it")
    return made


def _text_of(file: Path, where: str, said: Mapping[str, Any]) -> str:
    if "patch" in said:
        return str(said["patch"])
    try:
        return (file.parent / str(said.get("path"))).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MeshError(where, f"{said.get('path')}: {type(error).__name__}") from None


def _is_target(manifest: Manifest, target: Mapping[str, Any]) -> bool:
    pairs = (
        ("kind", manifest.kind),
        ("name", manifest.name),
        ("namespace", manifest.namespace),
        ("group", manifest.group),
    )
    return all(re.fullmatch(str(target.get(key, ".*")), value) for key, value in pairs)


def _merged(document: Any, patch: Any) -> Any:  # noqa: ANN401  # JSON
    """A strategic merge, as it is for custom resources: that of RFC 7386."""
    if not isinstance(document, dict) or not isinstance(patch, dict):
        return patch
    made = dict(document)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif key != "$patch":
            made[key] = _merged(made.get(key), value)
    return made


def _json_patched(document: Any, steps: Sequence[Any], where: str) -> Any:  # noqa: ANN401  # JSON
    for step in steps:
        pointer, kind = str(step.get("path")), step.get("op")
        try:
            _apply(document, kind, pointer, step.get("value"))
        except (KeyError, IndexError, TypeError, ValueError):
            raise MeshError(where, f"{kind} {pointer}: there is no such place") from None
    return document


def _apply(document: Any, kind: object, pointer: str, value: object) -> None:  # noqa: ANN401  # JSON
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    place = document
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    is_list = isinstance(place, list)
    key: Any = (len(place) if last == "-" else int(last)) if is_list else last
    if kind == "add" and is_list:
        place.insert(key, value)
    elif kind == "add":
        place[key] = value
    elif kind == "replace":
        del place[key]
        if is_list:
            place.insert(key, value)
        else:
            place[key] = value
    elif kind == "remove":
        del place[key]
    else:
        raise ValueError


def _renamed(manifest: Manifest, said: Mapping[str, Any]) -> Manifest:
    prefix, suffix = str(said.get("namePrefix") or ""), str(said.get("nameSuffix") or "")
    namespace = said.get("namespace")
    if not (prefix or suffix or namespace):
        return manifest
    document = copy.deepcopy(dict(manifest.document))
    metadata = document["metadata"]
    if manifest.kind == "Namespace":
        metadata["name"] = str(namespace or metadata["name"])
    else:
        metadata["name"] = f"{prefix}{metadata['name']}{suffix}"
    if namespace and manifest.kind not in CLUSTER_WIDE:
        metadata["namespace"] = str(namespace)
    return _with(manifest, document)


def _with(manifest: Manifest, document: Mapping[str, Any]) -> Manifest:
    metadata = mapping(document.get("metadata"))
    namespace = (
        "" if manifest.kind in CLUSTER_WIDE else str(metadata.get("namespace") or DEFAULT_NAMESPACE)
    )
    return manifest._replace(document=document, name=str(metadata.get("name")), namespace=namespace)
