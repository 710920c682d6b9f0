"""What istiod would send to one proxy: listeners, routes, clusters and endpoints."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from envoy.config.route.v3.route_pb2 import RouteConfiguration

from extproc.mesh.clusters import clusters
from extproc.mesh.endpoints import endpoints
from extproc.mesh.envoy_filters import Patch, patches_for
from extproc.mesh.gateway_routes import servers
from extproc.mesh.listener_patches import patch_listeners
from extproc.mesh.listeners import gateway_listeners, sidecar_listeners
from extproc.mesh.local_clusters import served
from extproc.mesh.manifests import MeshError
from extproc.mesh.patch_matches import LISTENER_KINDS, ROUTE_KINDS
from extproc.mesh.patches import INBOUND, Hosts, Patches, patch_clusters
from extproc.mesh.proto import LISTS, WrongError, parsed, printed
from extproc.mesh.route_patches import ServerPorts, parts, patch_routes
from extproc.mesh.routes import dropped, gateway_routes, sidecar_routes
from extproc.mesh.visibility import visible
from extproc.mesh.world import Proxy, World

GATEWAY: Final = "gateway"

NOTHING_ROUTED: Final = {"validate_clusters": False}
"""What a RouteConfiguration says that istiod knows nothing of."""

LEFT_OUT: Final = (
    ("virtualInbound, virtualOutbound and inbound routes", "a bare Envoy is not redirected to"),
    ("listeners of TCP, TLS and unknown ports of a sidecar", "nothing of ours is done there"),
    ("metadata exchange, ALPN filter, istio.stats", "extensions that a bare Envoy lacks"),
    ("automatic mTLS, authentication, authorisation", "they need Istio's certificates"),
    ("Telemetry, and MeshConfig's logs and tracers", "they name providers of the mesh"),
)
"""What is left out on purpose, and why."""


class Rendered(NamedTuple):
    """A proxy's configuration, as protobuf JSON, each list sorted by name."""

    listeners: list[dict[str, Any]]
    routes: list[dict[str, Any]]
    clusters: list[dict[str, Any]]
    endpoints: list[dict[str, Any]]
    notes: tuple[str, ...]
    """What istiod drops without a word, each in a line."""
    unseen: tuple[str, ...] = ()
    """Patches that may be for what is left out, each in a line."""

    def lists(self) -> Mapping[str, list[dict[str, Any]]]:
        """The four lists by name."""
        return {name: getattr(self, name) for name in LISTS}


def render(world: World, proxy: Proxy) -> Rendered:
    """Translate manifests for one proxy.

    Raises:
        MeshError: something would be refused by istiod or can't be translated here.
    """
    made = _made(world, proxy)
    held = {name: [_held(name, each) for each in made[name]] for name in LISTS}
    read = patches_for(world, proxy)
    outward = Patches(read.patches, "GATEWAY" if proxy.kind == GATEWAY else "SIDECAR_OUTBOUND")
    inward = Patches(() if proxy.kind == GATEWAY else read.patches, INBOUND)
    listeners = patch_listeners(held["listeners"], outward) + patch_listeners([], inward)
    lists = {"listeners": _sorted(listeners)}
    routes = _asked_routes(held["routes"], made["listeners"], lists["listeners"])
    patch_routes(routes, outward, _ports(world, proxy))
    lists["routes"] = _sorted(routes)
    lists["clusters"] = _sorted(
        _patched_clusters(held["clusters"], outward, inward, _local(world, proxy))
    )
    lists["endpoints"] = _asked_endpoints(made["endpoints"], lists["clusters"])
    sides = (outward, inward)
    unused = [
        each
        for each in read.patches
        if any(each in side for side in sides) and not any(side.is_used(each) for side in sides)
    ]
    notes = [*read.notes, *dropped(world, proxy)]
    notes += [_note(each) for each in unused if not _may_be_left_out(each, proxy)]
    unseen = [each.title for each in unused if _may_be_left_out(each, proxy)]
    return Rendered(**lists, notes=tuple(notes), unseen=tuple(unseen))


