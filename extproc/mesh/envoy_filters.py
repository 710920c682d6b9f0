"""EnvoyFilters as istiod reads them: which patches are meant for a proxy, in which order."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, ListenerFilter
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as managers,
)
from google.protobuf.message import Message

from extproc.mesh.manifests import Manifest, mapping, sequence, texts
from extproc.mesh.patch_matches import VERSION_CHARS_MAX, read_match
from extproc.mesh.proto import WrongError, parsed
from extproc.mesh.world import ROOT_NAMESPACE, Proxy, World

PATCHED: Final[dict[str, type[Message]]] = {
    "LISTENER": Listener,
    "LISTENER_FILTER": ListenerFilter,
    "FILTER_CHAIN": FilterChain,
    "NETWORK_FILTER": Filter,
    "HTTP_FILTER": managers.HttpFilter,
    "ROUTE_CONFIGURATION": RouteConfiguration,
    "VIRTUAL_HOST": VirtualHost,
    "HTTP_ROUTE": Route,
    "CLUSTER": Cluster,
}
"""What can be patched (`applyTo`), and what the value of a patch is."""

MERGES: Final = frozenset(("MERGE", "MERGE_AND_REPLACE_LIST"))
OPERATIONS: Final = MERGES | {
    "ADD",
    "REMOVE",
    "INSERT_BEFORE",
    "INSERT_AFTER",
    "INSERT_FIRST",
    "REPLACE",
}
_UNKNOWN_ENUM: Final = "Invalid enum value"
"""What protobuf says of a name that istiod refuses, and which nothing else tells."""
_FILTERS: Final = frozenset(("NETWORK_FILTER", "HTTP_FILTER", "LISTENER_FILTER"))
_REPLACED: Final = _FILTERS | {"VIRTUAL_HOST"}


class Patch(NamedTuple):
    """One patch. `value` is an empty message for a REMOVE."""

    manifest: Manifest
    path: str
    """Where it stands: `spec.configPatches[0]`."""
    apply_to: str
    context: str
    match: Mapping[str, Any]
    operation: str
    value: Any
    """A message of the type in PATCHED."""

    @property
    def title(self) -> str:
        """The patch as people name it."""
        where = f"{self.manifest.file}: {self.manifest.title}: {self.path}"
        return f"{where} ({self.operation} {self.apply_to})"

    @property
    def adds(self) -> bool:
        """Whether it adds a thing of its own; to most things, wherever it is told to insert it."""
        return self.operation == "ADD" or self.operation.startswith("INSERT_")

    @property
    def is_void(self) -> bool:
        """Whether there is nothing of its kind to which istiod would do this."""
        if self.operation == "REPLACE":
            return self.apply_to not in _REPLACED
        if self.apply_to == "ROUTE_CONFIGURATION":
            return self.operation not in MERGES
        return self.operation == "MERGE_AND_REPLACE_LIST" and self.apply_to in _FILTERS


class Read(NamedTuple):
    """The patches of a proxy in the order in which they apply, and what is dropped unsaid."""

    patches: tuple[Patch, ...]
    notes: tuple[str, ...]


def patches_for(world: World, proxy: Proxy) -> Read:
    """Find the patches that are meant for a proxy.

    Lowest priority first; then those of the root namespace, the oldest, and by name.

    Raises:
        MeshError: an EnvoyFilter says something that istiod refuses or this can't do.
    """
    meant = [each for each in world.envoy_filters if _is_meant(each, proxy)]
    meant.sort(
        key=lambda each: (
            _priority(each),
            each.namespace != ROOT_NAMESPACE,
            each.created,
            f"{each.name}.{each.namespace}",
        )
    )
    patches: list[Patch] = []
    notes: list[str] = []
    for manifest in meant:
        for at, said in enumerate(sequence(manifest.spec.get("configPatches"))):
            patch, dropped = _patch(manifest, f"spec.configPatches[{at}]", mapping(said))
            if _is_version(patch, proxy):
                patches.append(patch)
                notes += dropped
    return Read(tuple(patches), tuple(notes))


def _is_meant(manifest: Manifest, proxy: Proxy) -> bool:
    if manifest.namespace not in (ROOT_NAMESPACE, proxy.namespace):
        return False
    if manifest.spec.get("targetRefs"):
        manifest.fail("spec.targetRefs", "Gateways of the Gateway API are not translated")
    wanted = texts(mapping(manifest.spec.get("workloadSelector")).get("labels"))
    return all(proxy.labels.get(key) == value for key, value in wanted.items())


def _priority(manifest: Manifest) -> int:
    priority = manifest.spec.get("priority", 0)
    if not isinstance(priority, int) or isinstance(priority, bool):
        manifest.fail("spec.priority", "must be a number")
    return priority


def _patch(manifest: Manifest, path: str, said: Mapping[str, Any]) -> tuple[Patch, list[str]]:
    apply_to, patch = str(said.get("applyTo")), mapping(said.get("patch"))
    kind = PATCHED.get(apply_to)
    if kind is None:
        manifest.fail(f"{path}.applyTo", f"{apply_to} is not translated")
    match = read_match(manifest, f"{path}.match", apply_to, said.get("match"))
    operation = str(patch.get("operation"))
    if operation not in OPERATIONS:
        manifest.fail(f"{path}.patch.operation", f"{operation} is unknown")
    where = f"{path}.patch.value"
    value = patch.get("value")
    if not isinstance(value, Mapping) and (value is not None or operation != "REMOVE"):
        manifest.fail(where, "must be a mapping")
    message, note = _value(manifest, where, mapping(value), kind)
    found = Patch(
        manifest, path, apply_to, str(match.get("context", "ANY")), match, operation, message
    )
    notes = [f"{manifest.file}: {manifest.title}: {where}: {note}"] if note else []
    return found, [*notes, *_ignored(found)]


def _value(
    manifest: Manifest, where: str, value: Mapping[str, Any], kind: type[Message]
) -> tuple[Message, str]:
    try:
        return parsed(value, kind), ""
    except WrongError as wrong:
        if _UNKNOWN_ENUM in str(wrong):
            manifest.fail(where, str(wrong))
        try:
            # istiod passes over fields that it does not know, and says nothing.
            return parsed(value, kind, is_strict=False), f"a field is dropped: {wrong}"
        except WrongError as worse:
            manifest.fail(where, str(worse))


def _ignored(patch: Patch) -> Iterator[str]:
    """What istiod does not look at in a patch."""
    present = {field.name for field, _ in patch.value.ListFields()}
    looked_at = present
    if patch.operation == "MERGE" and patch.apply_to in _FILTERS:
        looked_at = {"name", "typed_config"}
    elif patch.operation in MERGES and patch.apply_to == "CLUSTER":
        looked_at = {"transport_socket"} if "transport_socket" in present else present
    for name in sorted(present - looked_at):
        yield f"{patch.title}: {name} is dropped: {_why(patch)}"


def _why(patch: Patch) -> str:
    if patch.apply_to == "CLUSTER":
        return "beside a transport_socket nothing is merged"
    return "of a filter its name and typed_config are merged, and nothing else"


def _is_version(patch: Patch, proxy: Proxy) -> bool:
    wanted = str(mapping(patch.match.get("proxy")).get("proxyVersion") or "")
    if not wanted:
        return True
    if len(wanted) > VERSION_CHARS_MAX:
        return False
    try:
        return re.search(wanted, proxy.version) is not None
    except re.error:
        where = f"{patch.path}.match.proxy.proxyVersion"
        patch.manifest.fail(where, f"{wanted!r} is no regular expression")
