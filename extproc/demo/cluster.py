"""What a Kubernetes cluster would say of the demo: its Pods are ports of this machine."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from extproc.mesh.manifests import Manifest

PLATFORM: Final = "ai-platform"
SYSTEM: Final = "llm-system"
PORT: Final = 8080
SERVICE_PORT: Final = 50051
SPANS: Final = "observability"
SPANS_PORT: Final = 4317

ROUTERS: Final = {
    "router-stable": "stable",
    "router-canary": "canary",
    "router-shadow": "shadow",
}
"""Pods of the Service `llm-router`, and their versions; each is an adapter of its own."""

MORE_ROUTERS: Final = "router-stable-"
"""What names of further Pods of the stable version begin with, for who wants several."""

SERVICES: Final = (
    "gpt4-adapter",
    "gpt35-adapter",
    "local-llama",
    "platform",
    "cache",
    "retrieval",
)
"""Services of one Pod."""


class Pod(NamedTuple):
    """One Pod of a Service: a port of 127.0.0.1."""

    name: str
    version: str
    port: int


def state(
    adapter_ports: Mapping[str, int], service_ports: Sequence[int], collector_port: int = 0
) -> tuple[Manifest, ...]:
    """The resources of the demo's cluster that a mesh looks at; port 0: there is no collector."""
    found: list[Manifest] = []
    for name in SERVICES:
        found += _service(name, [Pod(f"{name}-0", "v1", adapter_ports[name])])
    routers = [Pod(name, version, adapter_ports[name]) for name, version in ROUTERS.items()]
    more = [name for name in adapter_ports if name.startswith(MORE_ROUTERS)]
    routers += [Pod(name, "stable", adapter_ports[name]) for name in more]
    found += _service("llm-router", routers)
    found += _service("model-gateway", [])
    if collector_port:
        pods = [Pod("collector-0", "v1", collector_port)]
        found += _service("collector", pods, namespace=SPANS, port=SPANS_PORT, protocol="grpc")
    pods = [Pod(f"llm-extproc-{n}", "v1", port) for n, port in enumerate(service_ports)]
    found += _service("llm-extproc", pods, namespace=SYSTEM, port=SERVICE_PORT, protocol="grpc")
    return tuple(found)


def _service(
    name: str,
    pods: list[Pod],
    *,
    namespace: str = PLATFORM,
    port: int = PORT,
    protocol: str = "http",
) -> Iterator[Manifest]:
    ports = [{"name": protocol, "port": port, "appProtocol": protocol}]
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    spec = {"selector": {"app": name}, "ports": ports}
    yield _manifest("v1", "Service", metadata, spec=spec)
    for pod in pods:
        labels = {"app": name, "version": pod.version}
        yield _manifest("v1", "Pod", metadata | {"name": pod.name, "labels": labels}, spec={})
        # A slice for each Pod: its port is not that of its neighbour.
        labels = {"kubernetes.io/service-name": name}
        target = {"kind": "Pod", "namespace": namespace, "name": pod.name}
        endpoint = {
            "addresses": ["127.0.0.1"],
            "conditions": {"ready": True},
            "targetRef": target,
        }
        yield _manifest(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            metadata | {"name": pod.name, "labels": labels},
            addressType="IPv4",
            ports=[{"name": protocol, "port": pod.port}],
            endpoints=[endpoint],
        )


def _manifest(
    api_version: str,
    kind: str,
    metadata: Mapping[str, Any],
    **rest: Any,  # noqa: ANN401  # JSON
) -> Manifest:
    document = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}
    namespace, name = metadata["namespace"], metadata["name"]
    return Manifest("the demo", 1, api_version, kind, namespace, name, document)