def _made(world: World, proxy: Proxy) -> dict[str, list[dict[str, Any]]]:
    is_gateway = proxy.kind == GATEWAY
    listeners = gateway_listeners if is_gateway else sidecar_listeners
    routes = gateway_routes if is_gateway else sidecar_routes
    return {
        "listeners": listeners(world, proxy),
        "routes": routes(world, proxy),
        "clusters": clusters(world, proxy),
        "endpoints": endpoints(world, proxy),
    }


def _held(name: str, made: dict[str, Any]) -> Any:  # noqa: ANN401  # a message of one of four types
    """Hold what was made to Envoy's types."""
    try:
        return parsed(made, LISTS[name])
    except WrongError as wrong:
        raise MeshError(name, f"this rendering is wrong: {wrong}") from None


def _sorted(messages: Iterable[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [printed(each) for each in messages]
    return sorted(found, key=lambda each: str(each.get("name") or each.get("cluster_name")))


# --- What patches are told of where they apply


def _ports(world: World, proxy: Proxy) -> ServerPorts | None:
    """Of a gateway; a sidecar has none."""
    if proxy.kind != GATEWAY:
        return None
    found: dict[int, set[int]] = {}
    for server in servers(world, proxy):
        found.setdefault(parts(server.route_name)[0], set()).add(server.port)
    return found


def _local(world: World, proxy: Proxy) -> Hosts:
    """The hosts of a sidecar's inbound clusters."""
    found = served(visible(world, proxy), proxy)
    return {
        f"inbound|{port}||": {host.hostname for host, _ in targets}
        for port, targets in found.items()
    }


def _patched_clusters(
    found: Iterable[Any], outward: Patches, inward: Patches, local: Hosts
) -> list[Any]:
    """Patch those for what comes in with what is meant for that."""
    sides: dict[bool, list[Any]] = {True: [], False: []}
    for cluster in found:
        sides[cluster.name.startswith(("inbound|", "InboundPassthrough"))].append(cluster)
    out = patch_clusters(sides[False], outward)
    return out + patch_clusters(sides[True], inward, local, [each.name for each in out])


# --- What a proxy asks for once listeners and clusters are patched


def _asked_routes(
    routes: Iterable[RouteConfiguration],
    before: Iterable[dict[str, Any]],
    after: Iterable[dict[str, Any]],
) -> list[RouteConfiguration]:
    """Leave out those for which no listener is left; of others that are asked for none is known."""
    were, are = set(_route_names(before)), set(_route_names(after))
    found = [each for each in routes if each.name not in were - are]
    unknown = sorted(are - {each.name for each in found})
    return found + [_held("routes", {"name": name} | NOTHING_ROUTED) for name in unknown]


def _route_names(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("rds"), dict):
            yield tree["rds"].get("route_config_name", "")
        for value in tree.values():
            yield from _route_names(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _route_names(value)


def _asked_endpoints(
    found: list[dict[str, Any]], patched: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Leave out those of clusters that are gone or find theirs otherwise; add empty ones."""
    asked = {
        each.get("eds_cluster_config", {}).get("service_name") or each["name"]
        for each in patched
        if each.get("type") == "EDS"
    }
    known = {each["cluster_name"] for each in found}
    unknown = [{"cluster_name": name} for name in asked - known]
    kept = [each for each in found if each["cluster_name"] in asked]
    return sorted(kept + unknown, key=lambda each: str(each["cluster_name"]))


# --- What is said of patches that found nothing


def _may_be_left_out(patch: Patch, proxy: Proxy) -> bool:
    """Whether istiod may have something for it that is not rendered."""
    if proxy.kind == GATEWAY or patch.is_void:
        return False
    is_inward = patch.context in ("ANY", INBOUND)
    return patch.apply_to in LISTENER_KINDS or (patch.apply_to in ROUTE_KINDS and is_inward)


def _note(patch: Patch) -> str:
    why = "istiod does no such thing" if patch.is_void else "nothing to apply it to"
    return f"{patch.title}: {why}"
