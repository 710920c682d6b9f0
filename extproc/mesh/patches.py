"""EnvoyFilters applied, in istiod's order: listeners, route configurations and clusters."""

import copy
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from extproc.mesh.envoy_filters import Patch
from extproc.mesh.inserting import inserted
from extproc.mesh.manifests import mapping
from extproc.mesh.proto import merge, merge_any

MERGES = frozenset(("MERGE", "MERGE_AND_REPLACE_LIST"))


class Patches:
    """The patches of one context. `unused` are those that found nothing to be applied to."""

    def __init__(self, patches: Iterable[Patch], context: str) -> None:
        self._patches = [each for each in patches if each.context in ("ANY", context)]
        self._used: set[int] = set()

    @property
    def unused(self) -> tuple[Patch, ...]:
        """Which istiod drops without a word."""
        return tuple(each for at, each in enumerate(self._patches) if at not in self._used)

    def to(self, *kinds: str) -> Sequence[Patch]:
        """Those that are applied to one of these."""
        return [each for each in self._patches if each.apply_to in kinds]

    def added(self, kind: str) -> list[Any]:
        """What is added of this kind, wherever it is told to be inserted."""
        found = [patch for patch in self.to(kind) if patch.adds]
        for patch in found:
            self.used(patch)
        return [copy.deepcopy(patch.value) for patch in found]

    def used(self, patch: Patch) -> None:
        """Note that a patch was applied."""
        self._used.update(at for at, each in enumerate(self._patches) if each is patch)


def merged(target: Any, patch: Patch) -> None:  # noqa: ANN401  # any message of protobuf
    """Merge a patch's value into what it is for."""
    merge(target, patch.value, replaces_lists=patch.operation == "MERGE_AND_REPLACE_LIST")


# --- Route configurations


def patch_routes(
    configurations: list[RouteConfiguration], patches: Patches, *, is_gateway: bool
) -> None:
    """Apply what is for route configurations, virtual hosts and routes."""
    for configuration in configurations:
        meant = [
            each
            for each in patches.to("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE")
            if _is_configuration(configuration, each, is_gateway=is_gateway)
        ]
        for patch in meant:
            if patch.apply_to == "ROUTE_CONFIGURATION" and patch.operation in MERGES:
                merged(configuration, patch)
                patches.used(patch)
        _patch_hosts(configuration, meant, patches)


def _patch_hosts(
    configuration: RouteConfiguration, meant: Sequence[Patch], patches: Patches
) -> None:
    removed = []
    for at, host in enumerate(configuration.virtual_hosts):
        if not _patch_host(host, meant, patches):
            removed.append(at)
    for patch in meant:
        # Wherever it is told to insert it.
        if patch.apply_to == "VIRTUAL_HOST" and patch.adds:
            configuration.virtual_hosts.append(patch.value)
            patches.used(patch)
    for at in reversed(removed):
        del configuration.virtual_hosts[at]


def _patch_host(host: VirtualHost, meant: Sequence[Patch], patches: Patches) -> bool:
    """Patch a virtual host; False where it is to be removed."""
    for patch in meant:
        if patch.apply_to != "VIRTUAL_HOST" or not _is_host(host, patch):
            continue
        if patch.operation == "REMOVE":
            patches.used(patch)
            return False
        if patch.operation in MERGES:
            merged(host, patch)
            patches.used(patch)
        elif patch.operation == "REPLACE":
            host.CopyFrom(patch.value)
            patches.used(patch)
    _patch_host_routes(host, [each for each in meant if each.apply_to == "HTTP_ROUTE"], patches)
    return True


def _patch_host_routes(host: VirtualHost, meant: Sequence[Patch], patches: Patches) -> None:
    removed = []
    for at, route in enumerate(host.routes):
        for patch in meant:
            if not (_is_host(host, patch) and _is_route(route, patch)):
                continue
            if patch.operation == "REMOVE":
                removed.append(at)
                patches.used(patch)
                break
            if patch.operation in MERGES:
                merged(route, patch)
                patches.used(patch)
    for at in reversed(removed):
        del host.routes[at]
    for patch in meant:
        if patch.adds and _is_host(host, patch) and _added(host, patch):
            patches.used(patch)


