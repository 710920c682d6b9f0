"""EnvoyFilters: which patches are meant, where they land, and what is dropped and said."""

import json
from typing import Any

import pytest

from extproc.mesh.manifests import MeshError
from extproc.mesh.render import Rendered, render
from extproc.mesh.world import Proxy, World
from tests.mesh_worlds import CART, GATEWAY, INGRESS, SIDECAR, world

ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [shop.example, cart.shop.svc.cluster.local]
  gateways: [ingress, mesh]
  http:
    - {name: one, match: [{uri: {prefix: /1}}], route: [{destination: {host: cart}}], timeout: 9s}
    - {name: two, match: [{uri: {prefix: /2}}], redirect: {uri: /}}
    - {name: rest, route: [{destination: {host: cart}}]}
"""
TYPES = "type.googleapis.com/envoy.extensions.filters"
MANAGER = "envoy.filters.network.http_connection_manager"
ROUTER = "envoy.filters.http.router"
USUAL = ["grpc_stats", "fault", "cors", "router"]


def envoy_filter(*patches: dict[str, Any], name: str = "f", **spec: Any) -> str:
    metadata = {"name": name, "namespace": spec.pop("namespace", "shop")}
    if "created" in spec:
        metadata["creationTimestamp"] = spec.pop("created")
    document = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": metadata,
        "spec": {"configPatches": list(patches), **spec},
    }
    return json.dumps(document)


def patch(apply_to: str, operation: str, value: Any = None, **match: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"operation": operation}
    if value is not None:
        said["value"] = value
    return {"applyTo": apply_to, "match": {"context": "GATEWAY", **match}, "patch": said}


def chain(**match: Any) -> dict[str, Any]:
    return {"filterChain": {"filter": {"name": MANAGER, **match}}}


def http(operation: str, name: str = "x", at: str = "", **more: Any) -> dict[str, Any]:
    listener = chain(subFilter={"name": at}) if at else chain()
    value = {"name": name, "typed_config": {"@type": f"{TYPES}.http.cors.v3.Cors"}}
    return patch("HTTP_FILTER", operation, value, listener=listener, **more)


def known(*filters: str) -> World:
    return world(INGRESS, CART, ROUTES, *filters)


def rendered(*filters: str, proxy: Proxy = GATEWAY) -> Rendered:
    return render(known(*filters), proxy)


def manager(found: Rendered) -> dict[str, Any]:
    config: dict[str, Any] = found.listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
    return config


def filters(found: Rendered) -> list[str]:
    return [each["name"].rpartition(".")[2] for each in manager(found)["http_filters"]]


def routes(found: Rendered) -> list[str]:
    return [each["name"] for each in found.routes[0]["virtual_hosts"][0]["routes"]]


def cluster(found: Rendered) -> dict[str, Any]:
    (one,) = (each for each in found.clusters if each["name"].startswith("outbound|8080||cart"))
    return one


# --- Where HTTP filters land


@pytest.mark.parametrize(
    ("patches", "expected"),
    [
        ([http("INSERT_FIRST")], ["x", *USUAL]),
        ([http("INSERT_BEFORE", at=ROUTER)], [*USUAL[:3], "x", "router"]),
        (
            [http("INSERT_AFTER", at="envoy.filters.http.fault")],
            ["grpc_stats", "fault", "x", "cors", "router"],
        ),
        ([http("INSERT_BEFORE")], ["x", *USUAL]),
        ([http("INSERT_AFTER")], [*USUAL, "x"]),
        ([http("ADD")], [*USUAL, "x"]),
        ([http("REMOVE", at="envoy.filters.http.cors")], ["grpc_stats", "fault", "router"]),
        ([http("REPLACE", at="envoy.filters.http.cors")], ["grpc_stats", "fault", "x", "router"]),
        (
            [http("INSERT_BEFORE", "a", ROUTER), http("INSERT_BEFORE", "b", ROUTER)],
            [*USUAL[:3], "a", "b", "router"],
        ),
        ([http("INSERT_FIRST", "a"), http("INSERT_FIRST", "b")], ["b", "a", *USUAL]),
        (
            [http("INSERT_BEFORE", "a", ROUTER), http("INSERT_BEFORE", "b", "a")],
            [*USUAL[:3], "b", "a", "router"],
        ),
        (
            [http("MERGE", "renamed", "envoy.filters.http.cors")],
            ["grpc_stats", "fault", "renamed", "router"],
        ),
    ],
)
def test_http_filters_land_where_istiod_puts_them(
    patches: list[dict[str, Any]], expected: list[str]
) -> None:
    found = rendered(envoy_filter(*patches))

    assert filters(found) == expected
    assert not found.notes


@pytest.mark.parametrize(
    "dropped",
    [
        http("INSERT_BEFORE", at="nobody"),
        http("REPLACE"),
        http("REMOVE"),
        http("INSERT_FIRST", context="SIDECAR_OUTBOUND"),
        patch("HTTP_FILTER", "INSERT_FIRST", {"name": "x"}, listener={"portNumber": 9}),
        patch("HTTP_FILTER", "INSERT_FIRST", {"name": "x"}, listener={"name": "other"}),
        patch("HTTP_FILTER", "INSERT_FIRST", {"name": "x"}, listener={"filterChain": {"sni": "a"}}),
        patch("VIRTUAL_HOST", "MERGE", {}, routeConfiguration={"vhost": {"name": "x"}}),
        patch("HTTP_ROUTE", "MERGE", {}, routeConfiguration={"vhost": {"route": {"name": "x"}}}),
        patch("CLUSTER", "MERGE", {}, cluster={"service": "x"}),
    ],
)
def test_what_is_dropped_without_a_word_is_said(dropped: dict[str, Any]) -> None:
    found = rendered(envoy_filter(dropped))

    assert filters(found) == USUAL
    if dropped["match"]["context"] == "GATEWAY":
        (note,) = found.notes
        assert "EnvoyFilter shop/f: spec.configPatches[0]" in note
        assert "nothing to apply it to" in note


def test_a_field_that_istiod_does_not_know_is_dropped_and_said() -> None:
    value = {"name": "x", "typed_config": {"@type": f"{TYPES}.http.cors.v3.Cors", "no_field": 1}}
    found = rendered(envoy_filter(patch("HTTP_FILTER", "INSERT_FIRST", value)))

    assert manager(found)["http_filters"][0]["typed_config"] == {
        "@type": f"{TYPES}.http.cors.v3.Cors"
    }
    assert "no_field" in found.notes[0]


# --- Who is meant, and when


@pytest.mark.parametrize(
    ("spec", "is_meant"),
    [
        ({}, True),
        ({"workloadSelector": {"labels": {"istio": "ingress"}}}, True),
        ({"workloadSelector": {"labels": {"istio": "other"}}}, False),
        ({"namespace": "elsewhere"}, False),
        ({"namespace": "istio-system"}, True),
    ],
)
def test_patches_are_for_the_workloads_that_are_selected(
    spec: dict[str, Any], *, is_meant: bool
) -> None:
    assert ("x" in filters(rendered(envoy_filter(http("INSERT_FIRST"), **spec)))) is is_meant


@pytest.mark.parametrize(
    ("version", "is_meant"),
    [(r"^1\.3[1-9].*", True), (r"^1\.29.*", False), ("1.31", True), ("x" * 1025, False)],
)
def test_patches_are_for_the_versions_that_match(version: str, *, is_meant: bool) -> None:
    found = rendered(envoy_filter(http("INSERT_FIRST", proxy={"proxyVersion": version})))

    assert ("x" in filters(found)) is is_meant


def test_filters_apply_by_priority_then_root_then_age_then_name() -> None:
    found = rendered(
        envoy_filter(http("INSERT_FIRST", "b-young"), name="b", created="2026-01-02T00:00:00Z"),
        envoy_filter(http("INSERT_FIRST", "a-young"), name="a", created="2026-01-02T00:00:00Z"),
        envoy_filter(http("INSERT_FIRST", "old"), name="z", created="2026-01-01T00:00:00Z"),
        envoy_filter(http("INSERT_FIRST", "root"), name="z", namespace="istio-system"),
        envoy_filter(http("INSERT_FIRST", "early"), name="z2", priority=-1),
        envoy_filter(http("INSERT_FIRST", "late"), name="a2", priority=1),
    )

    # Each goes to the front: the last is the first.
    expected = ["late", "b-young", "a-young", "old", "root", "early"]
    assert filters(found)[: len(expected)] == expected


# --- Merging


def merged_manager(value: dict[str, Any], operation: str = "MERGE") -> dict[str, Any]:
    config = {"@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager", **value}
    patched = patch(
        "NETWORK_FILTER", operation, {"name": MANAGER, "typed_config": config}, listener=chain()
    )
    return manager(rendered(envoy_filter(patched)))


def test_messages_merge_lists_grow_durations_are_replaced() -> None:
    found = merged_manager(
        {
            "stream_idle_timeout": "1.5s",
            "tracing": {"random_sampling": {"value": 100}},
            "upgrade_configs": [{"upgrade_type": "x"}],
        }
    )

    assert found["stream_idle_timeout"] == "1.500s"
    assert found["tracing"]["random_sampling"] == {"value": 100}
    assert found["tracing"]["overall_sampling"] == {"value": 100}
    assert [each["upgrade_type"] for each in found["upgrade_configs"]] == ["websocket", "x"]


def test_what_has_its_default_in_a_patch_changes_nothing() -> None:
    assert merged_manager({"proxy_100_continue": False})["proxy_100_continue"] is True


@pytest.mark.parametrize(
    "patched",
    [
        patch(
            "NETWORK_FILTER",
            "MERGE",
            {"typed_config": {"@type": f"{TYPES}.http.cors.v3.Cors"}},
            listener=chain(),
        ),
        http("MERGE", at=ROUTER),
    ],
)
def test_a_config_of_another_type_breaks_istiod_off(patched: dict[str, Any]) -> None:
    why = r"configPatches\[0\].patch.value.typed_config: envoy.*Cors can't be merged into envoy"
    with pytest.raises(MeshError, match=why):
        rendered(envoy_filter(patched))


def test_lists_may_be_replaced_and_maps_are_by_key() -> None:
    config = {"a": {"@type": f"{TYPES}.http.cors.v3.Cors"}}
    first = patch("CLUSTER", "MERGE", {"typed_extension_protocol_options": config})
    second = patch("CLUSTER", "MERGE_AND_REPLACE_LIST", {"circuit_breakers": {"thresholds": [{}]}})
    found = cluster(rendered(envoy_filter(first, second)))

    assert found["typed_extension_protocol_options"] == config
    assert found["circuit_breakers"]["thresholds"] == [{}]


# --- Routes, clusters, listeners


@pytest.mark.parametrize(
    ("operation", "route", "expected"),
    [
        ("REMOVE", {"name": "two"}, ["one", "rest"]),
        ("REMOVE", {"action": "REDIRECT"}, ["one", "rest"]),
        ("REMOVE", {"action": "ROUTE"}, ["two"]),
        ("INSERT_BEFORE", {"name": "two"}, ["one", "new", "two", "rest"]),
        ("INSERT_AFTER", {"name": "one"}, ["one", "new", "two", "rest"]),
        ("INSERT_FIRST", {"name": "two"}, ["new", "one", "two", "rest"]),
        ("INSERT_FIRST", {"name": "nobody"}, ["one", "two", "rest"]),
        ("INSERT_FIRST", None, ["new", "one", "two", "rest"]),
        ("ADD", None, ["one", "two", "rest", "new"]),
    ],
)
def test_routes_are_patched_by_name_and_action(
    operation: str, route: dict[str, str] | None, expected: list[str]
) -> None:
    vhost = {"route": route} if route is not None else {}
    value = {"name": "new", "match": {"prefix": "/"}}
    patched = patch("HTTP_ROUTE", operation, value, routeConfiguration={"vhost": vhost})

    assert routes(rendered(envoy_filter(patched))) == expected


@pytest.mark.parametrize(
    ("match", "is_meant"),
    [
        ({"vhost": {"name": "cart.shop.svc.cluster.local:8000"}}, True),
        ({"vhost": {"domainName": "shop.example"}}, True),
        ({"vhost": {"domainName": "other.example"}}, False),
        ({"name": "http.8000"}, True),
        ({"portNumber": 8000}, True),
        ({"portNumber": 80}, False),
        ({"gateway": "shop/ingress"}, False),  # the routes of HTTP ports name no gateway
        ({"portName": "http"}, False),
    ],
)
def test_virtual_hosts_are_patched_where_all_matches(
    match: dict[str, Any], *, is_meant: bool
) -> None:
    value = {"request_headers_to_remove": ["x"]}
    patched = patch("VIRTUAL_HOST", "MERGE", value, routeConfiguration=match)
    hosts = rendered(envoy_filter(patched)).routes[0]["virtual_hosts"]

    (host,) = (each for each in hosts if "shop.example" in each["domains"])
    assert ("request_headers_to_remove" in host) is is_meant


@pytest.mark.parametrize(
    ("match", "is_meant"),
    [
        ({"service": "cart.shop.svc.cluster.local"}, True),
        ({"service": "cart"}, False),
        ({"portNumber": 8080}, True),
        ({"portNumber": 80}, False),
        ({"subset": "v1"}, False),
        ({"name": "outbound|8080||cart.shop.svc.cluster.local"}, True),
        ({"name": "cart"}, False),
    ],
)
def test_clusters_are_patched_where_all_matches(match: dict[str, Any], *, is_meant: bool) -> None:
    patched = patch("CLUSTER", "MERGE", {"connect_timeout": "3s"}, cluster=match)
    found = cluster(rendered(envoy_filter(patched)))

    assert found["connect_timeout"] == ("3s" if is_meant else "10s")


def test_clusters_listeners_and_virtual_hosts_may_be_added_and_removed() -> None:
    found = rendered(
        envoy_filter(
            patch("CLUSTER", "ADD", {"name": "added"}),
            patch("CLUSTER", "REMOVE", cluster={"portNumber": 8080}),
            patch("LISTENER", "INSERT_BEFORE", {"name": "added"}),
            patch("VIRTUAL_HOST", "ADD", {"name": "added", "domains": ["a"]}),
            patch("VIRTUAL_HOST", "REMOVE", routeConfiguration={"vhost": {"domainName": "a"}}),
        )
    )

    assert [each["name"] for each in found.clusters] == ["BlackHoleCluster", "added"]
    assert [each["name"] for each in found.listeners] == ["0.0.0.0_8000", "added"]
    assert "added" in [each["name"] for each in found.routes[0]["virtual_hosts"]]
    assert "REMOVE VIRTUAL_HOST" in found.notes[0]


def test_a_listener_or_chain_may_be_removed() -> None:
    assert rendered(envoy_filter(patch("LISTENER", "REMOVE"))).listeners == []
    found = rendered(envoy_filter(patch("FILTER_CHAIN", "REMOVE")))
    assert "filter_chains" not in found.listeners[0]


def test_a_sidecar_has_patches_of_its_own_context() -> None:
    patches = [
        http("INSERT_FIRST", "out", context="SIDECAR_OUTBOUND"),
        http("INSERT_FIRST", "in", context="SIDECAR_INBOUND"),
        http("INSERT_FIRST", "any", context="ANY"),
        patch("CLUSTER", "MERGE", {"connect_timeout": "3s"}, context="SIDECAR_INBOUND"),
    ]
    found = rendered(envoy_filter(*patches), proxy=SIDECAR)

    assert filters(found)[:2] == ["any", "out"]
    assert cluster(found)["connect_timeout"] == "10s"


# --- What can't be done is an error that names the place


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("networking.istio.io/v1", "Sidecar"),
        ("networking.istio.io/v1", "WorkloadEntry"),
        ("networking.istio.io/v1", "VirtualServices"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("networking.k8s.io/v1", "Ingress"),
        ("v1", "Endpoints"),
    ],
)
def test_a_kind_that_istiod_would_obey_is_an_error(api_version: str, kind: str) -> None:
    with pytest.raises(MeshError, match=f"{kind} shop/x: kind: "):
        known(f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}")


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [("apps/v1", "Deployment"), ("networking.istio.io/v1", "WorkloadGroup"), ("v1", "ConfigMap")],
)
def test_a_kind_of_which_no_proxy_hears_is_none(api_version: str, kind: str) -> None:
    known(f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}")


@pytest.mark.parametrize(
    ("said", "spec", "why"),
    [
        (patch("BOOTSTRAP", "MERGE", {}), {}, r"configPatches\[0\].applyTo: BOOTSTRAP"),
        (patch("CLUSTER", "TWIST", {}), {}, r"patch.operation: TWIST is unknown"),
        (patch("CLUSTER", "MERGE", {}, context="WAYPOINT"), {}, "context: WAYPOINT"),
        (patch("CLUSTER", "MERGE", {"name": 1}), {}, r"patch.value: .*name"),
        (
            patch("CLUSTER", "MERGE", {}, listener={}),
            {},
            "match.listener: says nothing of a CLUSTER",
        ),
        (patch("CLUSTER", "MERGE", {}, cluster={"nom": "x"}), {}, "match.cluster.nom"),
        (patch("CLUSTER", "MERGE", {}, proxy={"metadata": {}}), {}, "match.proxy.metadata"),
        (http("ADD", proxy={"proxyVersion": "["}), {}, "no regular expression"),
        (http("ADD"), {"priority": "1"}, "spec.priority: must be a number"),
        (http("ADD"), {"targetRefs": [{}]}, "spec.targetRefs"),
        (
            patch("HTTP_FILTER", "ADD", {"typed_config": {"@type": "x/envoy.no.such.Type"}}),
            {},
            "patch.value",
        ),
    ],
)
def test_what_cannot_be_translated_is_an_error(
    said: dict[str, Any], spec: dict[str, Any], why: str
) -> None:
    with pytest.raises(MeshError, match=why):
        rendered(envoy_filter(said, **spec))
