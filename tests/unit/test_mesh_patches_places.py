"""EnvoyFilters: where patches land that a careless reader would put elsewhere, as istiod does."""

from typing import Any

import pytest

from extproc.mesh.manifests import MeshError
from extproc.mesh.render import Rendered, render
from extproc.mesh.route_patches import parts
from extproc.mesh.world import Proxy
from tests.mesh_worlds import CART, INGRESS, SIDECAR, world
from tests.unit.test_mesh_patches import (
    MANAGER,
    ROUTER,
    TYPES,
    USUAL,
    chain,
    cluster,
    envoy_filter,
    filters,
    http,
    manager,
    patch,
    rendered,
    routes,
)

HTTP_INSPECTOR = "envoy.filters.listener.http_inspector"
CLIENT = """
apiVersion: v1
kind: Service
metadata: {name: client, namespace: shop}
spec: {clusterIP: 10.0.0.2, selector: {app: client}, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: client-1, namespace: shop, labels: {kubernetes.io/service-name: client}}
ports: [{name: http, port: 8000}]
endpoints: [{addresses: [10.1.0.1], conditions: {ready: true}}]
"""


def at_sidecar(*patches: dict[str, Any]) -> Rendered:
    return rendered(envoy_filter(*patches), proxy=SIDECAR)


# --- Defaults are no match


@pytest.mark.parametrize(
    "said",
    [
        http("INSERT_FIRST") | {"match": {}},
        http("INSERT_FIRST") | {"match": None},
        http("INSERT_FIRST", context=None),
        http("INSERT_FIRST", proxy={"proxyVersion": ""}),
        patch("HTTP_FILTER", "INSERT_FIRST", {"name": "x"}, listener={"portNumber": 0, "name": ""}),
        patch(
            "HTTP_FILTER",
            "INSERT_FIRST",
            {"name": "x"},
            listener={"filterChain": {"sni": "", "applicationProtocols": "", "destinationPort": 0}},
        ),
    ],
)
def test_a_default_in_a_match_asks_for_nothing(said: dict[str, Any]) -> None:
    assert filters(rendered(envoy_filter(said))) == ["x", *USUAL]


def test_a_default_in_the_match_of_a_route_or_cluster_asks_for_nothing() -> None:
    found = rendered(
        envoy_filter(
            patch(
                "HTTP_ROUTE",
                "REMOVE",
                routeConfiguration={
                    "portNumber": 0,
                    "gateway": "",
                    "vhost": {"domainName": "", "route": {"name": "", "action": "ANY"}},
                },
            ),
            patch(
                "CLUSTER", "MERGE", {"connect_timeout": "3s"}, cluster={"subset": "", "name": ""}
            ),
        )
    )

    assert "routes" not in found.routes[0]["virtual_hosts"][0]
    assert cluster(found)["connect_timeout"] == "3s"


@pytest.mark.parametrize(
    ("protocols", "is_meant"),
    [("h2c", True), ("http/1.1,h2c", True), ("h2c,", False), ("http/1.1, h2c", False)],
)
def test_spaces_are_part_of_a_protocol(protocols: str, *, is_meant: bool) -> None:
    match = {"filterChain": {"applicationProtocols": protocols}}
    said = patch(
        "HTTP_FILTER", "INSERT_FIRST", {"name": "x"}, context="SIDECAR_OUTBOUND", listener=match
    )

    assert ("x" in filters(at_sidecar(said))) is is_meant


# --- Listeners and what is in them


def test_a_merge_reaches_every_listener_filter_whichever_is_named() -> None:
    said = patch(
        "LISTENER_FILTER",
        "MERGE",
        {"typed_config": {"@type": f"{TYPES}.listener.http_inspector.v3.HttpInspector"}},
        context="SIDECAR_OUTBOUND",
        listener={"listenerFilter": "nobody"},
    )
    assert at_sidecar(said).unseen == ()

    of_another = {"typed_config": {"@type": f"{TYPES}.listener.tls_inspector.v3.TlsInspector"}}
    said["patch"]["value"] = of_another
    with pytest.raises(MeshError, match=r"TlsInspector can't be merged into .*HttpInspector"):
        at_sidecar(said)


