"""Endpoints of one port of a host, as Envoy's ClusterLoadAssignment."""

from collections.abc import Mapping
from typing import Any

from extproc.mesh.world import Endpoint, Host, Port


def load_assignment(
    cluster: str, host: Host, port: Port, labels: Mapping[str, str]
) -> dict[str, Any]:
    """The endpoints that have these labels, all in one locality without a name."""
    said = [_endpoint(host, each) for each in chosen(host, port, labels)]
    if not said:
        return {"cluster_name": cluster}
    locality = {
        "lb_endpoints": said,
        "load_balancing_weight": sum(each["load_balancing_weight"] for each in said),
        "locality": {},
    }
    return {"cluster_name": cluster, "endpoints": [locality]}


def chosen(host: Host, port: Port, labels: Mapping[str, str]) -> list[Endpoint]:
    """The endpoints of the port that have these labels."""
    return [
        each
        for each in host.endpoints.get(port.number, ())
        if labels.items() <= each.labels.items()
    ]


def _endpoint(host: Host, endpoint: Endpoint) -> dict[str, Any]:
    address = {"address": endpoint.address, "port_value": endpoint.port}
    return {
        "endpoint": {"address": {"socket_address": address}},
        # Of a ServiceEntry's endpoints nobody knows whether they are healthy.
        **({"health_status": "HEALTHY"} if host.is_kubernetes else {}),
        "load_balancing_weight": max(endpoint.weight, 1),
        "metadata": {"filter_metadata": {"istio": {"workload": endpoint.workload}}},
    }
