"""Clusters as istiod would send them, before EnvoyFilters.

Facts from istiod's `pilot/pkg/networking/core/cluster.go` and `cluster_builder.go`, with its
automatic mutual TLS, metadata exchange and `track_remaining` switched off.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from extproc.mesh import upstream_tls
from extproc.mesh.cluster_drafts import Draft, draft, is_v6
from extproc.mesh.destination_rules import (
    DestinationRules,
    Policy,
    Rule,
    Subset,
    for_port,
    for_subset,
)
from extproc.mesh.load_assignments import load_assignment
from extproc.mesh.local_clusters import black_hole, inbound, inbound_passthrough, passthrough
from extproc.mesh.traffic_policy import apply_outbound
from extproc.mesh.visibility import visible
from extproc.mesh.world import DOMAIN, Host, Port, Proxy, Resolution, World

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
    found.append(black_hole())
    if proxy.kind == "sidecar":
        rules = DestinationRules(world.destination_rules)
        found += [passthrough(), inbound_passthrough(proxy)]
        found += inbound(visible(world, proxy), rules, proxy)
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
            main.istio["external"] = True
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
        made = self._draft(name, kind, subset.labels)
        if made is not None:
            self._apply(made, for_subset(policy, subset, self.port) or {}, subset.name)
            made.istio["subset"] = subset.name
        return made

    def _type(self) -> str:
        """How Envoy finds the endpoints. A gateway has no original destination to go to."""
        if self.host.resolution is Resolution.NONE and self.proxy.kind == "sidecar":
            return "ORIGINAL_DST"
        return {Resolution.DNS: "STRICT_DNS", Resolution.DNS_ROUND_ROBIN: "LOGICAL_DNS"}.get(
            self.host.resolution, "EDS"
        )

    def _draft(self, name: str, kind: str, labels: Mapping[str, str]) -> Draft | None:
        made = draft(name, kind, [self.host], common_lb_config={"healthy_panic_threshold": {}})
        if kind in {"STRICT_DNS", "LOGICAL_DNS"}:
            assigned = load_assignment(name, self.host, self.port, labels)
            if "endpoints" not in assigned:
                return None
            made.cluster.update(load_assignment=assigned, **_dns(self.proxy))
        override = self._target_port()
        if kind == "ORIGINAL_DST" and override:
            made.cluster["original_dst_lb_config"] = {"upstream_port_override": override}
        made.speak_as_port(self.port, self.proxy)
        return made

    def _target_port(self) -> int | None:
        """The port that a ServiceEntry without resolution sends to instead of the one asked for."""
        if self.host.resolution is not Resolution.NONE:
            return None
        said = self.host.manifest.spec.get("ports", ())
        return next(
            (each.get("targetPort") for each in said if each["number"] == self.port.number), None
        )

    def _apply(self, made: Draft, policy: Policy, subset: str) -> None:
        apply_outbound(made, policy)
        cluster = made.cluster
        tls = policy.get("tls", {})
        if tls:
            automatic = upstream_tls.automatic(tls)
            if automatic:
                made.options["upstream_http_protocol_options"] = automatic
            socket = upstream_tls.transport_socket(
                tls,
                f"outbound_.{self.port.number}_.{subset}_.{self.host.hostname}",
                identities(self.world, self.host),
                is_external=not self.host.is_kubernetes,
                is_h2=made.is_h2,
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
            made.istio["config"] = self.rule.path
            if tls.get("mode") in {"SIMPLE", "MUTUAL"}:
                made.istio["alpn_override"] = "false"


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


def _dns(proxy: Proxy) -> dict[str, Any]:
    return {
        "dns_jitter": "0.100s",
        "dns_lookup_family": "V6_ONLY" if is_v6(proxy) else "V4_ONLY",
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