def test_a_merge_into_listener_filters_must_name_one() -> None:
    value = {"typed_config": {"@type": f"{TYPES}.listener.tls_inspector.v3.TlsInspector"}}
    said = patch("LISTENER_FILTER", "MERGE", value, context="SIDECAR_OUTBOUND")

    assert len(at_sidecar(said).unseen) == 1


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("REMOVE", [*USUAL]),
        ("REPLACE", ["cors", "x", *USUAL]),
        ("INSERT_BEFORE", ["cors", "x", "x", *USUAL]),
    ],
)
def test_of_several_with_one_name_all_are_removed_and_else_the_first_is_meant(
    operation: str, expected: list[str]
) -> None:
    twice = [http("INSERT_FIRST"), http("INSERT_FIRST")]
    found = rendered(envoy_filter(*twice, http(operation, "cors", at="x")))

    assert filters(found) == expected


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("INSERT_BEFORE", ["x", HTTP_INSPECTOR]),
        ("INSERT_AFTER", [HTTP_INSPECTOR, "x"]),
        ("REPLACE", ["x"]),
        ("REMOVE", None),
    ],
)
def test_listener_filters_are_put_beside_others(operation: str, expected: list[str] | None) -> None:
    said = patch(
        "LISTENER_FILTER",
        operation,
        {"name": "x"},
        context="SIDECAR_OUTBOUND",
        listener={"listenerFilter": HTTP_INSPECTOR},
    )
    found = at_sidecar(said).listeners[0].get("listener_filters")

    assert (found and [each["name"] for each in found]) == expected


def test_a_chain_is_removed_without_filters_but_stays_where_each_was_removed() -> None:
    empty = patch("FILTER_CHAIN", "ADD", {"name": "empty"})
    each = patch("NETWORK_FILTER", "REMOVE", listener=chain())
    (listener,) = rendered(envoy_filter(empty)).listeners
    assert [each.get("name") for each in listener["filter_chains"]] == [None]

    (listener,) = rendered(envoy_filter(each)).listeners
    assert listener["filter_chains"] == [{"transport_socket_connect_timeout": "15s"}]


def test_a_manager_that_is_none_keeps_what_it_is() -> None:
    value = {"name": MANAGER, "typed_config": {"@type": f"{TYPES}.network.rbac.v3.RBAC"}}
    found = rendered(
        envoy_filter(
            patch("NETWORK_FILTER", "REPLACE", value, listener=chain()), http("INSERT_FIRST")
        )
    )

    assert manager(found) == value["typed_config"]
    assert "INSERT_FIRST HTTP_FILTER" in found.notes[0]


def test_what_no_listener_asks_for_is_not_sent() -> None:
    found = rendered(envoy_filter(patch("NETWORK_FILTER", "REMOVE", listener=chain())))
    assert found.routes == []

    config = {"rds": {"route_config_name": "other"}}
    kind = f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"
    value = {"typed_config": {"@type": kind, **config}}
    found = rendered(envoy_filter(patch("NETWORK_FILTER", "MERGE", value, listener=chain())))
    assert found.routes == [{"name": "other", "validate_clusters": False}]


def test_routes_that_an_added_listener_asks_for_are_beside_the_others() -> None:
    kind = f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"
    config = {"@type": kind, "rds": {"route_config_name": "other"}}
    chains = [{"filters": [{"name": MANAGER, "typed_config": config}]}]
    found = rendered(
        envoy_filter(patch("LISTENER", "ADD", {"name": "added", "filter_chains": chains}))
    )

    assert [each["name"] for each in found.routes] == ["http.8000", "other"]


# --- Routes


def test_what_is_added_by_the_name_of_a_removed_host_is_removed_too() -> None:
    name = "cart.shop.svc.cluster.local:8000"
    found = rendered(
        envoy_filter(
            patch("VIRTUAL_HOST", "ADD", {"name": name, "domains": ["a"]}),
            patch("VIRTUAL_HOST", "REMOVE", routeConfiguration={"vhost": {"name": name}}),
        )
    )

    assert name not in [each["name"] for each in found.routes[0].get("virtual_hosts", ())]


@pytest.mark.parametrize(("port", "is_meant"), [(80, True), (8000, False)])
def test_a_gateways_routes_are_known_by_their_servers_ports(port: int, *, is_meant: bool) -> None:
    service = CART.replace("cart", "front").replace(
        "ports: [{name: http, port: 8080}]",
        "selector: {istio: ingress}, ports: [{name: http, port: 80, targetPort: 8000}]",
    )
    said = patch(
        "ROUTE_CONFIGURATION",
        "MERGE",
        {"request_headers_to_remove": ["x"]},
        routeConfiguration={"portNumber": port},
    )
    manifests = INGRESS.replace("8000", "80"), service, envoy_filter(said)
    found = render(world(*manifests), Proxy("gateway", "shop", {"istio": "ingress"}))

    assert [each["name"] for each in found.routes] == ["http.8000"]
    assert ("request_headers_to_remove" in found.routes[0]) is is_meant


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("http.80", (80, "", "")),
        ("http.80.127.0.0.1", (0, "", "")),
        ("https.443.tls.ingress.shop", (443, "tls", "shop/ingress")),
        ("https.443.tls.ingress.shop.127.0.0.1", (0, "", "")),
        ("other", (0, "", "")),
    ],
)
def test_a_gateways_routes_are_known_by_their_name(
    name: str, expected: tuple[int, str, str]
) -> None:
    assert parts(name) == expected


