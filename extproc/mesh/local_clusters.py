"""Clusters that are no host's: a sidecar's own workload, and what nothing else takes.

Facts from istiod's `pilot/pkg/networking/core/cluster_builder.go`.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from extproc.mesh.cluster_drafts import draft, is_v6
from extproc.mesh.destination_rules import DestinationRules, for_port
from extproc.mesh.traffic_policy import CONNECT_TIMEOUT, apply_connection_pool
from extproc.mesh.world import Host, Port, Proxy

CLEANUP_NEVER: Final = "9223372035s"
"""Go's longest duration, nearly: istiod's word for an inbound cluster's hosts to stay."""
PASSTHROUGH_IDLE_TIMEOUT: Final = "300s"
PASSTHROUGH: Final = "PassthroughCluster"


def served(hosts: Iterable[Host], proxy: Proxy) -> dict[int, list[tuple[Host, Port]]]:
    """The Services' ports that lead to each port of this proxy, the oldest Service first."""
    found: dict[int, list[tuple[Host, Port]]] = {}
    for host in sorted(hosts, key=lambda each: (each.manifest.created, each.hostname)):
        for port in host.ports if host.is_kubernetes else ():
            for endpoint in host.endpoints[port.number]:
                if endpoint.address == proxy.address:
                    found.setdefault(endpoint.port, []).append((host, port))
    return found


def inbound(
    hosts: Iterable[Host], rules: DestinationRules, proxy: Proxy
) -> Iterator[dict[str, Any]]:
    """A cluster for each port that a Service sends to this proxy; of several, the oldest rules."""
    for number, targets in served(hosts, proxy).items():
        host, port = targets[0]
        same_port = {each.hostname: each for each, other in targets if other.number == port.number}
        made = draft(
            f"inbound|{number}||",
            "ORIGINAL_DST",
            same_port.values(),
            lb_policy="CLUSTER_PROVIDED",
            cleanup_interval=CLEANUP_NEVER,
            common_lb_config={},
            upstream_bind_config=_bind(proxy),
        )
        made.speak_as_port(port, proxy)
        rule = rules.find(host, proxy)
        policy = rule.policy if rule else None
        if rule and policy is not None:
            made.istio["config"] = rule.path
        own, _ = for_port(policy, port)
        apply_connection_pool(made, own or {})
        yield made.built()


def black_hole() -> dict[str, Any]:
    """The cluster of routes that lead nowhere."""
    return draft("BlackHoleCluster", "STATIC", connect_timeout=CONNECT_TIMEOUT).built()


def passthrough() -> dict[str, Any]:
    """The cluster of requests to hosts that nobody knows: they go where they were sent."""
    made = draft(PASSTHROUGH, "ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED")
    made.options["common_http_protocol_options"] = {"idle_timeout": PASSTHROUGH_IDLE_TIMEOUT}
    made.speak_as_asked()
    apply_connection_pool(made, {})
    return made.built()


def inbound_passthrough(proxy: Proxy) -> dict[str, Any]:
    """The same for ports of the workload that no Service knows."""
    # istiod leaves the other's alt_stat_name.
    own = {"name": "InboundPassthroughCluster", "upstream_bind_config": _bind(proxy)}
    return {**passthrough(), **own}


def _bind(proxy: Proxy) -> dict[str, Any]:
    """An address of the loopback that iptables lets through to the workload."""
    address = "::6" if is_v6(proxy) else "127.0.0.6"
    return {"source_address": {"address": address, "port_value": 0}}
