"""What the rules look at: manifests, taken apart, however odd their shape.

Unlike `world_of`, nothing here insists: what can't be understood is passed over, since there are
cluster parts that a lint need not understand.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

from extproc.config.settings import Settings
from extproc.mesh.lint.patches import ExtProc, Patch, ext_procs_of, patches_of
from extproc.mesh.lint.routes import Destination, Route, routes_of
from extproc.mesh.manifests import Manifest, mapping, sequence, texts
from extproc.mesh.world import DOMAIN, ISTIO, Protocol, protocol_of, qualified

_CLUSTER: Final = re.compile(r"(?:outbound|inbound)\|(\d*)\|([^|]*)\|([^|]*)")


class Name(NamedTuple):
    """A host that something defines. `name` may be a wildcard."""

    name: str
    ports: Mapping[int, Protocol]
    manifest: Manifest


class Reference(NamedTuple):
    """A place that names a host, and perhaps a subset and a port of it."""

    manifest: Manifest
    path: str
    host: str
    subset: str
    port: int | None


class Scene:
    """All manifests of one cluster, and the settings of the filter if they are known."""

    def __init__(self, manifests: Sequence[Manifest], settings: Settings | None) -> None:
        self.manifests = tuple(manifests)
        self.settings = settings

    def istio(self, kind: str) -> tuple[Manifest, ...]:
        """Istio's resources of a kind: oldest first, then by name, as istiod sorts them."""
        found = [each for each in self.manifests if each.kind == kind and each.group in ISTIO]
        return tuple(sorted(found, key=lambda each: (each.created, each.name, each.namespace)))

    @cached_property
    def patches(self) -> tuple[Patch, ...]:
        """The patches of all EnvoyFilters, in the order in which istiod applies them."""
        found = [patch for each in self.istio("EnvoyFilter") for patch in patches_of(each)]
        return tuple(sorted(found, key=lambda patch: patch.priority))

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """The HTTP routes of all VirtualServices."""
        return tuple(route for _, routes in self.virtual_services for route in routes)

    @cached_property
    def virtual_services(self) -> tuple[tuple[Manifest, tuple[Route, ...]], ...]:
        """All VirtualServices, and their routes."""
        return tuple((each, tuple(routes_of(each))) for each in self.istio("VirtualService"))

    @cached_property
    def llm_routes(self) -> tuple[Route, ...]:
        """Those that have to do with LLM traffic: theirs, or their VirtualService's."""
        served = self.served_by
        about = {
            id(route.manifest)
            for route in self.routes
            if route.is_llm or any(_label(each.host) in served for each in route.destinations)
        }
        return tuple(route for route in self.routes if id(route.manifest) in about)

    @cached_property
    def ext_procs(self) -> tuple[ExtProc, ...]:
        """Our ext_proc filters: by their names, or else whichever is beside our routes."""
        found = tuple(each for patch in self.patches for each in ext_procs_of(patch))
        named = tuple(each for each in found if each.is_llm)
        if named or not any(route.llm_headers for route in self.routes):
            return named
        return found

    @cached_property
    def deciders(self) -> tuple[ExtProc, ...]:
        """Those of them that see requests and choose their route."""
        return tuple(each for each in self.ext_procs if each.decides)

    @cached_property
    def served_by(self) -> Mapping[str, frozenset[str]]:
        """The models that a workload serves, by the workload's name."""
        found: dict[str, frozenset[str]] = {}
        for name, model in self.settings.models.items() if self.settings else ():
            for workload in model.served_by:
                found[workload] = found.get(workload, frozenset()) | {name}
        return found

    @cached_property
    def hosts(self) -> tuple[Name, ...]:
        """Every host that a Service or a ServiceEntry defines."""
        services = [each for each in self.manifests if each.kind == "Service" and not each.group]
        found = [
            Name(
                f"{each.name}.{each.namespace}.svc.{DOMAIN}",
                dict(_ports(each, "port")),
                each,
            )
            for each in services
        ]
        for entry in self.istio("ServiceEntry"):
            ports = dict(_ports(entry, "number"))
            found += [Name(str(host), ports, entry) for host in sequence(entry.spec.get("hosts"))]
        return tuple(found)

    def host(self, name: str) -> Name | None:
        """What defines the host of this full name."""
        found = self._hosts_by_name.get(name)
        wild = (each for each in self._wild_hosts if name.endswith(each.name[1:]))
        return found or next(wild, None)

    @cached_property
    def _hosts_by_name(self) -> Mapping[str, Name]:
        return {each.name: each for each in reversed(self.hosts)}

    @cached_property
    def _wild_hosts(self) -> tuple[Name, ...]:
        return tuple(each for each in self.hosts if each.name.startswith("*"))

    @cached_property
    def whole_namespaces(self) -> frozenset[str]:
        """Namespaces of which Services are among the manifests, others than a gateway's own."""
        return frozenset(
            each.manifest.namespace
            for each in self.hosts
            if each.manifest.kind == "Service" and not self._is_gateway(each.manifest)
        )

    @cached_property
    def _gateway_selectors(self) -> tuple[Mapping[str, str], ...]:
        return tuple(texts(each.spec.get("selector")) for each in self.istio("Gateway"))

    def _is_gateway(self, service: Manifest) -> bool:
        """Whether a Service is the door itself, and so says nothing of the hosts behind it."""
        selector = texts(service.spec.get("selector"))
        return any(each and each.items() <= selector.items() for each in self._gateway_selectors)

    @cached_property
    def subsets(self) -> Mapping[str, Mapping[str, Mapping[str, str]]]:
        """Of each host that a DestinationRule is for: its subsets, and their labels."""
        found: dict[str, dict[str, Mapping[str, str]]] = {}
        for rule in self.istio("DestinationRule"):
            host = qualified(str(rule.spec.get("host")), rule.namespace)
            of_host = found.setdefault(host, {})
            for subset in sequence(rule.spec.get("subsets")):
                labels = mapping(mapping(subset).get("labels"))
                of_host[str(mapping(subset).get("name"))] = labels
        return found

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """Every place in routes and patches that names a host."""
        of_routes = [
            Reference(route.manifest, at.path, at.host, at.subset, at.port)
            for route in self.routes
            for at in (*route.destinations, *route.mirrors)
            if at.host
        ]
        of_patches = [
            Reference(patch.manifest, path, host, subset, port)
            for patch in self.patches
            for path, text in _texts(f"{patch.path}.patch.value", patch.value)
            for host, subset, port in _clusters(text)
        ]
        return (*of_routes, *of_patches)


def cluster_named(text: str) -> tuple[str, str, int | None] | None:
    """The host, subset and port that a cluster of istiod's is for: `outbound|80|v1|host`."""
    match = _CLUSTER.fullmatch(text)
    if match is None or not match[3]:
        return None
    return match[3], match[2], int(match[1][:6]) if match[1] else None


def destination_label(destination: Destination) -> str:
    """The first label of its host, by which workloads are mostly named."""
    return _label(destination.host)


def _label(host: str) -> str:
    return host.partition(".")[0]


def _clusters(text: str) -> Iterator[tuple[str, str, int | None]]:
    found = cluster_named(text)
    if found is not None and text.startswith("outbound|"):
        yield found


def _ports(manifest: Manifest, key: str) -> Iterator[tuple[int, Protocol]]:
    for said in sequence(manifest.spec.get("ports")):
        port = mapping(said)
        number = port.get(key)
        if isinstance(number, int):
            speaks = port if key == "port" else {"appProtocol": port.get("protocol") or ""}
            yield number, protocol_of(speaks)


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  # YAML
    """Every text below, and where it stands."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(f"{path}.{key}", item)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _texts(f"{path}[{at}]", item)