def test_an_action_without_a_word_for_it_is_any() -> None:
    value = {"name": "new", "match": {"prefix": "/"}, "non_forwarding_action": {}}
    route = {"vhost": {"route": {"action": "REDIRECT"}}}
    found = rendered(
        envoy_filter(
            patch("VIRTUAL_HOST", "MERGE", {"routes": [value]}),
            patch("HTTP_ROUTE", "REMOVE", routeConfiguration=route),
        )
    )

    assert routes(found) == ["one", "rest"]


# --- Clusters


def test_inbound_clusters_are_known_by_the_hosts_they_serve() -> None:
    said = [
        patch(
            "CLUSTER",
            "MERGE",
            {"connect_timeout": timeout},
            context="SIDECAR_INBOUND",
            cluster={"service": f"{name}.shop.svc.cluster.local"},
        )
        for name, timeout in (("client", "3s"), ("cart", "4s"))
    ]
    found = render(world(CART, CLIENT, envoy_filter(*said)), SIDECAR._replace(address="10.1.0.1"))

    (inbound,) = (each for each in found.clusters if each["name"] == "inbound|8000||")
    assert inbound["connect_timeout"] == "3s"
    assert "configPatches[1]" in found.notes[0]


@pytest.mark.parametrize("kind", ["CLUSTER", "LISTENER"])
def test_what_is_added_for_any_context_is_added_once_and_inward_where_that_is_said(
    kind: str,
) -> None:
    found = at_sidecar(
        patch(kind, "ADD", {"name": "any"}, context="ANY"),
        patch(kind, "ADD", {"name": "inward"}, context="SIDECAR_INBOUND"),
    )

    names = [each["name"] for each in found.lists()[f"{kind.lower()}s"]]
    assert [name for name in names if name in {"any", "inward"}] == ["any", "inward"]


def test_of_clusters_with_one_name_the_first_is_sent() -> None:
    name = "outbound|8080||cart.shop.svc.cluster.local"
    found = rendered(envoy_filter(patch("CLUSTER", "ADD", {"name": name, "connect_timeout": "3s"})))

    assert cluster(found)["connect_timeout"] == "10s"
    assert "ADD CLUSTER" in found.notes[0]


def test_endpoints_are_of_the_clusters_that_ask_for_them() -> None:
    found = rendered(
        envoy_filter(
            patch("CLUSTER", "MERGE", {"type": "STRICT_DNS"}, cluster={"portNumber": 8080}),
            patch("CLUSTER", "ADD", {"name": "own", "type": "EDS"}),
        )
    )

    assert found.endpoints == [{"cluster_name": "own"}]


def test_an_entry_of_a_map_is_replaced_and_not_merged() -> None:
    value = {"metadata": {"filter_metadata": {"istio": {"mine": True}}}}
    found = cluster(rendered(envoy_filter(patch("CLUSTER", "MERGE", value))))

    assert found["metadata"] == value["metadata"]


SOCKET = {
    "name": "envoy.transport_sockets.raw_buffer",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
    },
}


def test_beside_a_socket_nothing_is_merged_and_that_is_said() -> None:
    value = {"connect_timeout": "3s", "transport_socket": SOCKET}
    found = rendered(envoy_filter(patch("CLUSTER", "MERGE", value, cluster={"portNumber": 8080})))

    assert cluster(found)["transport_socket"] == SOCKET
    assert cluster(found)["connect_timeout"] == "10s"
    assert found.notes[0].endswith(
        "connect_timeout is dropped: beside a transport_socket nothing is merged"
    )


def test_a_socket_that_is_none_of_several_is_dropped_and_that_is_said() -> None:
    several = {"transport_socket_matches": [{"name": "tls", "transport_socket": {"name": "tls"}}]}
    at = {"portNumber": 8080}
    found = rendered(
        envoy_filter(
            patch("CLUSTER", "MERGE", several, cluster=at),
            patch("CLUSTER", "MERGE", {"transport_socket": SOCKET}, cluster=at),
        )
    )

    assert "transport_socket" not in cluster(found)
    assert "configPatches[1] (MERGE CLUSTER): nothing to apply it to" in found.notes[0]


# --- What is said


