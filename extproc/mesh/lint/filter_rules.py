"""Rules about our ext_proc filters: what they need, and what must stand in front of them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from extproc.config.settings import Limits
from extproc.exchange.names import METADATA_NAMESPACE
from extproc.mesh.lint.finding import Hit, Rule, quoted
from extproc.mesh.lint.patches import Patch, selector_of
from extproc.mesh.lint.routes import milliseconds, word
from extproc.mesh.lint.scene import Scene, cluster_named
from extproc.mesh.manifests import mapping, sequence, texts

MESSAGE_TIMEOUT_MS: Final = 200
"""Envoy's default."""
BUFFER_BYTES: Final = 1 << 20
"""Envoy's default."""
ISTIOS_NAME: Final = "envoy.filters.http.ext_proc"
_WORKLOADS: Final = frozenset(("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet"))
_LIMITS: Final = {
    "VIRTUAL_HOST": ("request_body_buffer_limit", "per_request_buffer_limit_bytes"),
    "HTTP_ROUTE": ("request_body_buffer_limit", "per_request_buffer_limit_bytes"),
    "LISTENER": ("per_connection_buffer_limit_bytes",),
}
_NUMBER: Final = re.compile(r"\d{1,19}")


def _impatient(scene: Scene) -> Iterator[Hit]:
    for each in scene.ext_procs:
        if each.observes:
            continue
        said = each.config.get("message_timeout")
        if said is None:
            yield Hit(each.patch.manifest, f"{each.path}.message_timeout", "left out, so 0.2s")
        elif (milliseconds(said) or 0) <= MESSAGE_TIMEOUT_MS and milliseconds(said) is not None:
            yield Hit(each.patch.manifest, f"{each.path}.message_timeout", f"{quoted(said)}")


def _istios_name(scene: Scene) -> Iterator[Hit]:
    for each in scene.ext_procs:
        if each.name == ISTIOS_NAME and not each.is_upstream:
            path = f"{each.patch.path}.patch.value.name"
            yield Hit(each.patch.manifest, path, ISTIOS_NAME)


def _deaf(scene: Scene) -> Iterator[Hit]:
    for each in scene.deciders:
        options = mapping(each.config.get("metadata_options"))
        named = sequence(mapping(options.get("receiving_namespaces")).get("untyped"))
        if METADATA_NAMESPACE not in named:
            at = f"{each.path}.metadata_options.receiving_namespaces.untyped"
            yield Hit(each.patch.manifest, at, f"{METADATA_NAMESPACE!r} is not in it")


def _own_cluster(scene: Scene) -> Iterator[Hit]:
    added = {
        str(patch.value.get("name"))
        for patch in scene.patches
        if patch.apply_to == "CLUSTER" and patch.operation in {"ADD", "INSERT_FIRST"}
    }
    for each in scene.ext_procs:
        if each.cluster and each.cluster in added:
            at = f"{each.path}.grpc_service.envoy_grpc.cluster_name"
            yield Hit(each.patch.manifest, at, f"{quoted(each.cluster)}, which a patch adds")


def _not_grpc(scene: Scene) -> Iterator[Hit]:
    for each in scene.ext_procs:
        named = cluster_named(each.cluster)
        found = scene.host(named[0]) if named else None
        protocol = found.ports.get(named[2] or 0) if named and found else None
        if protocol is not None and not protocol.is_http2:
            at = f"{each.path}.grpc_service.envoy_grpc.cluster_name"
            what = f"its port speaks {protocol}, as {found.manifest.title if found else ''} says"
            yield Hit(each.patch.manifest, at, what)


def _cannot_route(scene: Scene) -> Iterator[Hit]:
    routes_by_headers = any(route.llm_headers for route in scene.routes)
    for each in scene.deciders:
        mode = mapping(each.config.get("processing_mode"))
        body = word(mode.get("request_body_mode"))
        at = f"{each.path}.processing_mode"
        if body in {"STREAMED", "BUFFERED_PARTIAL"} and routes_by_headers:
            yield Hit(each.patch.manifest, f"{at}.request_body_mode", body)
        if body == "BUFFERED" and mode.get("request_header_mode") == "SKIP":
            yield Hit(each.patch.manifest, f"{at}.request_header_mode", "SKIP")


def _cuts_answers(scene: Scene) -> Iterator[Hit]:
    for each in scene.ext_procs:
        if each.observes and each.config.get("failure_mode_allow") is not True:
            at = f"{each.path}.failure_mode_allow"
            yield Hit(each.patch.manifest, at, "not true on a filter that observes")


def _stats_hidden(scene: Scene) -> Iterator[Hit]:
    for each in scene.ext_procs:
        if not each.config.get("stat_prefix"):
            yield Hit(
                each.patch.manifest,
                f"{each.path}.stat_prefix",
                "left out: filters can't be told apart",
                'stat_prefix: "llm."',
            )
    selectors = [selector_of(each.patch.manifest) for each in scene.ext_procs]
    for manifest in scene.manifests:
        template = mapping(manifest.spec.get("template"))
        metadata = mapping(template.get("metadata"))
        labels = texts(metadata.get("labels"))
        if manifest.kind not in _WORKLOADS or not _is_proxy(metadata):
            continue
        if not any(each and each.items() <= labels.items() for each in selectors):
            continue
        said = str(mapping(metadata.get("annotations")).get("proxy.istio.io/config") or "")
        if "ext_proc" not in said and not _mesh_shows(scene):
            at = "spec.template.metadata.annotations.proxy.istio.io/config"
            yield Hit(manifest, at, "no proxyStatsMatcher has ext_proc")


