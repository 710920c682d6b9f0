"""The patches of EnvoyFilters in the order in which they apply, and those for clusters.

Facts from istiod's `pilot/pkg/networking/core/envoyfilter`. What makes istiod break off patching,
a merge of different types, is an error here.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from google.protobuf.any_pb2 import Any as AnyMessage

from extproc.mesh.envoy_filters import MERGES, Patch
from extproc.mesh.manifests import mapping
from extproc.mesh.proto import WrongError, merge, merge_any

INBOUND: Final = "SIDECAR_INBOUND"

Hosts = Mapping[str, Collection[str]]
"""The hosts of clusters whose name says none."""


class Patches:
    """The patches of one context, and which of them found something to be applied to."""

    def __init__(self, patches: Iterable[Patch], context: str) -> None:
        self._patches = [each for each in patches if each.context in ("ANY", context)]
        self._context = context
        self._used: set[int] = set()

    def __contains__(self, patch: Patch) -> bool:
        """Whether it is one of this context."""
        return any(each is patch for each in self._patches)

    def to(self, *kinds: str) -> Sequence[Patch]:
        """Those that are applied to one of these."""
        return [each for each in self._patches if each.apply_to in kinds]

    def added(self, kind: str) -> Sequence[Patch]:
        """Those that add a listener or a cluster; what is for any context is added outward only."""
        return [
            each
            for each in self.to(kind)
            if each.adds and (self._context != INBOUND or each.context == INBOUND)
        ]

    def used(self, patch: Patch) -> None:
        """Note that a patch was applied."""
        self._used.add(id(patch))

    def is_used(self, patch: Patch) -> bool:
        """Whether it was applied."""
        return id(patch) in self._used


def merged(target: Any, patch: Patch) -> None:  # noqa: ANN401  # any message of protobuf
    """Merge a patch's value into what it is for."""
    merge(target, patch.value, replaces_lists=patch.operation == "MERGE_AND_REPLACE_LIST")


def merged_inside(target: AnyMessage, value: AnyMessage, patch: Patch, field: str) -> None:
    """Merge what is in an Any.

    Raises:
        MeshError: the types differ.
    """
    try:
        merge_any(target, value)
    except WrongError as wrong:
        why = f"{wrong}: istiod breaks off there, and applies no further patches"
        patch.manifest.fail(f"{patch.path}.patch.value.{field}", why)


def patch_clusters(
    clusters: Sequence[Cluster],
    patches: Patches,
    hosts: Hosts | None = None,
    taken: Iterable[str] = (),
) -> list[Cluster]:
    """Apply what is for clusters; those that are added come after the others.

    Of clusters with one name istiod sends the first: none is added whose name is `taken`.
    """
    kept = [each for each in clusters if _patch_cluster(each, patches, (hosts or {}))]
    for patch in patches.added("CLUSTER"):
        if patch.value.name in {*taken, *(each.name for each in kept)}:
            continue
        added = Cluster()
        added.CopyFrom(patch.value)
        kept.append(added)
        patches.used(patch)
    return kept


def _patch_cluster(cluster: Cluster, patches: Patches, hosts: Hosts) -> bool:
    """Patch a cluster; False where it is to be removed."""
    for patch in patches.to("CLUSTER"):
        if not _is_cluster(cluster, patch, hosts):
            continue
        if patch.operation == "REMOVE":
            patches.used(patch)
            return False
        if patch.operation in MERGES:
            if not patch.value.HasField("transport_socket"):
                merged(cluster, patch)
            elif not _merge_socket(cluster, patch):
                continue
            patches.used(patch)
    return True


def _merge_socket(cluster: Cluster, patch: Patch) -> bool:
    """Merge a transport socket, and nothing else; False where there is none to merge it into.

    A socket of another name is replaced, unless there are several to choose from.
    """
    wanted = patch.value.transport_socket
    if cluster.transport_socket_matches:
        sockets = [each.transport_socket for each in cluster.transport_socket_matches]
        found = next((each for each in sockets if each.name == wanted.name), None)
        if found is None:
            return False
    else:
        found = cluster.transport_socket
        if not cluster.HasField("transport_socket") or found.name != wanted.name:
            found.CopyFrom(wanted)
            return True
    if found.HasField("typed_config") and wanted.HasField("typed_config"):
        merged_inside(
            found.typed_config, wanted.typed_config, patch, "transport_socket.typed_config"
        )
    return True


def _is_cluster(cluster: Cluster, patch: Patch, hosts: Hosts) -> bool:
    match = mapping(patch.match.get("cluster"))
    if "name" in match:
        return bool(match["name"] == cluster.name)
    _, port, subset, host = (*cluster.name.split("|"), "", "", "")[:4]
    if "service" in match and match["service"] not in hosts.get(cluster.name, (host,)):
        return False
    number = int(port) if port.isdecimal() else 0
    wanted = (match.get("subset", subset), match.get("portNumber", number))
    return wanted == (subset, number)
