"""The routes of a gateway: virtual hosts where a Gateway's servers and VirtualServices meet.

Facts from istiod's `pilot/pkg/networking/core/gateway.go` and `pilot/pkg/model/gateway.go`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from extproc.mesh.destination_rules import DestinationRules
from extproc.mesh.fields import boolean, integer, labels, listed, message, name, text
from extproc.mesh.gateway_ports import listening_port
from extproc.mesh.manifests import Manifest, Tree
from extproc.mesh.match_fields import PORT_MAX
from extproc.mesh.matching import takes_everything
from extproc.mesh.route_actions import Place
from extproc.mesh.route_fields import Fields
from extproc.mesh.route_rules import Config, configuration, routes
from extproc.mesh.virtual_services import VirtualService, chosen, is_wildcard, is_within
from extproc.mesh.visibility import visible
from extproc.mesh.world import Proxy, World

_PLAIN: Final = frozenset(("HTTP", "HTTP2", "GRPC", "GRPC-WEB"))
_TERMINATED: Final = "HTTPS"
_PASSTHROUGH: Final = "PASSTHROUGH"
"""Also what a `tls` without a mode is."""
_PASSED_ON: Final = frozenset((_PASSTHROUGH, "AUTO_PASSTHROUGH"))


def _anything(_manifest: Manifest, _path: str, value: Tree) -> Tree:
    """What only listeners speak of; they check it."""
    return value


def _tls(manifest: Manifest, path: str, value: Tree) -> Tree:
    if not isinstance(value, dict):
        manifest.fail(path, "must be a mapping")
    if value.get("httpsRedirect") is not None:
        boolean(manifest, f"{path}.httpsRedirect", value["httpsRedirect"])
    return value


_GATEWAY: Final = message(
    {
        "selector": labels,
        "servers": listed(
            message(
                {
                    "port": message(
                        {
                            "number": integer(1, PORT_MAX),
                            "name": name,
                            "protocol": name,
                            "targetPort": _anything,
                        }
                    ),
                    "hosts": listed(name),
                    "bind": text,
                    "name": text,
                    "tls": _tls,
                    "defaultEndpoint": _anything,
                }
            )
        ),
    }
)


class Server(NamedTuple):
    """A server of a Gateway that speaks HTTP."""

    gateway: str
    """`namespace/name`."""
    route_name: str
    port: int
    hosts: tuple[str, ...]
    """As `namespace/host` or `host`; `.` is replaced by the Gateway's namespace."""
    is_tls: bool
    is_redirect: bool
    """Whether plain requests are sent to HTTPS."""


def gateway_configurations(
    world: World, proxy: Proxy, services: Sequence[VirtualService]
) -> tuple[list[Config], list[str]]:
    """A gateway's RouteConfigurations, sorted by name; and what istiod drops without a word.

    Raises:
        MeshError: a field of a Gateway is wrong.
    """
    by_route: dict[str, list[Server]] = {}
    for server in servers(world, proxy):
        by_route.setdefault(server.route_name, []).append(server)
    table = _Table(world, proxy, services)
    found = [
        configuration(route_name, table.virtual_hosts(servers))
        for route_name, servers in sorted(by_route.items())
    ]
    return found, list(dict.fromkeys(table.dropped))


class _Table:
    """What all of a gateway's configurations are made of."""

    def __init__(self, world: World, proxy: Proxy, services: Sequence[VirtualService]) -> None:
        self._proxy = proxy
        self._services = services
        self._hosts = {host.hostname: host for host in visible(world, proxy)}
        self._rules = DestinationRules(world.destination_rules)
        self.dropped: list[str] = []

    def virtual_hosts(self, servers: Sequence[Server]) -> list[Config]:
        """The virtual hosts of the servers that share a port; one without routes if none is met."""
        by_host: dict[str, Config] = {}
        made: dict[tuple[str, str], list[Config]] = {}
        for server in servers:
            for service in chosen(self._services, server.gateway, self._proxy.namespace):
                met = list(_met(server, service))
                key = (server.gateway, service.manifest.title)
                if met and key not in made:
                    made[key] = self._routes(service, server)
                if met and made[key]:
                    for host in met:
                        _add(by_host, host, made[key], server)
            if server.is_redirect:
                for host in server.hosts:
                    _add(by_host, host, [], server)
        if not by_host:
            name = f"blackhole:{servers[0].port}"
            return [{"name": name, "domains": ["*"]}]
        return sorted(_collapsed(by_host), key=lambda each: str(each["name"]))

    def _routes(self, service: VirtualService, server: Server) -> list[Config]:
        place = Place(
            self._proxy,
            server.gateway,
            server.port,
            server.is_tls,
            self._hosts,
            rules=self._rules,
        )
        found, unreached = routes(service, place)
        self.dropped += [unreached] if unreached else []
        return found


