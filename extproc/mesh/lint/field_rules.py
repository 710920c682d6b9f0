"""Rules about fields: those that nobody knows, or that Istio's Envoy does not have."""

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any, Final

from extproc.mesh.lint.finding import Hit, Rule, quoted
from extproc.mesh.lint.messages import OF_PATCHES, Kind, problems
from extproc.mesh.lint.patches import Patch, type_of
from extproc.mesh.lint.scene import Scene
from extproc.mesh.manifests import mapping, sequence

Tree = Any

ISTIOS_ENVOY: Final = (1, 39)
"""The newest that a released Istio (1.31) has."""
_NOT_COMPILED: Final = {
    "envoy.extensions.clusters.composite.v3.ClusterConfig": "an aggregate cluster, with"
    " retry_priority previous_priorities",
    "envoy.extensions.filters.http.custom_response.v3.CustomResponse": "the connection manager's"
    " local_reply_config, or answer from the filter",
    "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier": (
        "an aggregate cluster, with retry_priority previous_priorities"
    ),
}
"""Of istio/proxy's bazel/extension_config/extensions_build_config.bzl, August 2026."""
_DOCUMENT: Final = frozenset(("apiVersion", "kind", "metadata", "spec", "status"))


def _told(scene: Scene) -> Iterator[tuple[Patch, str, Kind, str]]:
    for patch in scene.patches:
        name = OF_PATCHES.get(patch.apply_to)
        if name is not None and patch.operation != "REMOVE" and "value" in patch.body:
            path = f"{patch.path}.patch.value"
            for found in problems(path, patch.body["value"], name):
                yield patch, *found


def _unknown(scene: Scene) -> Iterator[Hit]:
    for patch, path, kind, what in _told(scene):
        if kind in {Kind.UNKNOWN, Kind.WRONG}:
            yield Hit(patch.manifest, path, what)


def _newer(scene: Scene) -> Iterator[Hit]:
    for patch, path, kind, what in _told(scene):
        if kind is Kind.NEWER and tuple(map(int, what.split("."))) > ISTIOS_ENVOY:
            yield Hit(patch.manifest, path, f"Envoy has it from {what} on")
    for each in scene.ext_procs:
        options = mapping(each.config.get("metadata_options"))
        if mapping(options.get("receiving_namespaces")).get("typed"):
            at = f"{each.path}.metadata_options.receiving_namespaces.typed"
            yield Hit(each.patch.manifest, at, "Envoy heeds it from 1.40 on", "use untyped")


def _merged_default(scene: Scene) -> Iterator[Hit]:
    for patch, path, kind, what in _told(scene):
        if kind is Kind.DEFAULT and patch.operation == "MERGE":
            yield Hit(patch.manifest, path, f"{what} is what a field is that nobody set")


def _not_compiled(scene: Scene) -> Iterator[Hit]:
    for patch in scene.patches:
        for path, config in _configs(f"{patch.path}.patch.value", patch.value):
            instead = _NOT_COMPILED.get(type_of(config))
            if instead is not None:
                yield Hit(patch.manifest, f"{path}.@type", type_of(config), f"use {instead}")


def _configs(path: str, tree: Tree) -> Iterator[tuple[str, Mapping[str, Tree]]]:
    """Every mapping with a type, at any depth."""
    if isinstance(tree, Mapping):
        if "@type" in tree:
            yield path, tree
        for key, value in tree.items():
            yield from _configs(f"{path}.{key}", value)
    for at, value in enumerate(sequence(tree)):
        yield from _configs(f"{path}[{at}]", value)


def _unknown_to_istio(scene: Scene) -> Iterator[Hit]:
    for kind, known in _istio().items():
        for manifest in scene.istio(kind) if kind != "source" else ():
            for key in manifest.document.keys() - _DOCUMENT:
                yield Hit(manifest, str(key), f"no field of a {kind}")
            for path, what in _held("spec", manifest.document.get("spec"), known):
                yield Hit(manifest, path, what)


def _held(path: str, tree: Tree, known: Tree) -> Iterator[tuple[str, str]]:
    """What in a tree is not as the table of known fields has it."""
    if tree is None or known is None:
        return
    if isinstance(known, list):
        if not isinstance(tree, list):
            yield path, f"must be a list, and is {quoted(tree)}"
        for at, item in enumerate(sequence(tree)):
            yield from _held(f"{path}[{at}]", item, known[0])
        return
    if not isinstance(tree, Mapping):
        yield path, f"must be a mapping, and is {quoted(tree)}"
        return
    for key, value in tree.items():
        of_value = known.get(key, known.get("*", _UNKNOWN))
        if of_value is _UNKNOWN:
            near = get_close_matches(str(key)[:80], list(known), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"{path}.{key}", f"no field that Istio knows{hint}"
        else:
            yield from _held(f"{path}.{key}", value, of_value)


_UNKNOWN: Final = object()


@cache
def _istio() -> Any:  # noqa: ANN401  # JSON
    text = resources.files("extproc.mesh.lint").joinpath("istio.json").read_text(encoding="utf-8")
    return json.loads(text)


RULES: Final = (
    Rule(
        "unknown-envoy-field",
        "A field or value in a patch that Envoy's messages do not have.",
        "istiod drops it without a word: what it was to do does not happen",
        "write the field as Envoy's API has it",
        _unknown,
    ),
    Rule(
        "unknown-istio-field",
        "A field of a VirtualService, DestinationRule, Gateway, ServiceEntry or EnvoyFilter that"
        " Istio does not know, or a value of another shape.",
        "the API server drops it, or refuses the resource",
        "write the field as Istio's API has it",
        _unknown_to_istio,
    ),
    Rule(
        "newer-than-istios-envoy",
        f"A field or type that only Envoys newer than {'.'.join(map(str, ISTIOS_ENVOY))} have.",
        "no released Istio has such an Envoy: it is dropped, or the proxy refuses it",
        "do without it",
        _newer,
    ),
    Rule(
        "not-in-istio-proxy",
        "An extension that is not compiled into istio-proxy.",
        "the proxy refuses the configuration, and stays with what it had before",
        "use what istio-proxy has",
        _not_compiled,
    ),
    Rule(
        "merge-of-default",
        "MERGE of a plain field with the value that it has anyway: `false`, 0, empty text.",
        "protobuf can't tell it from a field that is not there: what was set before stays",
        "leave it out; to set it back, REMOVE what is there and put in another",
        _merged_default,
    ),
)