def _added(host: VirtualHost, patch: Patch) -> bool:
    is_meant = None
    if "route" in mapping(_of(patch, "routeConfiguration").get("vhost")):
        is_meant = functools.partial(_is_route, patch=patch)
    if patch.operation == "INSERT_FIRST" and is_meant is not None:
        # At the top all the same, if the route that it names is there.
        return any(map(is_meant, host.routes)) and inserted(host.routes, patch, None)
    return inserted(host.routes, patch, is_meant)


def _is_configuration(configuration: RouteConfiguration, patch: Patch, *, is_gateway: bool) -> bool:
    match = _of(patch, "routeConfiguration")
    name = configuration.name
    if match.get("name", name) != name:
        return False
    port, port_name, gateway = _parts(name) if is_gateway else (name.partition("|")[0], "", "")
    if is_gateway and match.get("portName", port_name) != port_name:
        return False
    if is_gateway and match.get("gateway", gateway) != gateway:
        return False
    return bool(str(match.get("portNumber", port)) == port)


def _parts(name: str) -> tuple[str, str, str]:
    """Port, name of the port, and gateway of `http.80` or `https.443.name.gateway.namespace`."""
    scheme, _, rest = name.partition(".")
    if scheme == "http":
        return rest, "", ""
    port, port_name, gateway = (*rest.split(".", 2), "", "")[:3]
    gateway_name, _, namespace = gateway.partition(".")
    return port, port_name, f"{namespace}/{gateway_name}"


def _is_host(host: VirtualHost, patch: Patch) -> bool:
    match = mapping(_of(patch, "routeConfiguration").get("vhost"))
    if match.get("name", host.name) != host.name:
        return False
    return "domainName" not in match or match["domainName"] in host.domains


def _is_route(route: Route, patch: Patch) -> bool:
    match = mapping(mapping(_of(patch, "routeConfiguration").get("vhost")).get("route"))
    if match.get("name", route.name) != route.name:
        return False
    action = match.get("action", "ANY")
    return bool(action == "ANY" or route.WhichOneof("action") == str(action).lower())


# --- Clusters


def patch_clusters(clusters: list[Cluster], patches: Patches) -> list[Cluster]:
    """Apply what is for clusters; those that are added come after the others."""
    kept = [cluster for cluster in clusters if _patch_cluster(cluster, patches)]
    return kept + patches.added("CLUSTER")


def _patch_cluster(cluster: Cluster, patches: Patches) -> bool:
    """Patch a cluster; False where it is to be removed."""
    for patch in patches.to("CLUSTER"):
        if not _is_cluster(cluster, patch):
            continue
        if patch.operation == "REMOVE":
            patches.used(patch)
            return False
        if patch.operation in MERGES:
            patches.used(patch)
            if patch.value.HasField("transport_socket"):
                _merge_socket(cluster, patch.value)
            else:
                merged(cluster, patch)
    return True


def _merge_socket(cluster: Cluster, value: Any) -> None:  # noqa: ANN401  # a Cluster, for mypy any message
    """Merge a transport socket, and nothing else of the patch: so istiod does."""
    wanted = value.transport_socket
    if cluster.transport_socket_matches:
        sockets = [each.transport_socket for each in cluster.transport_socket_matches]
        found = next((each for each in sockets if each.name == wanted.name), None)
        if found is None:
            return
    else:
        found = cluster.transport_socket
        if not cluster.HasField("transport_socket") or found.name != wanted.name:
            found.CopyFrom(wanted)
            return
    merge_any(found.typed_config, wanted.typed_config)


def _is_cluster(cluster: Cluster, patch: Patch) -> bool:
    match = _of(patch, "cluster")
    if "name" in match:
        return bool(match["name"] == cluster.name)
    _, port, subset, host = (*cluster.name.split("|"), "", "", "")[:4]
    wanted = (match.get("subset", subset), match.get("service", host))
    return wanted == (subset, host) and str(match.get("portNumber", port)) == port


def _of(patch: Patch, kind: str) -> Any:  # noqa: ANN401  # JSON
    return mapping(patch.match.get(kind))