def servers(world: World, proxy: Proxy) -> Iterator[Server]:
    """The servers of all Gateways of a proxy that have routes.

    What istiod would drop is an error: servers that speak otherwise on one port, and HTTPS servers
    of one name, for each has routes of its own.
    """
    kinds: dict[tuple[int, str], str] = {}
    taken: set[str] = set()
    for gateway in world.gateways:
        said = _GATEWAY(gateway, "spec", gateway.spec)
        if not said.get("selector", {}).items() <= proxy.labels.items():
            continue
        for at, server in enumerate(said.get("servers", ())):
            path = f"spec.servers[{at}]"
            for field in ("number", "protocol"):
                if field not in server.get("port", {}):
                    gateway.fail(f"{path}.port.{field}", "missing")
            protocol = server["port"]["protocol"].upper()
            place = (server["port"]["number"], server.get("bind", ""))
            if kinds.setdefault(place, _kind(protocol)) != _kind(protocol):
                gateway.fail(f"{path}.port", "another server speaks otherwise on this port")
            if protocol not in _PLAIN and (protocol != _TERMINATED or _is_passed_on(server)):
                continue
            found = _server(gateway, path, server, listening_port(world, proxy, place[0]))
            if protocol == _TERMINATED and found.route_name in taken:
                gateway.fail(f"{path}.port.name", "another server on this port has it")
            taken.add(found.route_name)
            yield found


def _kind(protocol: str) -> str:
    """What all servers on a port must have in common."""
    if protocol in _PLAIN:
        return "HTTP"
    return "TLS" if protocol == _TERMINATED else protocol


def _is_passed_on(server: Fields) -> bool:
    tls = server.get("tls")
    return tls is not None and tls.get("mode", _PASSTHROUGH) in _PASSED_ON


def _server(gateway: Manifest, path: str, said: Fields, listening: int) -> Server:
    port, tls = said["port"], said.get("tls")
    bind = f".{said['bind']}" if said.get("bind") else ""
    if port["protocol"].upper() in _PLAIN:
        route_name = f"http.{listening}{bind}"
    elif tls is None:
        gateway.fail(f"{path}.tls", "missing: HTTPS needs it")
    else:
        names = f"{port.get('name', '')}.{gateway.name}.{gateway.namespace}"
        route_name = f"https.{port['number']}.{names}{bind}"
    return Server(
        f"{gateway.namespace}/{gateway.name}",
        route_name,
        port["number"],
        tuple(host.lower() for host in _hosts(said.get("hosts", ()), gateway.namespace)),
        is_tls=tls is not None,
        is_redirect=bool(tls and tls.get("httpsRedirect")),
    )


def _hosts(said: Sequence[str], home: str) -> list[str]:
    """`./host` means the Gateway's own namespace, `*/host` any; `*/*` is all there is."""
    if "*/*" in said:
        return ["*"]
    found = []
    for host in said:
        namespace, slash, rest = host.partition("/")
        if slash:
            found.append(
                rest if namespace == "*" else f"{home if namespace == '.' else namespace}/{rest}"
            )
        else:
            found.append(host)
    return found


def _met(server: Server, service: VirtualService) -> Iterator[str]:
    """The hosts that both speak for: of two that overlap the narrower, each once."""
    seen = set()
    for said in server.hosts:
        namespace, slash, rest = said.partition("/")
        if slash and namespace != service.manifest.namespace:
            continue
        ours = rest if slash else said
        for other in service.hosts:
            narrower = ours if is_within(ours, other) else other if is_within(other, ours) else None
            if narrower is not None and narrower not in seen:
                seen.add(narrower)
                yield narrower


def _add(by_host: dict[str, Config], host: str, found: Sequence[Config], server: Server) -> None:
    """More routes to a host: those of another VirtualService follow."""
    if host not in by_host:
        by_host[host] = {"name": f"{host}:{server.port}", "domains": [host], "routes": []}
        by_host[host]["include_request_attempt_count"] = True
    by_host[host]["routes"] += found
    if server.is_redirect:
        by_host[host]["require_tls"] = "ALL"


def _collapsed(by_host: dict[str, Config]) -> Iterator[Config]:
    """Hosts with the very same routes become one; routes that take everything go last."""
    alike: dict[tuple[Any, ...], Config] = {}
    for host in sorted(by_host, key=lambda each: (is_wildcard(each), -len(each), each)):
        each = by_host[host]
        key = (each.get("require_tls"), *map(id, each["routes"]))
        if key in alike:
            alike[key]["domains"] += each["domains"]
            continue
        alike[key] = each
    for each in alike.values():
        each["routes"].sort(key=lambda route: takes_everything(route["match"]))
        # Without routes it is there to send requests to HTTPS.
        yield each if each["routes"] else {k: v for k, v in each.items() if k != "routes"}
