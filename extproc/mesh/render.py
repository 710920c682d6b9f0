"""What istiod would send to one proxy: listeners, routes, clusters and endpoints."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from extproc.mesh.clusters import clusters
from extproc.mesh.endpoints import endpoints
from extproc.mesh.envoy_filters import Patch, patches_for
from extproc.mesh.listener_patches import patch_listeners
from extproc.mesh.listeners import gateway_listeners, sidecar_listeners
from extproc.mesh.manifests import MeshError
from extproc.mesh.patches import Patches, patch_clusters, patch_routes
from extproc.mesh.proto import LISTS, WrongError, parsed, printed
from extproc.mesh.routes import dropped, gateway_routes, sidecar_routes
from extproc.mesh.world import Proxy, World

GATEWAY: Final = "gateway"

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

    def lists(self) -> Mapping[str, list[dict[str, Any]]]:
        """The four lists by name."""
        return {name: getattr(self, name) for name in LISTS}


def render(world: World, proxy: Proxy) -> Rendered:
    """Translate manifests for one proxy.

    Raises:
        MeshError: something would be refused by istiod or can't be translated here.
    """
    is_gateway = proxy.kind == GATEWAY
    made = {
        "listeners": gateway_listeners(world, proxy)
        if is_gateway
        else sidecar_listeners(world, proxy),
        "routes": gateway_routes(world, proxy) if is_gateway else sidecar_routes(world, proxy),
        "clusters": clusters(world, proxy),
        "endpoints": endpoints(world, proxy),
    }
    messages: dict[str, list[Any]] = {name: _held(name, made[name]) for name in made}
    read = patches_for(world, proxy)
    outward = Patches(read.patches, "GATEWAY" if is_gateway else "SIDECAR_OUTBOUND")
    messages["listeners"] = patch_listeners(messages["listeners"], outward)
    patch_routes(messages["routes"], outward, is_gateway=is_gateway)
    messages["clusters"] = _patched_clusters(messages["clusters"], outward, read.patches)
    notes = [*read.notes, *dropped(world, proxy)]
    notes += [f"{patch.title}: nothing to apply it to" for patch in outward.unused]
    return Rendered(**{name: _sorted(messages[name]) for name in LISTS}, notes=tuple(notes))


def _patched_clusters(found: list[Any], outward: Patches, patches: tuple[Patch, ...]) -> list[Any]:
    """Patch those for what comes in with what is meant for that."""
    inward = Patches((each for each in patches if not each.adds), "SIDECAR_INBOUND")
    is_inbound = [cluster.name.startswith(("inbound|", "InboundPassthrough")) for cluster in found]
    outside = [cluster for cluster, is_in in zip(found, is_inbound, strict=True) if not is_in]
    inside = [cluster for cluster, is_in in zip(found, is_inbound, strict=True) if is_in]
    return patch_clusters(outside, outward) + patch_clusters(inside, inward)


def _held(name: str, made: list[dict[str, Any]]) -> list[Any]:
    """Hold what was made to Envoy's types."""
    try:
        return [parsed(each, LISTS[name]) for each in made]
    except WrongError as wrong:
        raise MeshError(name, f"this rendering is wrong: {wrong}") from None


def _sorted(messages: list[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [printed(each) for each in messages]
    return sorted(found, key=lambda each: str(each.get("name") or each.get("cluster_name")))
