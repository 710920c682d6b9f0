"""What a cluster with these manifests would know: hosts, their ports and endpoints, and the rules.

Hosts come of Services (with EndpointSlices and Pods) and of ServiceEntries. What is not here is
not known to the mesh either: there is no DNS and no API server behind it.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from extproc.mesh.kinds import check_kinds
from extproc.mesh.manifests import Manifest, mapping, sequence
from extproc.mesh.service_entry_fields import service_entry

DOMAIN: Final = "cluster.local"
CLUSTER_ID: Final = "Kubernetes"
ROOT_NAMESPACE: Final = "istio-system"
ISTIO: Final = frozenset(("networking.istio.io",))


class Protocol(StrEnum):
    """What a port speaks, in Istio's names; AUTO where nobody said, so that a proxy must sniff."""

    HTTP = "HTTP"
    HTTP2 = "HTTP2"
    GRPC = "GRPC"
    GRPC_WEB = "GRPC-Web"
    HTTPS = "HTTPS"
    TLS = "TLS"
    TCP = "TCP"
    AUTO = "AUTO"

    @property
    def is_http(self) -> bool:
        """Whether routes apply."""
        return self in _HTTP

    @property
    def is_http2(self) -> bool:
        """Whether upstreams are spoken to in HTTP/2."""
        return self in _HTTP2


_HTTP: Final = frozenset((Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC, Protocol.GRPC_WEB))
_HTTP2: Final = frozenset((Protocol.HTTP2, Protocol.GRPC, Protocol.GRPC_WEB))
_NAMED: Final = {
    "http": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "kubernetes.io/wss": Protocol.HTTPS,
    "grpc": Protocol.GRPC,
    "grpc-web": Protocol.GRPC_WEB,
    "https": Protocol.HTTPS,
    "tls": Protocol.TLS,
    "tcp": Protocol.TCP,
    "mongo": Protocol.TCP,
    "mysql": Protocol.TCP,
    "redis": Protocol.TCP,
}
_SERVER_SPEAKS_FIRST: Final = frozenset((25, 53, 3306, 27017))
"""Ports whose protocols break where a proxy waits to hear what the client speaks."""


class Resolution(StrEnum):
    """How a host's endpoints are found: a Service's, or a ServiceEntry's `resolution`."""

    CLUSTER = "CLUSTER"
    NONE = "NONE"
    STATIC = "STATIC"
    DNS = "DNS"
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"


class Port(NamedTuple):
    """A port of a host."""

    number: int
    name: str
    protocol: Protocol


class Endpoint(NamedTuple):
    """Where one port of a host is served."""

    address: str
    port: int
    labels: Mapping[str, str]
    workload: str
    """As istiod writes it: `name;namespace;service;version;cluster`."""
    weight: int = 1
    is_ready: bool = True
    """An endpoint that isn't is known, and mostly sent to proxies as unhealthy."""


class Host(NamedTuple):
    """A name that requests may be sent to, in the order its manifest says its ports."""

    hostname: str
    name: str
    namespace: str
    addresses: tuple[str, ...]
    """Virtual addresses; empty where it has none."""
    ports: tuple[Port, ...]
    endpoints: Mapping[int, tuple[Endpoint, ...]]
    """By the host's port."""
    resolution: Resolution
    is_external: bool
    manifest: Manifest

    @property
    def is_kubernetes(self) -> bool:
        """Whether it comes of a Service, so that its short names are known too."""
        return self.manifest.kind == "Service"


class Proxy(NamedTuple):
    """The proxy that is rendered for. `kind` is `gateway` or `sidecar`."""

    kind: str
    namespace: str
    labels: Mapping[str, str]
    address: str = ""
    version: str = "1.31.0"


class World(NamedTuple):
    """All that istiod would look at."""

    hosts: tuple[Host, ...]
    """Sorted by name."""
    virtual_services: tuple[Manifest, ...]
    """These and the following: oldest first, then by name and namespace, as istiod sorts them."""
    destination_rules: tuple[Manifest, ...]
    gateways: tuple[Manifest, ...]
    envoy_filters: tuple[Manifest, ...]
    pods: tuple[Manifest, ...]

    def host(self, name: str, namespace: str) -> Host | None:
        """The host that a rule in `namespace` means by `name`: short names are looked up there."""
        wanted = qualified(name, namespace)
        return next((host for host in self.hosts if host.hostname == wanted), None)


def qualified(name: str, namespace: str) -> str:
    """The full name that a rule in `namespace` means by `name`; wildcards stay as they are."""
    return name if "." in name or name.startswith("*") else f"{name}.{namespace}.svc.{DOMAIN}"


def world_of(manifests: Iterable[Manifest]) -> World:
    """Look at the manifests as istiod does.

    Raises:
        MeshError: a resource is of a kind that istiod would translate and this can't, or a field
            that is read here is not what it must be.
    """
    known = tuple(manifests)
    check_kinds(known)

    def rules(kind: str) -> tuple[Manifest, ...]:
        found = [each for each in known if each.kind == kind and each.group in ISTIO]
        return tuple(sorted(found, key=lambda each: (each.created, each.name, each.namespace)))

    pods = tuple(each for each in known if each.kind == "Pod")
    slices = [each for each in known if each.kind == "EndpointSlice"]
    hosts = [_of_service(each, slices, pods) for each in known if each.kind == "Service"]
    hosts += [host for entry in rules("ServiceEntry") for host in _of_entry(entry)]
    return World(
        tuple(sorted(hosts, key=lambda host: host.hostname)),
        rules("VirtualService"),
        rules("DestinationRule"),
        rules("Gateway"),
        rules("EnvoyFilter"),
        pods,
    )