@pytest.mark.parametrize(
    "void",
    [
        patch("CLUSTER", "REPLACE", {"name": "x"}),
        patch("HTTP_ROUTE", "REPLACE", {"name": "x"}),
        patch("ROUTE_CONFIGURATION", "ADD", {"name": "x"}),
        patch("ROUTE_CONFIGURATION", "REMOVE"),
        http("MERGE_AND_REPLACE_LIST", at=ROUTER),
    ],
)
def test_what_istiod_does_to_nothing_of_the_kind_is_said(void: dict[str, Any]) -> None:
    outward = {**void, "match": {**void["match"], "context": "SIDECAR_OUTBOUND"}}
    for found in (rendered(envoy_filter(void)), at_sidecar(outward)):
        (note,) = found.notes
        assert note.endswith("istiod does no such thing")


def test_of_a_filter_no_more_than_name_and_config_is_merged_and_that_is_said() -> None:
    said = http("MERGE", "envoy.filters.http.cors", "envoy.filters.http.cors")
    said["patch"]["value"]["disabled"] = True
    found = rendered(envoy_filter(said))

    assert "disabled" not in manager(found)["http_filters"][2]
    assert "disabled is dropped" in found.notes[0]


@pytest.mark.parametrize(
    ("said", "is_unseen"),
    [
        (http("INSERT_FIRST", context="SIDECAR_INBOUND"), True),
        (http("INSERT_BEFORE", at="nobody", context="SIDECAR_OUTBOUND"), True),
        (patch("VIRTUAL_HOST", "MERGE", {}, context="SIDECAR_INBOUND"), True),
        (patch("CLUSTER", "REMOVE", context="SIDECAR_INBOUND", cluster={"name": "x"}), False),
        (http("INSERT_FIRST", context="GATEWAY"), None),
    ],
)
def test_what_may_be_for_listeners_that_are_left_out_is_said_apart(
    said: dict[str, Any], *, is_unseen: bool | None
) -> None:
    found = at_sidecar(said)

    assert (len(found.unseen), len(found.notes)) == {
        True: (1, 0),
        False: (0, 1),
        None: (0, 0),
    }[is_unseen]


# --- What istiod's webhook refuses


def without(said: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {**said, "patch": {key: it for key, it in said["patch"].items() if key not in keys}}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (without(http("ADD"), "value"), r"patch.value: must be a mapping"),
        (without(http("ADD"), "operation"), r"patch.operation: None is unknown"),
        (
            patch("HTTP_FILTER", "ADD", {}, listener={"filterChain": {"filter": {"name": ""}}}),
            r"match.listener.filterChain.filter.name: missing",
        ),
        (
            patch(
                "HTTP_FILTER",
                "ADD",
                {},
                listener={"filterChain": {"filter": {"name": "x", "subFilter": {"name": "y"}}}},
            ),
            r"filter.name: must be envoy.filters.network.http_connection_manager",
        ),
        (patch("HTTP_FILTER", "ADD", {}, listener=chain(subFilter={})), "subFilter.name: missing"),
        (
            patch("NETWORK_FILTER", "ADD", {}, listener=chain(subFilter={"name": "x"})),
            "subFilter: says nothing of a NETWORK_FILTER",
        ),
        (
            patch("LISTENER", "ADD", {}, listener={"portNumber": "80"}),
            "portNumber: must be a number",
        ),
        (
            patch("LISTENER", "ADD", {}, listener={"portNumber": True}),
            "portNumber: must be a number",
        ),
        (patch("LISTENER", "ADD", {}, listener={"portNumber": -1}), "portNumber: must be between"),
        (patch("LISTENER", "ADD", {}, listener={"name": 1}), "listener.name: must be text"),
        (patch("LISTENER", "ADD", {}, listener=[]), "match.listener: must be a mapping"),
        (http("ADD") | {"match": [1]}, "match: must be a mapping"),
        (
            patch(
                "HTTP_ROUTE", "ADD", {}, routeConfiguration={"vhost": {"route": {"action": "X"}}}
            ),
            "route.action: X is none of",
        ),
        (http("ADD", proxy={"proxyVersion": "(?=1)"}), "no regular expression of RE2"),
        (patch("CLUSTER", "ADD", {"lb_policy": "NOPE"}), "patch.value: .*NOPE"),
        (patch("EXTENSION_CONFIG", "ADD", {}), "EXTENSION_CONFIG is not translated"),
    ],
)
def test_what_the_webhook_refuses_is_an_error_that_names_the_field(
    said: dict[str, Any], why: str
) -> None:
    with pytest.raises(MeshError, match=rf"EnvoyFilter shop/f: spec.configPatches\[0\].*{why}"):
        rendered(envoy_filter(said))