def _is_proxy(metadata: Mapping[str, Any]) -> bool:
    """Whether a Pod has a proxy, by its own word: a gateway's, or an injected one."""
    annotations = texts(metadata.get("annotations"))
    labels = texts(metadata.get("labels"))
    is_off = "false" in {
        labels.get("sidecar.istio.io/inject"),
        annotations.get("sidecar.istio.io/inject"),
    }
    return not is_off


def _mesh_shows(scene: Scene) -> bool:
    """Whether the mesh's own configuration shows the filter's figures on all proxies."""
    kinds = {"ConfigMap", "IstioOperator", "Istio", "ProxyConfig"}
    return any(
        "proxyStatsMatcher" in (text := str(each.document)) and "ext_proc" in text
        for each in scene.manifests
        if each.kind in kinds
    )


def _small_buffer(scene: Scene) -> Iterator[Hit]:
    limits = [(patch, *found) for patch in scene.patches for found in _limits(patch)]
    needed = (scene.settings.limits if scene.settings else Limits()).request_body_bytes
    for each in scene.deciders:
        mode = mapping(each.config.get("processing_mode"))
        if mode.get("request_body_mode") != "BUFFERED":
            continue
        found = [
            (patch.manifest, path, value)
            for patch, path, value in limits
            if patch.reach.covers(each.patch.reach)
        ]
        if not found and needed > BUFFER_BYTES:
            what = f"no body limit is set, so {BUFFER_BYTES}; the settings take {needed}"
            yield Hit(each.patch.manifest, f"{each.path}.processing_mode.request_body_mode", what)
        for manifest, path, value in found if scene.settings else ():
            if value < needed:
                yield Hit(manifest, path, f"{value}; the settings take {needed}")


def _limits(patch: Patch) -> Iterator[tuple[str, int]]:
    for field in _LIMITS.get(patch.apply_to, ()):
        said = patch.value.get(field)
        if isinstance(said, Mapping):
            said = said.get("value")
        if isinstance(said, str) and _NUMBER.fullmatch(said):
            said = int(said)
        if isinstance(said, int) and not isinstance(said, bool):
            yield f"{patch.path}.patch.value.{field}", said


RULES: Final = (
    Rule(
        "message-timeout-too-short",
        f"An ext_proc filter with Envoy's default `message_timeout` of {MESSAGE_TIMEOUT_MS} ms, or"
        " less.",
        "counting the tokens of a large prompt takes tens of milliseconds, a garbage collection"
        " more: such calls get 504",
        "message_timeout: 2s",
        _impatient,
    ),
    Rule(
        "filter-named-like-istios",
        f"A filter of ours that is called `{ISTIOS_NAME}`.",
        "Istio's gateways use that name for inference pools, and set it per route: their settings"
        " would become those of this filter",
        "give it a name of its own, such as llm.policy",
        _istios_name,
    ),
    Rule(
        "metadata-not-received",
        f"A filter without `receiving_namespaces: {{untyped: [{METADATA_NAMESPACE}]}}`.",
        "Envoy drops the filter's metadata without a word: no record can be settled, no header"
        " tells the budget",
        f"metadata_options: {{receiving_namespaces: {{untyped: [{METADATA_NAMESPACE}]}}}}",
        _deaf,
    ),
    Rule(
        "cluster-of-its-own",
        "A filter whose service is a cluster that an EnvoyFilter adds.",
        "such a cluster has Envoy's limit of 1024 requests, of which each decision holds one, and"
        " no mTLS",
        "name the Service's own cluster: outbound|50051||llm-extproc.llm-system.svc.cluster.local",
        _own_cluster,
    ),
    Rule(
        "port-is-not-grpc",
        "A filter whose service's port is not said to speak gRPC.",
        "istiod has the proxies speak HTTP/1.1 to it, and every call fails",
        "appProtocol: grpc on the Service's port",
        _not_grpc,
    ),
    Rule(
        "mode-cannot-route",
        "A filter whose mode keeps what a body decides from having an effect.",
        "Envoy ignores the headers and the new route that the answer to such a body has",
        "request_header_mode: SEND and request_body_mode: BUFFERED",
        _cannot_route,
    ),
    Rule(
        "observer-fails-closed",
        "A filter in `observability_mode` without `failure_mode_allow: true`.",
        "a service that fails cuts off every answer that it observes",
        "failure_mode_allow: true",
        _cuts_answers,
    ),
    Rule(
        "stats-hidden",
        "A filter whose figures can't be seen: without `stat_prefix`, or on proxies without a"
        " `proxyStatsMatcher` for them.",
        "istio-proxy leaves out ext_proc's figures by default: nobody sees timeouts and failures",
        "annotate the Pods with proxy.istio.io/config: proxyStatsMatcher: {inclusionRegexps:"
        ' [".*ext_proc.*"]}',
        _stats_hidden,
    ),
    Rule(
        "buffer-below-body-limit",
        "A body limit of the proxy below `limits.request_body_bytes` of the settings.",
        "Envoy answers larger bodies 413 in words of its own, and the filter never sees them",
        "VIRTUAL_HOST MERGE {request_body_buffer_limit: …}, a little above the settings' limit",
        _small_buffer,
    ),
)
