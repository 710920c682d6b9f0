"""EnvoyFilters applied to route configurations, virtual hosts and routes."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from extproc.mesh.envoy_filters import MERGES, Patch
from extproc.mesh.inserting import inserted
from extproc.mesh.manifests import mapping
from extproc.mesh.patch_matches import ROUTE_KINDS
from extproc.mesh.patches import Patches, merged

ServerPorts = Mapping[int, Collection[int]]
"""The ports of Gateways' servers, by the port on which a gateway listens for them."""

_SECURE_PARTS = 5


def patch_routes(
    configurations: Sequence[RouteConfiguration], patches: Patches, ports: ServerPorts | None
) -> None:
    """Apply what is for a gateway's routes; for a sidecar's where there are no `ports`."""
    for configuration in configurations:
        meant = [each for each in patches.to(*ROUTE_KINDS) if _is_meant(configuration, each, ports)]
        for patch in meant:
            if patch.apply_to == "ROUTE_CONFIGURATION" and patch.operation in MERGES:
                merged(configuration, patch)
                patches.used(patch)
        _patch_hosts(configuration, meant, patches)


def parts(name: str) -> tuple[int, str, str]:
    """Port, name of the port, and gateway of `http.80` or `https.443.name.gateway.namespace`.

    As istiod takes them: of a server with an address of its own it knows none.
    """
    scheme, _, rest = name.partition(".")
    if scheme == "http":
        return _number(rest), "", ""
    said = name.split(".")
    if scheme != "https" or len(said) != _SECURE_PARTS:
        return 0, "", ""
    _, port, port_name, gateway, namespace = said
    return _number(port), port_name, f"{namespace}/{gateway}"


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _is_meant(configuration: RouteConfiguration, patch: Patch, ports: ServerPorts | None) -> bool:
    match = mapping(patch.match.get("routeConfiguration"))
    if match.get("name", configuration.name) != configuration.name:
        return False
    if ports is None:
        port = _number(configuration.name.removeprefix("inbound|").partition("|")[0])
        return bool(match.get("portNumber", port) == port)
    port, port_name, gateway = parts(configuration.name)
    wanted = (match.get("portName", port_name), match.get("gateway", gateway))
    if wanted != (port_name, gateway):
        return False
    return "portNumber" not in match or match["portNumber"] in ports.get(port, (port,))


def _patch_hosts(
    configuration: RouteConfiguration, meant: Sequence[Patch], patches: Patches
) -> None:
    removed = {
        host.name for host in configuration.virtual_hosts if not _patch_host(host, meant, patches)
    }
    for patch in meant:
        if patch.apply_to == "VIRTUAL_HOST" and patch.adds:
            configuration.virtual_hosts.append(patch.value)
            patches.used(patch)
    # By name, so that what was added by a removed name is removed too.
    for at in reversed(range(len(configuration.virtual_hosts))):
        if configuration.virtual_hosts[at].name in removed:
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
    if "route" in _vhost(patch):
        is_meant = functools.partial(_is_route, patch=patch)
    if patch.operation == "INSERT_FIRST" and is_meant is not None:
        # At the top all the same, if the route that it names is there.
        return any(map(is_meant, host.routes)) and inserted(host.routes, patch, None)
    return inserted(host.routes, patch, is_meant)


def _is_host(host: VirtualHost, patch: Patch) -> bool:
    match = _vhost(patch)
    if match.get("name", host.name) != host.name:
        return False
    return "domainName" not in match or match["domainName"] in host.domains


def _is_route(route: Route, patch: Patch) -> bool:
    match = mapping(_vhost(patch).get("route"))
    if match.get("name", route.name) != route.name:
        return False
    action, has = match.get("action", "ANY"), str(route.WhichOneof("action")).upper()
    # Any is taken whose action the match has no word for.
    return action in ("ANY", has) or has not in ("ROUTE", "REDIRECT", "DIRECT_RESPONSE")


def _vhost(patch: Patch) -> Mapping[str, Any]:
    return mapping(mapping(patch.match.get("routeConfiguration")).get("vhost"))
