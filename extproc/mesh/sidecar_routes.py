"""The routes of a sidecar to other hosts: a virtual host for each, on each port it has.

Facts from istiod's `pilot/pkg/networking/core/httproute.go` and `route/route.go`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from extproc.mesh.destination_rules import DestinationRules
from extproc.mesh.route_actions import NO_TIMEOUT, Place, timeouts
from extproc.mesh.route_rules import Config, configuration, default_route, routes
from extproc.mesh.virtual_services import (
    MESH,
    VirtualService,
    chosen,
    is_wildcard,
    is_within,
    overlaps,
)
from extproc.mesh.visibility import visible
from extproc.mesh.world import DOMAIN, Host, Port, Protocol, Proxy, World

HTTP_PORT: Final = 80
"""Here alone istiod makes virtual hosts for hosts that nobody else says there are."""
_NOWHERE: Final = frozenset(("", "None", "0.0.0.0"))  # noqa: S104  # an address that is none


def sidecar_configurations(
    world: World, proxy: Proxy, services: Sequence[VirtualService]
) -> tuple[list[Config], list[str]]:
    """A sidecar's RouteConfigurations, sorted by name; and what istiod drops without a word."""
    hosts = visible(world, proxy)
    table = _Table(proxy, hosts, chosen(services, MESH, proxy.namespace), world)
    found = []
    for port in sorted({port.number for host in hosts for port in host.ports if _is_routed(port)}):
        virtual_hosts = table.virtual_hosts(port)
        if any(_shares_listener(host, port) for host in hosts):
            found.append(configuration(str(port), [*virtual_hosts, _anything_else()]))
        for host in hosts:
            if _has(host, port) and not _shares_listener(host, port):
                name = f"{host.hostname}:{port}"
                own = [{**each, "domains": ["*"]} for each in virtual_hosts if each["name"] == name]
                found.append(configuration(name, own))
    found.sort(key=lambda each: str(each["name"]))
    return found, list(dict.fromkeys(table.dropped))


def domains(host: Host, namespace: str) -> tuple[list[str], list[str]]:
    """The names a host goes by, and those among them that are short: by a proxy's namespace."""
    suffix = f".svc.{DOMAIN}"
    short: list[str] = []
    if host.hostname.endswith(suffix):
        bare = host.hostname.removesuffix(suffix)
        name, _dot, home = bare.partition(".")
        short = [name, f"{bare}.svc", bare] if home == namespace else [bare, f"{bare}.svc"]
    addresses = [_address(each) for each in host.addresses if each not in _NOWHERE]
    return [host.hostname, f"{host.hostname}.", *short, *addresses], short


class _Draft(NamedTuple):
    """Routes, and the hosts they are for."""

    service: VirtualService | None
    names: tuple[str, ...]
    """Hosts that only a VirtualService says there are."""
    hosts: tuple[Host, ...]
    routes: list[Config]


