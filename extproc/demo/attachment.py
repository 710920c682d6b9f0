"""`istio/`, as an operator would apply it, with what a demo or a test fills in."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from extproc.demo.cluster import state
from extproc.mesh.kustomization import extended, load
from extproc.mesh.manifests import Manifest
from extproc.mesh.world import Proxy

ISTIO: Final = Path(__file__).parents[2] / "istio"
OURS: Final = Path(__file__).parent / "manifests"
GATEWAY: Final = Proxy("gateway", "ai-platform", {"istio": "ingressgateway"})
SIDECAR: Final = Proxy("sidecar", "ai-platform", {"app": "llm-router", "llm-extproc": "attached"})
"""That of a router's Pod, for what it sends to models."""

MODELS_HOST: Final = "model-gateway.ai-platform.svc.cluster.local"
"""By which a workload calls the models."""
HOST: Final = "127.0.0.1"
"""By which clients call the models: in place of `llm.example.com`, as an operator puts his own."""

ROUTER_HOST: Final = "router.example.com"
"""By which they call `llm-router`: a header of theirs, since nobody resolves it."""

_EXAMPLE_HOST: Final = "llm.example.com"

BODY_BYTES_ABOVE: Final = 262_144
"""How much more than the settings' `request_body_bytes` Envoy buffers; see `limits.yaml`."""

Tree = Any
"""JSON."""


class Wiring(NamedTuple):
    """What the manifests leave open, and what a test wants otherwise."""

    service_port: int
    adapter_ports: Mapping[str, int]
    request_body_bytes: int = 8_388_608
    message_timeout: str = ""
    """Of the filter; empty: that of the manifest."""
    trusts_tenant_header: bool = False
    """Whether the settings have `identity: - header: x-tenant-id`; it is then not stripped."""
    authentication: Mapping[str, Any] | None = None
    """An HTTP filter in front of ours."""
    listener_port: int = 0
    flush_interval: str = "0.1s"
    """How long Envoy gathers records of finished requests before it sends them."""
    collector_port: int = 0
    """Where Envoy's spans go, by OTLP over gRPC; 0: nowhere."""
    meter: Literal["lua", "observe"] = "lua"
    """As in the settings: which of the two filters is there."""
    fails_open: bool = False
    is_sidecar: bool = False
    """Whether the proxy is the caller's own, and no gateway."""
    more_service_ports: Sequence[int] = ()
    """Of further replicas of the service."""
    more: Sequence[Path] = ()
    """Files and folders with what else is applied."""
    edit: Callable[[dict[str, Any]], None] | None = None
    """Changes every manifest's document, for those who test something else."""


def manifests(wiring: Wiring, *, access_log: Path) -> tuple[Manifest, ...]:
    """All that would be applied, and what the cluster would say of its Services.

    Raises:
        MeshError: the manifests can't be read.
    """
    where = SIDECAR.kind if wiring.is_sidecar else GATEWAY.kind
    attached = load([ISTIO / "attach" / where])
    if wiring.meter == "observe":
        attached = extended(attached, ISTIO / "attach" / f"{where}-observe")
    if wiring.fails_open:
        attached = extended(attached, ISTIO / "attach" / f"{where}-fail-open")
    around = load([ISTIO / "routing", OURS / "platform.yaml", OURS / "log.yaml"])
    around += load(wiring.more)
    if wiring.is_sidecar:
        around += load([ISTIO / "routing" / "fallback-sidecar"])
    if wiring.collector_port:
        around += load([OURS / "spans.yaml"])
    if wiring.authentication:
        around += (_in_front(wiring.authentication),)
    changed = tuple(
        each._replace(document=_filled(each.document, wiring, access_log))
        for each in (*attached, *around)
    )
    ports = (wiring.service_port, *wiring.more_service_ports)
    known = state(wiring.adapter_ports, ports, wiring.collector_port)
    return (*known, *changed)


def _in_front(http_filter: Mapping[str, Any]) -> Manifest:
    """What puts an HTTP filter where istiod puts those that authenticate."""
    manager = {"filter": {"name": "envoy.filters.network.http_connection_manager"}}
    patch = {
        "applyTo": "HTTP_FILTER",
        "match": {"context": "GATEWAY", "listener": {"filterChain": manager}},
        "patch": {"operation": "INSERT_FIRST", "value": http_filter},
    }
    spec = {"priority": 0, "configPatches": [patch]}
    spec["workloadSelector"] = {"labels": dict(GATEWAY.labels)}
    version, kind = "networking.istio.io/v1alpha3", "EnvoyFilter"
    metadata = {"name": "in-front", "namespace": GATEWAY.namespace}
    document = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
    return Manifest("the demo", 1, version, kind, GATEWAY.namespace, "in-front", document)


def _filled(document: Mapping[str, Any], wiring: Wiring, access_log: Path) -> Mapping[str, Any]:
    """Write into a manifest what differs from run to run."""
    tree = copy.deepcopy(dict(document))
    if wiring.is_sidecar and document["metadata"]["name"].startswith("demo-"):
        _for_sidecar(tree)
    limit = wiring.request_body_bytes + BODY_BYTES_ABOVE
    for node in _nodes(tree):
        _fill(node, wiring, access_log)
        if _EXAMPLE_HOST in node.get("hosts", ()):
            node["hosts"] = [HOST if each == _EXAMPLE_HOST else each for each in node["hosts"]]
        for key in ("request_body_buffer_limit", "per_connection_buffer_limit_bytes"):
            if key in node:
                node[key] = limit
    if wiring.edit:
        wiring.edit(tree)
    return tree


def _fill(node: dict[str, Any], wiring: Wiring, access_log: Path) -> None:
    """Fill in one of the filters and loggers that have a name of ours."""
    config = node.get("typed_config", {})
    match node.get("name"):
        case "llm.policy" if wiring.message_timeout:
            config["message_timeout"] = wiring.message_timeout
        case "llm.settle":
            config["common_config"]["buffer_flush_interval"] = wiring.flush_interval
        case "demo.log":
            config["path"] = str(access_log)
        case "llm.strip" if wiring.trusts_tenant_header:
            config["mutations"].remove({"remove": "x-tenant-id"})


def _for_sidecar(tree: Tree) -> None:
    """Make one of the demo's own filters, which are for its gateway, one for the sidecar."""
    tree["spec"]["workloadSelector"] = {"labels": {"llm-extproc": "attached"}}
    for patch in tree["spec"]["configPatches"]:
        patch["match"] |= {"context": "SIDECAR_OUTBOUND"}


def _nodes(tree: Tree) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)
