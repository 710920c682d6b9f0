"""Envoy's own types: configuration is held to them, strictly, and merged as istiod merges it.

The classes are those of `xds-protos`, which the service has anyway: they know every field that
istiod writes, refuse those that there are not, and print protobuf JSON as istiod's own library
does. (`docs/decisions/0010`.)
"""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pool import Default
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

M = TypeVar("M", bound=Message)

Tree = Any
"""Protobuf JSON, original field names."""

LISTS: Final[dict[str, type[Message]]] = {
    "listeners": Listener,
    "routes": RouteConfiguration,
    "clusters": Cluster,
    "endpoints": ClusterLoadAssignment,
}
"""The four lists of a proxy's configuration, and what is in them."""


class WrongError(Exception):
    """This is not what the type takes. Its text says where and why."""


def parsed(tree: Tree, kind: type[M], *, is_strict: bool = True) -> M:
    """Make a message of protobuf JSON. Where it is not strict, unknown fields are passed over.

    Raises:
        WrongError: a field is unknown, or of another type than it must be.
    """
    for name in _types_in(tree):
        _import(name)
    message = kind()
    try:
        ParseDict(tree, message, ignore_unknown_fields=not is_strict)
    except (AttributeError, ParseError, TypeError, ValueError, RecursionError) as error:
        raise WrongError(str(error).replace("\n", " ")) from None
    return message


def printed(message: Message) -> Tree:
    """The message as protobuf JSON, original field names, nothing that has its default."""
    tree = MessageToDict(message, preserving_proto_field_name=True)
    # What was in an Any comes as an OrderedDict, which not everybody can write down.
    return json.loads(json.dumps(tree))


def unpacked(packed: AnyMessage) -> Message:
    """The message in an Any.

    Raises:
        WrongError: nobody knows its type.
    """
    name = _name(packed)
    _import(name)
    try:
        message = GetMessageClass(Default().FindMessageTypeByName(name))()
    except KeyError:
        raise WrongError(name + ": an unknown type") from None
    message.ParseFromString(packed.value)
    return message


def merge(target: Message, patch: Message, *, replaces_lists: bool = False) -> None:
    """Merge as istiod does: as protobuf, but a Duration is replaced and not merged.

    Lists are appended to, unless they are to be replaced; an entry of a map is replaced. What has
    its default in the patch is not in it, so a `false` or 0 changes nothing.
    """
    for field, value in patch.ListFields():
        name = field.name
        if _is_map(field):
            _merge_map(getattr(target, name), value, field)
        elif _is_list(field):
            if replaces_lists:
                target.ClearField(name)
            getattr(target, name).extend(value)
        elif field.message_type is None:
            setattr(target, name, value)
        elif field.message_type.full_name == Duration.DESCRIPTOR.full_name:
            getattr(target, name).CopyFrom(value)
        else:
            getattr(target, name).SetInParent()
            merge(getattr(target, name), value, replaces_lists=replaces_lists)


def merge_any(target: AnyMessage, patch: AnyMessage) -> None:
    """Merge what is inside.

    Raises:
        WrongError: they are of different types, or of one that nobody knows.
    """
    if target.type_url != patch.type_url:
        raise WrongError(_name(patch) + " can't be merged into " + _name(target))
    inside = unpacked(target)
    merge(inside, unpacked(patch))
    target.Pack(inside, deterministic=True)


def _name(packed: AnyMessage) -> str:
    return packed.type_url.rpartition("/")[2]


def _is_list(field: Any) -> bool:  # noqa: ANN401  # protobuf's descriptors have no public type
    repeated = getattr(field, "is_repeated", None)
    return bool(repeated) if repeated is not None else field.label == field.LABEL_REPEATED


def _is_map(field: Any) -> bool:  # noqa: ANN401  # as above
    return bool(
        _is_list(field) and field.message_type and field.message_type.GetOptions().map_entry
    )


def _merge_map(target: Any, patch: Any, field: Any) -> None:  # noqa: ANN401  # as above
    is_message = field.message_type.fields_by_name["value"].message_type is not None
    for key, value in patch.items():
        if is_message:
            target[key].CopyFrom(value)
        else:
            target[key] = value


def _types_in(tree: Tree) -> Iterator[str]:
    if isinstance(tree, dict):
        url = tree.get("@type")
        if isinstance(url, str):
            yield url.rpartition("/")[2]
        for value in tree.values():
            yield from _types_in(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _types_in(value)


def _import(name: str) -> None:
    """Make a type known: protobuf finds those whose modules were imported."""
    try:
        Default().FindMessageTypeByName(name)
    except KeyError:
        package = name.rpartition(".")[0]
        if not package.startswith(_PACKAGES):
            return
        try:
            found = importlib.import_module(package)
        except ImportError:
            return
        for module in pkgutil.iter_modules(found.__path__):
            if module.name.endswith("_pb2"):
                importlib.import_module(f"{package}.{module.name}")


_PACKAGES: Final = ("envoy.", "google.protobuf", "xds.", "udpa.", "opentelemetry.")
