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
from extproc.mesh.proto import WrongError, parsed
from extproc.mesh.world import ROOT_NAMESPACE, Proxy, World

VERSION_CHARS_MAX: Final = 1024
"""A longer regular expression never matches, istiod says."""

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

OPERATIONS: Final = frozenset(
    (
        "MERGE",
        "MERGE_AND_REPLACE_LIST",
        "ADD",
        "REMOVE",
        "INSERT_BEFORE",
        "INSERT_AFTER",
        "INSERT_FIRST",
        "REPLACE",
    )
)
CONTEXTS: Final = frozenset(("ANY", "GATEWAY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND"))

_MATCHES: Final = {
    "listener": frozenset(
        ("LISTENER", "LISTENER_FILTER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER")
    ),
    "routeConfiguration": frozenset(("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE")),
    "cluster": frozenset(("CLUSTER",)),
}
_MATCH_FIELDS: Final = {
    "match": {"context", "proxy", *_MATCHES},
    "proxy": {"proxyVersion"},
    "listener": {"portNumber", "name", "filterChain", "listenerFilter"},
    "filterChain": {
        "name",
        "sni",
        "transportProtocol",
        "applicationProtocols",
        "destinationPort",
        "filter",
    },
    "filter": {"name", "subFilter"},
    "subFilter": {"name"},
    "routeConfiguration": {"portNumber", "portName", "gateway", "name", "vhost"},
    "vhost": {"name", "domainName", "route"},
    "route": {"name", "action"},
    "cluster": {"portNumber", "service", "subset", "name"},
}


class Patch(NamedTuple):
    """One patch. `value` is an empty message for a REMOVE."""

    manifest: Manifest
    path: str
    """Where it stands: `spec.configPatches[0]`."""
    apply_to: str
    context: str
    match: Mapping[str, Any]
    operation: str
    value: Message

    @property
    def title(self) -> str:
        """The patch as people name it."""
        where = f"{self.manifest.file}: {self.manifest.title}: {self.path}"
        return f"{where} ({self.operation} {self.apply_to})"

    @property
    def adds(self) -> bool:
        """Whether it adds a thing of its own; to most things, wherever it is told to insert it."""
        return self.operation == "ADD" or self.operation.startswith("INSERT_")


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
            patch, note = _patch(manifest, f"spec.configPatches[{at}]", mapping(said))
            notes += [note] if note else []
            if _is_version(patch, proxy):
                patches.append(patch)
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


def _patch(manifest: Manifest, path: str, said: Mapping[str, Any]) -> tuple[Patch, str]:
    apply_to = str(said.get("applyTo"))
    match, patch = mapping(said.get("match")), mapping(said.get("patch"))
    context, operation = str(match.get("context", "ANY")), str(patch.get("operation"))
    kind = PATCHED.get(apply_to)
    if kind is None:
        manifest.fail(f"{path}.applyTo", f"{apply_to} is not translated")
    if operation not in OPERATIONS:
        manifest.fail(f"{path}.patch.operation", f"{operation} is unknown")
    if context not in CONTEXTS:
        manifest.fail(f"{path}.match.context", f"{context} is not translated")
    _check_match(manifest, path, apply_to, match)
    note, value = "", mapping(patch.get("value"))
    where = f"{path}.patch.value"
    try:
        message = parsed(value, kind)
    except WrongError as wrong:
        try:
            # istiod passes over fields that it does not know, and says nothing.
            message = parsed(value, kind, is_strict=False)
        except WrongError as worse:
            manifest.fail(where, str(worse))
        note = f"{manifest.file}: {manifest.title}: {where}: a field is dropped: {wrong}"
    return Patch(manifest, path, apply_to, context, match, operation, message), note


def _check_match(manifest: Manifest, path: str, apply_to: str, match: Mapping[str, Any]) -> None:
    for key, kinds in _MATCHES.items():
        if key in match and apply_to not in kinds:
            manifest.fail(f"{path}.match.{key}", f"says nothing of a {apply_to}")
    for where, field in _unknown_fields("match", match, f"{path}.match"):
        manifest.fail(where, f"{field} is not translated")


def _unknown_fields(kind: str, tree: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if key not in _MATCH_FIELDS[kind]:
            yield f"{path}.{key}", key
        elif key in _MATCH_FIELDS:
            yield from _unknown_fields(key, mapping(value), f"{path}.{key}")


def _is_version(patch: Patch, proxy: Proxy) -> bool:
    wanted = str(mapping(patch.match.get("proxy")).get("proxyVersion") or "")
    if not wanted:
        return True
    if len(wanted) > VERSION_CHARS_MAX:
        return False
    try:
        return re.search(wanted, proxy.version) is not None
    except re.error:
        patch.manifest.fail(f"{patch.path}.match.proxy.proxyVersion", "is no regular expression")