class _Table:
    """What all of a sidecar's configurations are made of."""

    def __init__(
        self,
        proxy: Proxy,
        hosts: Sequence[Host],
        services: Sequence[VirtualService],
        world: World,
    ) -> None:
        self._proxy = proxy
        self._hosts = {host.hostname: host for host in hosts}
        self._services = services
        self._rules = DestinationRules(world.destination_rules)
        self.dropped: list[str] = []

    def virtual_hosts(self, port: int) -> list[Config]:
        """The virtual hosts of a port, sorted by name."""
        known = {
            name: host
            for name, host in self._hosts.items()
            if any(each.number == port for each in host.ports)
        }
        place = Place(
            self._proxy,
            MESH,
            port,
            is_tls=False,
            hosts=known,
            rules=self._rules,
        )
        drafts = list(self._of_services(place))
        spoken_for = {host.hostname for draft in drafts for host in draft.hosts}
        drafts += [
            _Draft(None, (), (host,), [default_route(host, port, place)])
            for name, host in known.items()
            if name not in spoken_for and _has(host, port)
        ]
        return self._named(drafts, port)

    def _of_services(self, place: Place) -> Iterator[_Draft]:
        for service in self._services:
            # Port 80 is an old exception of istiod's: other ports need a host that is known.
            if place.port != HTTP_PORT and not any(
                overlaps(host, name) for host in service.hosts for name in place.hosts
            ):
                continue
            found, unreached = routes(service, place)
            self.dropped += [unreached] if unreached else []
            names, hosts = self._apart(service, place)
            hosts = [host for host in hosts if _has(host, place.port)]
            if found and (hosts or place.port == HTTP_PORT):
                yield _Draft(service, tuple(names), tuple(hosts), found)

    def _apart(self, service: VirtualService, place: Place) -> tuple[list[str], list[Host]]:
        """A VirtualService's hosts: those nobody else says there are, and those that are known.

        A wildcard stands for the known hosts that no VirtualService speaks for more closely.
        """
        names: list[str] = []
        found: list[Host] = []
        for said in service.hosts:
            if not is_wildcard(said):
                if said in place.hosts:
                    found.append(place.hosts[said])
                else:
                    names.append(said)
        for said in filter(is_wildcard, service.hosts):
            covered = [host for name, host in place.hosts.items() if overlaps(name, said)]
            found += [host for host in covered if self._closest(host) is service]
            if not covered:
                names.append(said)
        return names, found

    def _closest(self, host: Host) -> VirtualService | None:
        """The VirtualService with this very host, else with the longest wildcard for it."""
        covering = [
            (said, service)
            for service in self._services
            for said in service.hosts
            if is_within(host.hostname, said)
        ]
        # The first of the longest: what is exact is as long as the name.
        longest = max(
            covering, key=lambda each: (not is_wildcard(each[0]), len(each[0])), default=None
        )
        return longest[1] if longest else None

    def _named(self, drafts: Sequence[_Draft], port: int) -> list[Config]:
        """Virtual hosts of drafts. Of two for one host the second is dropped, as istiod does."""
        made: dict[str, _Draft] = {}
        taken: set[str] = set()
        full = {host.hostname for draft in drafts for host in draft.hosts}
        found = []
        for draft in drafts:
            for hostname, host in _each(draft):
                name = f"{_address(hostname)}:{port}"
                if name in made:
                    self._drop(draft, made[name], hostname)
                    continue
                made[name] = draft
                said, short = (
                    domains(host, self._proxy.namespace) if host else ([_address(hostname)], [])
                )
                free = []
                for domain in said:
                    if domain.lower() in taken or (domain in short and domain in full):
                        continue
                    free.append(domain)
                    taken.add(domain.lower())
                if free:
                    found.append(_virtual_host(name, free, draft.routes))
        return sorted(found, key=lambda each: str(each["name"]))

    def _drop(self, second: _Draft, first: _Draft, hostname: str) -> None:
        if second.service and first.service and second.service is not first.service:
            self.dropped.append(
                f"{second.service.manifest.title}: spec.hosts: sidecars ignore it for {hostname}:"
                f" {first.service.manifest.title} goes before; write one VirtualService"
            )


def _each(draft: _Draft) -> Iterator[tuple[str, Host | None]]:
    for name in draft.names:
        yield name, None
    for host in draft.hosts:
        yield host.hostname, host


def _virtual_host(name: str, said: list[str], found: list[Config]) -> Config:
    return {
        "name": name,
        "domains": said,
        "routes": found,
        "include_request_attempt_count": True,
    }


def _anything_else() -> dict[str, Any]:
    """Hosts that are not known go where they say: `outboundTrafficPolicy` is ALLOW_ANY."""
    route = {
        "name": "allow_any",
        "match": {"prefix": "/"},
        "route": {"cluster": "PassthroughCluster", **timeouts(NO_TIMEOUT)},
    }
    return _virtual_host("allow_any", ["*"], [route])


def _is_routed(port: Port) -> bool:
    """Whether a proxy reads HTTP there, or looks whether it is."""
    return port.protocol.is_http or port.protocol is Protocol.AUTO


def _has(host: Host, number: int) -> bool:
    return any(port.number == number and _is_routed(port) for port in host.ports)


def _shares_listener(host: Host, number: int) -> bool:
    """Whether its listener for that port is everyone's.

    A port that nobody says the protocol of has one of its own, where its host has an address.
    """
    return any(
        port.number == number
        and (port.protocol.is_http or (port.protocol is Protocol.AUTO and not host.addresses))
        for port in host.ports
    )


def _address(said: str) -> str:
    return f"[{said}]" if ":" in said else said
