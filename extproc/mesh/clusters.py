"""Clusters as istiod would send them, before EnvoyFilters.

Facts from istiod's `pilot/pkg/networking/core/cluster.go` and `cluster_builder.go`, with its
automatic mutual TLS, metadata exchange and `track_remaining` switched off.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, NamedTuple

from extproc.mesh import upstream_tls
from extproc.mesh.destination_rules import (
    DestinationRules,
    Policy,
    Rule,
    Subset,
    for_port,
    for_subset,
)
from extproc.mesh.load_assignments import load_assignment
from extproc.mesh.traffic_policy import (
    CONNECT_TIMEOUT,
    Draft,
    apply_connection_pool,
    apply_outbound,
)
from extproc.mesh.visibility import visible
from extproc.mesh.world import DOMAIN, Host, Port, Protocol, Proxy, Resolution, World

CLEANUP_NEVER: Final = "9223372035s"
"""Go's longest duration, nearly: istiod's word for an inbound cluster's hosts to stay."""
PASSTHROUGH_IDLE_TIMEOUT: Final = "300s"

_NO_LABELS: Final[Mapping[str, str]] = {}


class Outbound(NamedTuple):
    """A cluster and whose it is."""

    cluster: dict[str, Any]
    host: Host
    port: Port
    labels: Mapping[str, str]
    """Those of its subset; empty for the host as a whole."""


def clusters(world: World, proxy: Proxy) -> list[dict[str, Any]]:
    """All clusters of a proxy, sorted by name.

    Raises:
        MeshError: a DestinationRule or a ServiceEntry says what is not translated.
    """
    found = [each.cluster for each in outbound(world, proxy)]
    found.append(_black_hole())
    if proxy.kind == "sidecar":
        found.append(_passthrough())
        found.append(_inbound_passthrough(proxy))
        found += _inbound(world, proxy)
    return sorted(found, key=lambda each: str(each["name"]))


def outbound(world: World, proxy: Proxy) -> Iterator[Outbound]:
    """The clusters of each port of each host the proxy knows, and of the subsets of its rule.

    Raises:
        MeshError: as `clusters` does.
    """
    rules = DestinationRules(world.destination_rules)
    for host in visible(world, proxy):
        rule = rules.find(host, proxy)
        for port in host.ports:
            yield from _Maker(world, proxy, host, port, rule).all()


def cluster_name(host: Host, port: Port, subset: str = "") -> str:
    """The name by which routes refer to it."""
    return f"outbound|{port.number}|{subset}|{host.hostname}"


class _Maker(NamedTuple):
    """Makes the clusters of one port."""

    world: World
    proxy: Proxy
    host: Host
    port: Port
    rule: Rule | None

    def all(self) -> Iterator[Outbound]:
        """The host's own cluster, then its subsets; none where it needs endpoints and has none."""
        policy, _ = for_port(self.rule.policy if self.rule else None, self.port)
        main = self._draft(cluster_name(self.host, self.port), self._type(), _NO_LABELS)
        if main is None:
            return
        self._apply(main, policy or {}, "")
        if self.host.is_external:
            _istio(main)["external"] = True
        yield Outbound(main.built(), self.host, self.port, _NO_LABELS)
        for subset in self.rule.subsets if self.rule else ():
            made = self._subset(subset, policy, main.cluster["type"])
            if made is not None:
                yield Outbound(made.built(), self.host, self.port, subset.labels)

    def _subset(self, subset: Subset, policy: Policy | None, kind: str) -> Draft | None:
        own = (subset.policy or {}).get("loadBalancer", {})
        if own.get("simple") == "PASSTHROUGH":
            kind = "ORIGINAL_DST"
        name = cluster_name(self.host, self.port, subset.name)
        draft = self._draft(name, kind, subset.labels)
        if draft is not None:
            self._apply(draft, for_subset(policy, subset, self.port) or {}, subset.name)
            _istio(draft)["subset"] = subset.name
        return draft

    def _type(self) -> str:
        """How Envoy finds the endpoints. A gateway has no original destination to go to."""
        if self.host.resolution is Resolution.NONE and self.proxy.kind == "sidecar":
            return "ORIGINAL_DST"
        return {Resolution.DNS: "STRICT_DNS", Resolution.DNS_ROUND_ROBIN: "LOGICAL_DNS"}.get(
            self.host.resolution, "EDS"
        )

    def _draft(self, name: str, kind: str, labels: Mapping[str, str]) -> Draft | None:
        cluster: dict[str, Any] = {
            "name": name,
            "alt_stat_name": f"{name};",
            "type": kind,
            "common_lb_config": {"healthy_panic_threshold": {}},
            "metadata": _metadata([self.host]),
        }
        if kind in {"STRICT_DNS", "LOGICAL_DNS"}:
            assigned = load_assignment(name, self.host, self.port, labels)
            if "endpoints" not in assigned:
                return None
            cluster |= {"load_assignment": assigned, **_dns(self.proxy)}
        override = self._target_port()
        if kind == "ORIGINAL_DST" and override:
            cluster["original_dst_lb_config"] = {"upstream_port_override": override}
        draft = Draft(cluster, {})
        if self.port.protocol.is_http2:
            draft.speak_h2()
        elif self.proxy.kind == "sidecar" and self.port.protocol is Protocol.AUTO:
            draft.speak_as_asked()
        return draft

    def _target_port(self) -> int | None:
        """The port that a ServiceEntry without resolution sends to instead of the one asked for."""
        if self.host.resolution is not Resolution.NONE:
            return None
        said = self.host.manifest.spec.get("ports", ())
        return next(
            (each.get("targetPort") for each in said if each["number"] == self.port.number), None
        )

    def _apply(self, draft: Draft, policy: Policy, subset: str) -> None:
        apply_outbound(draft, policy)
        cluster = draft.cluster
        tls = policy.get("tls", {})
        if tls:
            automatic = upstream_tls.automatic(tls)
            if automatic:
                draft.options["upstream_http_protocol_options"] = automatic
            socket = upstream_tls.transport_socket(
                tls,
                f"outbound_.{self.port.number}_.{subset}_.{self.host.hostname}",
                identities(self.world, self.host),
                is_external=not self.host.is_kubernetes,
                is_h2=draft.is_h2,
            )
            if socket:
                cluster["transport_socket"] = socket
        if cluster["type"] == "EDS":
            cluster["eds_cluster_config"] = {
                "eds_config": {
                    "ads": {},
                    "initial_fetch_timeout": "0s",
                    "resource_api_version": "V3",
                },
                "service_name": cluster["name"],
            }
        if self.rule:
            _istio(draft)["config"] = _config(self.rule)
            if tls.get("mode") in {"SIMPLE", "MUTUAL"}:
                _istio(draft)["alpn_override"] = "false"