def protocol_of(port: Mapping[str, object]) -> Protocol:
    """What a Service's port speaks: `appProtocol`, else the part of its name before a dash."""
    said = port.get("appProtocol")
    name = str(said if said is not None else port.get("name") or "").lower()
    found = _NAMED.get(name)
    if found is None and said is None:
        found = _NAMED.get("grpc-web" if name.startswith("grpc-web-") else name.split("-")[0])
    if found is None and port.get("port") in _SERVER_SPEAKS_FIRST:
        return Protocol.TCP
    return found or Protocol.AUTO


def _of_service(service: Manifest, slices: Sequence[Manifest], pods: Sequence[Manifest]) -> Host:
    spec = service.spec
    if spec.get("type") == "ExternalName":
        service.fail("spec.type", "ExternalName is not translated; write a ServiceEntry")
    if spec.get("clusterIP") == "None":
        service.fail("spec.clusterIP", "headless Services are not translated")
    said = service.mappings("spec.ports", spec.get("ports"))
    ports = tuple(
        Port(
            _number(service, f"spec.ports[{at}].port", port),
            str(port.get("name") or ""),
            protocol_of(port),
        )
        for at, port in enumerate(said)
        # Proxies are told nothing of UDP.
        if port.get("protocol") != "UDP"
    )
    mine = [
        each
        for each in slices
        if each.namespace == service.namespace
        and each.labels.get("kubernetes.io/service-name") == service.name
    ]
    by_name = {pod.name: pod for pod in pods if pod.namespace == service.namespace}
    endpoints = {port.number: tuple(_served(port, mine, by_name)) for port in ports}
    addresses = [str(each) for each in sequence(spec.get("clusterIPs"))]
    first = str(spec.get("clusterIP") or "")
    return Host(
        f"{service.name}.{service.namespace}.svc.{DOMAIN}",
        service.name,
        service.namespace,
        tuple(addresses or ([first] if first else [])),
        ports,
        endpoints,
        Resolution.CLUSTER,
        is_external=False,
        manifest=service,
    )


def _served(
    port: Port, slices: Sequence[Manifest], pods: Mapping[str, Manifest]
) -> Iterable[Endpoint]:
    for each in slices:
        number = 0
        for at, said in enumerate(each.mappings("ports", each.document.get("ports"))):
            if not number and (said.get("name") or "") == port.name and said.get("port"):
                number = _number(each, f"ports[{at}].port", said)
        served = each.mappings("endpoints", each.document.get("endpoints"))
        for endpoint in served if number else ():
            conditions = mapping(endpoint.get("conditions"))
            is_ready = conditions.get("ready") is not False
            if not is_ready and conditions.get("terminating"):
                continue
            pod = pods.get(str(mapping(endpoint.get("targetRef")).get("name") or ""))
            for address in sequence(endpoint.get("addresses")):
                labels = pod.labels if pod else {}
                workload = _workload(pod.name if pod else "", pod.namespace if pod else "", labels)
                yield Endpoint(str(address), number, labels, workload, is_ready=is_ready)


def _workload(name: str, namespace: str, labels: Mapping[str, str]) -> str:
    """`istio.workload` of an endpoint: who it is, for telemetry and for the filter."""
    service = (
        labels.get("service.istio.io/canonical-name")
        or labels.get("app.kubernetes.io/name")
        or labels.get("app")
        or name
    )
    revision = (
        labels.get("service.istio.io/canonical-revision")
        or labels.get("app.kubernetes.io/version")
        or labels.get("version")
        or ""
    )
    # istiod leaves out the revision that everything has by default.
    return f"{name};{namespace};{service};{'' if revision == 'latest' else revision};{CLUSTER_ID}"


def _of_entry(entry: Manifest) -> Iterable[Host]:
    spec = service_entry(entry)
    ports = tuple(
        Port(port["number"], port["name"], protocol_of({"appProtocol": port.get("protocol", "")}))
        for port in spec["ports"]
    )
    targets = {port["number"]: port.get("targetPort", port["number"]) for port in spec["ports"]}
    for hostname in spec["hosts"]:
        yield Host(
            hostname,
            hostname,
            entry.namespace,
            tuple(spec.get("addresses", ())),
            ports,
            {port.number: tuple(_entered(entry, spec, hostname, port, targets)) for port in ports},
            Resolution[spec.get("resolution", "NONE")],
            is_external=spec.get("location", "MESH_EXTERNAL") == "MESH_EXTERNAL",
            manifest=entry,
        )


def _entered(
    entry: Manifest,
    spec: Mapping[str, Any],
    hostname: str,
    port: Port,
    targets: Mapping[int, int],
) -> Iterable[Endpoint]:
    said = spec.get("endpoints", ())
    if not said and spec.get("resolution", "NONE").startswith("DNS"):
        # A name to resolve stands for itself.
        said = ({"address": hostname},)
    for endpoint in said:
        labels = endpoint.get("labels", {})
        yield Endpoint(
            endpoint["address"],
            endpoint.get("ports", {}).get(port.name, targets[port.number]),
            labels,
            _workload(entry.name, entry.namespace, labels),
            endpoint.get("weight") or 1,
        )


def _number(manifest: Manifest, path: str, port: Mapping[str, object], key: str = "port") -> int:
    number = port.get(key)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 1 << 16:
        manifest.fail(path, "must be a port number")
    return number
