"""A patch's value, held to Envoy's messages: what istiod drops without a word, or Envoy refuses.

The messages are those of `xds-protos`. What newer Envoys have besides is in `newer.json`, made from
the descriptors that their binaries carry; of that only the names are known.
"""

import importlib
import json
import pkgutil
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message_factory import GetMessageClass

from extproc.mesh.lint.patches import TYPED_STRUCTS

Descriptor = Any
"""protobuf's descriptors have no public types that mypy and all its versions agree on."""
Tree = Any

OF_PATCHES: Final = {
    "LISTENER": "envoy.config.listener.v3.Listener",
    "FILTER_CHAIN": "envoy.config.listener.v3.FilterChain",
    "NETWORK_FILTER": "envoy.config.listener.v3.Filter",
    "LISTENER_FILTER": "envoy.config.listener.v3.ListenerFilter",
    "HTTP_FILTER": "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
    "ROUTE_CONFIGURATION": "envoy.config.route.v3.RouteConfiguration",
    "VIRTUAL_HOST": "envoy.config.route.v3.VirtualHost",
    "HTTP_ROUTE": "envoy.config.route.v3.Route",
    "CLUSTER": "envoy.config.cluster.v3.Cluster",
    "EXTENSION_CONFIG": "envoy.config.core.v3.TypedExtensionConfig",
}
"""What `applyTo` stands for."""

_ANY: Final = "google.protobuf.Any"
_STANDARD: Final = "google.protobuf."
_PACKAGES: Final = ("envoy.", "xds.", "udpa.", "opentelemetry.")
_TEXT_CHARS_MAX: Final = 160


class Kind(StrEnum):
    """What is the matter with a place."""

    UNKNOWN = "unknown"
    """No Envoy has this field or type."""
    NEWER = "newer"
    """The package lacks it, and a newer Envoy has it; `what` is the version."""
    WRONG = "wrong"
    """The field is there, and takes no such value."""
    DEFAULT = "default"
    """A plain field, outside lists and maps, is set to what it is anyway."""


class Problem(NamedTuple):
    """One place in a tree."""

    path: str
    kind: Kind
    what: str


def problems(path: str, tree: Tree, name: str) -> Iterator[Problem]:
    """What is the matter with protobuf JSON for a message of this name."""
    found = _descriptor(name)
    if found is not None:
        yield from _message(path, tree, found, is_merged=True)


def type_problem(path: str, name: str) -> Problem | None:
    """What is the matter with naming this type in an Any, if anything."""
    if _descriptor(name) is not None or not name.startswith("envoy."):
        return None
    version = _newer()["types"].get(name)
    if version is not None:
        return Problem(path, Kind.NEWER, version)
    return Problem(path, Kind.UNKNOWN, f"no type {name[:_TEXT_CHARS_MAX]}")


def _message(path: str, tree: Tree, kind: Descriptor, *, is_merged: bool) -> Iterator[Problem]:
    if tree is None:
        return
    if not isinstance(tree, Mapping):
        yield Problem(path, Kind.WRONG, f"must be a mapping: {kind.full_name}")
        return
    if kind.full_name == _ANY:
        yield from _any(path, tree, is_merged=is_merged)
        return
    for key, value in tree.items():
        at = f"{path}.{key}"
        field = kind.fields_by_name.get(key) or kind.fields_by_camelcase_name.get(key)
        version = _newer()["fields"].get(kind.full_name, {}).get(key)
        if version is not None:
            yield Problem(at, Kind.NEWER, version)
        elif field is None:
            yield Problem(at, Kind.UNKNOWN, _nothing(str(key), kind))
        elif value is not None:
            yield from _field(at, value, field, is_merged=is_merged)


def _nothing(key: str, kind: Descriptor) -> str:
    near = get_close_matches(key[:_TEXT_CHARS_MAX], list(kind.fields_by_name), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"no field of {kind.full_name}{hint}"


def _field(path: str, value: Tree, field: Descriptor, *, is_merged: bool) -> Iterator[Problem]:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        of_values = inner.fields_by_name["value"]
        is_known = isinstance(value, Mapping) and _is_walked(of_values)
        for key, item in value.items() if is_known else ():
            yield from _message(f"{path}.{key}", item, of_values.message_type, is_merged=False)
        if not is_known:
            yield from _leaf(path, value, field)
    elif _is_list(field) and _is_walked(field) and isinstance(value, list):
        for at, item in enumerate(value):
            yield from _message(f"{path}[{at}]", item, inner, is_merged=False)
    elif _is_walked(field) and not _is_list(field):
        yield from _message(path, value, inner, is_merged=is_merged)
    else:
        wrong = list(_leaf(path, value, field))
        yield from wrong
        if not wrong and is_merged and _is_default(field, value):
            yield Problem(path, Kind.DEFAULT, str(value))


def _any(path: str, tree: Mapping[str, Tree], *, is_merged: bool) -> Iterator[Problem]:
    url = tree.get("@type")
    if not isinstance(url, str):
        if tree:
            yield Problem(f"{path}.@type", Kind.WRONG, "missing: nobody knows what this is")
        return
    name = url.rpartition("/")[2]
    found = type_problem(f"{path}.@type", name)
    if found is not None:
        yield found
    if name in TYPED_STRUCTS and isinstance(tree.get("type_url"), str):
        path, name = f"{path}.value", tree["type_url"].rpartition("/")[2]
        tree = tree["value"] if isinstance(tree.get("value"), Mapping) else {}
    kind = _descriptor(name)
    if kind is not None and not name.startswith(_STANDARD):
        inside = {key: value for key, value in tree.items() if key != "@type"}
        yield from _message(path, inside, kind, is_merged=is_merged)


def _leaf(path: str, value: Tree, field: Descriptor) -> Iterator[Problem]:
    message = GetMessageClass(field.containing_type)()
    try:
        ParseDict({field.name: value}, message)
    except (ParseError, TypeError, ValueError, AttributeError, RecursionError) as error:
        text = " ".join(str(error).split())[:_TEXT_CHARS_MAX]
        yield Problem(path, Kind.WRONG, text or type(error).__name__)


def _is_walked(field: Descriptor) -> bool:
    """Whether its value is a message whose fields have names."""
    inner = field.message_type
    if inner is None:
        return False
    return inner.full_name == _ANY or not inner.full_name.startswith(_STANDARD)


def _is_list(field: Descriptor) -> bool:
    repeated = getattr(field, "is_repeated", None)
    return bool(repeated) if repeated is not None else field.label == field.LABEL_REPEATED


def _is_default(field: Descriptor, value: Tree) -> bool:
    if _is_list(field) or field.has_presence:
        return False
    if field.enum_type is not None:
        return value in (0, field.enum_type.values_by_number[0].name)
    return type(value) is type(field.default_value) and value == field.default_value


@cache
def _descriptor(name: str) -> Descriptor | None:
    try:
        return Default().FindMessageTypeByName(name)
    except KeyError:
        pass
    package = name.rpartition(".")[0]
    if not package.startswith(_PACKAGES):
        return None
    try:
        _import(package)
        return Default().FindMessageTypeByName(name)
    except (ImportError, KeyError, ValueError):
        return None


def _import(package: str) -> None:
    """Make a package's types known: protobuf finds those whose modules were imported."""
    found = importlib.import_module(package)
    for module in pkgutil.iter_modules(found.__path__):
        if module.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{module.name}")


@cache
def _newer() -> Any:  # noqa: ANN401  # JSON
    text = resources.files("extproc.mesh.lint").joinpath("newer.json").read_text(encoding="utf-8")
    return json.loads(text)