def identities(world: World, host: Host) -> Sequence[str]:
    """Whom mutual TLS expects behind a host: the service accounts of its Pods, or what is said."""
    accounts = {(pod.name, pod.namespace): pod for pod in world.pods}
    found = set()
    for endpoint in (each for served in host.endpoints.values() for each in served):
        name, namespace, *_ = endpoint.workload.split(";")
        pod = accounts.get((name, namespace)) if host.is_kubernetes else None
        if pod:
            account = pod.spec.get("serviceAccountName") or "default"
            found.add(f"spiffe://{DOMAIN}/ns/{namespace}/sa/{account}")
    if not host.is_kubernetes:
        found |= set(host.manifest.spec.get("subjectAltNames") or ())
    return sorted(found)


def _inbound(world: World, proxy: Proxy) -> Iterator[dict[str, Any]]:
    """A cluster for each port that a Service sends to this proxy; of several, the oldest rules."""
    rules = DestinationRules(world.destination_rules)
    served: dict[int, list[tuple[Host, Port]]] = {}
    for host in sorted(visible(world, proxy), key=lambda each: each.manifest.created):
        for port in host.ports if host.is_kubernetes else ():
            for endpoint in host.endpoints[port.number]:
                if endpoint.address == proxy.address:
                    served.setdefault(endpoint.port, []).append((host, port))
    for number, targets in served.items():
        host, port = targets[0]
        hosts = {host.hostname: host for host, other in targets if other.number == port.number}
        name = f"inbound|{number}||"
        draft = Draft(
            {
                "name": name,
                "alt_stat_name": f"{name};",
                "type": "ORIGINAL_DST",
                "lb_policy": "CLUSTER_PROVIDED",
                "cleanup_interval": CLEANUP_NEVER,
                "common_lb_config": {},
                "metadata": _metadata(hosts.values()),
                "upstream_bind_config": _bind(proxy),
            },
            {},
        )
        if port.protocol.is_http2:
            draft.speak_h2()
        elif port.protocol is Protocol.AUTO:
            draft.speak_as_asked()
        rule = rules.find(host, proxy)
        policy = rule.policy if rule else None
        if rule and policy is not None:
            _istio(draft)["config"] = _config(rule)
        own, _ = for_port(policy, port)
        apply_connection_pool(draft, (own or {}).get("connectionPool", {}))
        yield draft.built()


def _black_hole() -> dict[str, Any]:
    return {
        "name": "BlackHoleCluster",
        "alt_stat_name": "BlackHoleCluster;",
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
    }


def _passthrough() -> dict[str, Any]:
    draft = Draft(
        {
            "name": "PassthroughCluster",
            "alt_stat_name": "PassthroughCluster;",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
        },
        {"common_http_protocol_options": {"idle_timeout": PASSTHROUGH_IDLE_TIMEOUT}},
    )
    draft.speak_as_asked()
    apply_connection_pool(draft, {})
    return draft.built()


def _inbound_passthrough(proxy: Proxy) -> dict[str, Any]:
    # istiod leaves the other's alt_stat_name.
    return {
        **_passthrough(),
        "name": "InboundPassthroughCluster",
        "upstream_bind_config": _bind(proxy),
    }


def _bind(proxy: Proxy) -> dict[str, Any]:
    """An address of the loopback that iptables lets through to the workload."""
    address = "::6" if _is_v6(proxy) else "127.0.0.6"
    return {"source_address": {"address": address, "port_value": 0}}


def _is_v6(proxy: Proxy) -> bool:
    return bool(proxy.address) and isinstance(ip_address(proxy.address), IPv6Address)


def _dns(proxy: Proxy) -> dict[str, Any]:
    return {
        "dns_jitter": "0.100s",
        "dns_lookup_family": "V6_ONLY" if _is_v6(proxy) else "V4_ONLY",
        "dns_refresh_rate": "60s",
        "respect_dns_ttl": True,
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "udp_max_queries": 100,
            },
        },
    }


def _metadata(hosts: Iterable[Host]) -> dict[str, Any]:
    services = [
        {"host": each.hostname, "name": each.name, "namespace": each.namespace} for each in hosts
    ]
    return {"filter_metadata": {"istio": {"services": services}}}


def _istio(draft: Draft) -> dict[str, Any]:
    found: dict[str, Any] = draft.cluster["metadata"]["filter_metadata"]["istio"]
    return found


def _config(rule: Rule) -> str:
    manifest = rule.manifest
    return (
        f"/apis/networking.istio.io/v1/namespaces/{manifest.namespace}"
        f"/destination-rule/{manifest.name}"
    )
