"""Endpoints of one port of a host, as Envoy's ClusterLoadAssignment."""

from collections.abc import Mapping
from typing import Any

from extproc.mesh.world import Endpoint, Host, Port


def load_assignment(
    cluster: str, host: Host, port: Port, labels: Mapping[str, str], *, only_ready: bool = False
) -> dict[str, Any]:
    """The endpoints that have these labels, all in one locality without a name."""
    chosen = (
        each
        for each in host.endpoints.get(port.number, ())
        if labels.items() <= each.labels.items() and (each.is_ready or not only_ready)
    )
    said = [_endpoint(host, each) for each in chosen]
    if not said:
        return {"cluster_name": cluster}
    locality = {
        "lb_endpoints": said,
        "load_balancing_weight": sum(each["load_balancing_weight"] for each in said),
        "locality": {},
    }
    return {"cluster_name": cluster, "endpoints": [locality]}


def _endpoint(host: Host, endpoint: Endpoint) -> dict[str, Any]:
    address = {"address": endpoint.address, "port_value": endpoint.port}
    health = "HEALTHY" if endpoint.is_ready else "UNHEALTHY"
    return {
        "endpoint": {"address": {"socket_address": address}},
        # Of a ServiceEntry's endpoints nobody knows whether they are healthy.
        **({"health_status": health} if host.is_kubernetes else {}),
        "load_balancing_weight": max(endpoint.weight, 1),
        "metadata": {"filter_metadata": {"istio": {"workload": endpoint.workload}}},
    }
