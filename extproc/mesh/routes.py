"""RouteConfigurations as istiod makes them of VirtualServices, before EnvoyFilters patch them."""

from typing import Final

from extproc.mesh.gateway_routes import gateway_configurations
from extproc.mesh.route_rules import Config
from extproc.mesh.sidecar_routes import sidecar_configurations
from extproc.mesh.virtual_services import read_all
from extproc.mesh.world import Proxy, World

GATEWAY: Final = "gateway"


def gateway_routes(world: World, proxy: Proxy) -> list[Config]:
    """A gateway's RouteConfigurations, sorted by name.

    Raises:
        MeshError: istiod would refuse a manifest, or a field of one is not translated.
    """
    return gateway_configurations(world, proxy, read_all(world))[0]


def sidecar_routes(world: World, proxy: Proxy) -> list[Config]:
    """A sidecar's RouteConfigurations for what it sends out, sorted by name.

    Raises:
        MeshError: istiod would refuse a manifest, or a field of one is not translated.
    """
    return sidecar_configurations(world, proxy, read_all(world))[0]


def dropped(world: World, proxy: Proxy) -> list[str]:
    """What istiod leaves out of a proxy's routes without a word, each in a line.

    That is a second VirtualService for a host that a sidecar knows, and rules that no request
    reaches.

    Raises:
        MeshError: istiod would refuse a manifest, or a field of one is not translated.
    """
    configurations = gateway_configurations if proxy.kind == GATEWAY else sidecar_configurations
    return configurations(world, proxy, read_all(world))[1]
