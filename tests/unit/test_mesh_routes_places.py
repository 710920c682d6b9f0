"""extproc/mesh: which routes a gateway and a sidecar get, and under which names."""

from typing import Any

import pytest

from extproc.mesh.manifests import MeshError
from extproc.mesh.routes import dropped, gateway_routes, sidecar_routes
from extproc.mesh.world import Proxy
from tests.mesh_worlds import CART, GATEWAY, INGRESS, SIDECAR, virtual_service, world

FULL = "cart.shop.svc.cluster.local"


def spec(*hosts: str, to: str = "cart", gateways: str = "[ingress]", more: str = "") -> str:
    return (
        f"hosts: [{', '.join(repr(host) for host in hosts)}]\ngateways: {gateways}\n{more}\n"
        f"http: [{{name: {to}, match: [{{uri: {{prefix: /{to}}}}}],"
        f" route: [{{destination: {{host: {to}}}}}]}}]"
    )


def gateway(servers: str, *, name: str = "ingress", namespace: str = "shop") -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: Gateway\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {{selector: {{istio: ingress}}, servers: [{servers}]}}"
    )


def server(port: int, *hosts: str, protocol: str = "HTTP", more: str = "") -> str:
    return (
        f"{{port: {{number: {port}, name: p{port}, protocol: {protocol}}},"
        f" hosts: [{', '.join(repr(host) for host in hosts)}]{more}}}"
    )


def service(name: str, ports: str, *, namespace: str = "shop", more: str = "") -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {{ports: [{ports}]{more}}}"
    )


def table(configurations: list[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """The names of routes, by configuration and by domains."""
    return {
        configuration["name"]: {
            " ".join(host["domains"]): [route["name"] for route in host.get("routes", ())]
            for host in configuration["virtual_hosts"]
        }
        for configuration in configurations
    }


def at_gateway(*documents: str) -> dict[str, dict[str, list[str]]]:
    return table(gateway_routes(world(CART, *documents), GATEWAY))


def at_sidecar(*documents: str, proxy: Proxy = SIDECAR) -> dict[str, dict[str, list[str]]]:
    found = table(sidecar_routes(world(*documents), proxy))
    for hosts in found.values():
        assert hosts.pop("*", ["allow_any"]) == ["allow_any"]
    return found


def test_virtual_services_of_one_gateway_are_merged_with_what_takes_all_last() -> None:
    everything = (
        "hosts: [a.example]\ngateways: [ingress]\n"
        "http: [{name: all, route: [{destination: {host: cart}}]}]"
    )
    found = at_gateway(
        INGRESS,
        virtual_service(everything, name="a"),
        virtual_service(spec("a.example", to="b"), name="b"),
    )

    assert found == {"http.8000": {"a.example": ["b", "all"]}}


def test_the_oldest_goes_first_then_what_is_yet_to_be_created_by_name() -> None:
    services = [virtual_service(spec("a.example", to=name), name=name) for name in ("c", "a", "b")]
    services[0] = services[0].replace(
        "name: c,", "name: c, creationTimestamp: '2026-01-01T00:00:00Z',", 1
    )

    assert at_gateway(INGRESS, *services) == {"http.8000": {"a.example": ["c", "a", "b"]}}


def test_what_is_exported_to_the_gateways_namespace_alone_goes_first() -> None:
    found = at_gateway(
        INGRESS,
        virtual_service(spec("a.example", to="all", gateways="[shop/ingress]"), name="a"),
        virtual_service(spec("a.example", to="own", more="exportTo: ['.']"), name="z"),
        virtual_service(
            spec("a.example", to="given", gateways="[shop/ingress]", more="exportTo: [shop, bank]"),
            name="c",
            namespace="away",
        ),
        virtual_service(spec("a.example", to="none", more="exportTo: ['~', shop]"), name="d"),
        virtual_service(
            spec("a.example", to="hidden", gateways="[shop/ingress]", more="exportTo: ['.']"),
            name="e",
            namespace="away",
        ),
    )

    assert found == {"http.8000": {"a.example": ["own", "given", "all"]}}


def test_of_overlapping_hosts_the_narrower_counts() -> None:
    found = at_gateway(
        gateway(server(8000, "*.a.example", "./b.example", "other/c.example", "*/d.example")),
        virtual_service(spec("x.a.example", to="x"), name="x"),
        virtual_service(spec("*.example", to="y"), name="y"),
        virtual_service(spec("c.example", to="z"), name="z"),
    )

    assert found == {"http.8000": {"x.a.example": ["x"], "b.example d.example *.a.example": ["y"]}}


def test_a_wildcard_meets_itself() -> None:
    found = at_gateway(gateway(server(8000, "*.a.example")), virtual_service(spec("*.a.example")))

    assert found == {"http.8000": {"*.a.example": ["cart"]}}


def test_hosts_of_one_virtual_service_share_a_virtual_host_longest_first() -> None:
    (found,) = gateway_routes(
        world(CART, INGRESS, virtual_service(spec("B.example", "*.x.example", "aa.example"))),
        GATEWAY,
    )

    (host,) = found["virtual_hosts"]
    assert host["domains"] == ["aa.example", "b.example", "*.x.example"]
    assert host["name"] == "aa.example:8000"


def test_a_gateway_named_in_other_words_is_the_same() -> None:
    for name in ("ingress", "./ingress", "shop/ingress", "ingress.shop.svc.cluster.local"):
        found = at_gateway(INGRESS, virtual_service(spec("a.example", gateways=f"[{name}]")))
        assert found == {"http.8000": {"a.example": ["cart"]}}
    assert at_gateway(INGRESS, virtual_service(spec("a.example", gateways="[bank/ingress]"))) == {
        "http.8000": {"*": []}
    }


def test_https_servers_have_routes_of_their_own_and_plain_ones_may_send_there() -> None:
    servers = ",".join(
        (
            server(80, "a.example", "b.example", more=", tls: {httpsRedirect: true}"),
            server(80, "c.example", protocol="HTTP2"),
            server(443, "a.example", protocol="HTTPS", more=", tls: {mode: SIMPLE}"),
            server(8443, "a.example", protocol="HTTPS", more=", tls: {mode: PASSTHROUGH}"),
            server(9443, "a.example", protocol="TLS", more=", tls: {mode: SIMPLE}"),
            server(81, "a.example", more=", bind: 127.0.0.1"),
        )
    )
    known = world(CART, gateway(servers), virtual_service(spec("a.example", "c.example")))
    found = gateway_routes(known, GATEWAY)

    assert table(found) == {
        "http.80": {"a.example": ["cart"], "b.example": [], "c.example": ["cart"]},
        "http.81.127.0.0.1": {"a.example": ["cart"]},
        "https.443.p443.ingress.shop": {"a.example": ["cart"]},
    }
    assert [host.get("require_tls") for host in found[0]["virtual_hosts"]] == ["ALL", "ALL", None]
    assert "routes" not in found[0]["virtual_hosts"][1]


def test_a_redirect_behind_tls_leaves_out_its_port() -> None:
    rule = (
        "hosts: [a.example]\ngateways: [ingress]\n"
        "http: [{redirect: {derivePort: FROM_REQUEST_PORT}}]"
    )
    known = world(
        gateway(server(443, "*", protocol="HTTPS", more=", tls: {mode: SIMPLE}")),
        virtual_service(rule),
    )

    (host,) = gateway_routes(known, GATEWAY)[0]["virtual_hosts"]
    assert host["routes"][0]["redirect"] == {"path_redirect": ""}


def test_a_gateway_for_other_pods_gives_nothing() -> None:
    other = INGRESS.replace("istio: ingress}", "istio: egress}")

    assert at_gateway(other, virtual_service(spec("a.example"))) == {}
    assert at_gateway(INGRESS.replace("selector: {istio: ingress}", "selector: {}")) != {}


def test_two_gateways_on_a_port_share_its_routes() -> None:
    found = at_gateway(
        INGRESS,
        gateway(server(8000, "*"), name="second"),
        virtual_service(spec("a.example", to="a"), name="a"),
        virtual_service(spec("b.example", to="b", gateways="[second]"), name="b"),
    )

    assert found == {"http.8000": {"a.example": ["a"], "b.example": ["b"]}}


def test_the_service_in_front_says_where_a_gateway_listens() -> None:
    front = service(
        "front",
        "{name: http, port: 8000, targetPort: 18000}",
        more=", selector: {istio: ingress}, clusterIP: 10.0.0.9",
    )
    found = gateway_routes(world(CART, INGRESS, front, virtual_service(spec("a.example"))), GATEWAY)

    assert [each["name"] for each in found] == ["http.18000"]
    assert found[0]["virtual_hosts"][0]["name"] == "a.example:8000"
    for other in ("istio: ingress, x: y", "istio: egress"):
        assert "http.8000" in at_gateway(INGRESS, front.replace("istio: ingress", other))
    with pytest.raises(MeshError, match="targetPort: write the port's number"):
        at_gateway(INGRESS, front.replace("18000", "http"))


@pytest.mark.parametrize(
    ("servers", "path"),
    [
        (f"{server(80, 'a')},{server(80, 'b', protocol='HTTPS')}", "servers[1].port: another"),
        (f"{server(80, 'a')},{server(80, 'b', protocol='TCP')}", "servers[1].port: another"),
        (server(443, "a", protocol="HTTPS"), "servers[0].tls: missing"),
        (
            ",".join([server(443, "a", protocol="HTTPS", more=", tls: {mode: SIMPLE}")] * 2),
            "servers[1].port.name: another",
        ),
        ("{hosts: [a]}", "servers[0].port.number: missing"),
        (server(80, "a", more=", bogus: 1"), "servers[0].bogus: is no field"),
        (server(80, "a", more=", tls: {httpsRedirect: 1}"), "servers[0].tls.httpsRedirect: must"),
        (server(80, "a", more=", tls: []"), "servers[0].tls: must be a mapping"),
    ],
)
def test_a_wrong_gateway_is_an_error(servers: str, path: str) -> None:
    with pytest.raises(MeshError) as caught:
        at_gateway(gateway(servers))

    assert f"Gateway shop/ingress: spec.{path}" in str(caught.value)


def test_a_sidecar_knows_hosts_by_names_that_fit_its_namespace() -> None:
    pay = service(
        "pay",
        "{name: http, port: 8080}",
        namespace="bank",
        more=", clusterIPs: [10.0.0.2, 'fd::2']",
    )

    assert at_sidecar(CART, pay) == {
        "8080": {
            f"{FULL} {FULL}. cart cart.shop.svc cart.shop 10.0.0.1": ["default"],
            "pay.bank.svc.cluster.local pay.bank.svc.cluster.local. pay.bank pay.bank.svc"
            " 10.0.0.2 [fd::2]": ["default"],
        }
    }


def test_a_second_virtual_service_for_a_host_is_dropped_and_told() -> None:
    known = world(
        CART,
        virtual_service(spec("cart", "x.example", to="a", gateways="[mesh]"), name="a"),
        virtual_service(spec("cart", "y.example", to="b", gateways="[mesh]"), name="b"),
    )
    (found,) = sidecar_routes(known, SIDECAR)

    assert {each["name"]: each["routes"][0]["name"] for each in found["virtual_hosts"]} == {
        f"{FULL}:8080": "a",
        "x.example:8080": "a",
        "y.example:8080": "b",
        "allow_any": "allow_any",
    }
    (line,) = dropped(known, SIDECAR)
    assert line.startswith(f"VirtualService shop/b: spec.hosts: sidecars ignore it for {FULL}: ")
    assert "VirtualService shop/a goes before" in line


def test_a_virtual_service_without_a_route_for_this_sidecar_leaves_room_for_the_next() -> None:
    first = spec("cart", to="a", gateways="[mesh]").replace("{uri:", "{sourceNamespace: bank, uri:")
    documents = (
        CART,
        virtual_service(first, name="a"),
        virtual_service(spec("cart", to="b", gateways="[mesh]"), name="b"),
    )

    for namespace, route in (("shop", "b"), ("bank", "a")):
        (hosts,) = at_sidecar(*documents, proxy=Proxy("sidecar", namespace, {})).values()
        assert list(hosts.values()) == [[route]]


def test_a_sidecar_follows_what_is_bound_to_the_mesh_and_exported_to_it() -> None:
    def routes_of(*, gateways: str = "[mesh]", more: str = "") -> list[list[str]]:
        said = spec("cart", gateways=gateways, more=more).replace("gateways: []", "")
        return list(at_sidecar(CART, virtual_service(said))["8080"].values())

    assert routes_of() == routes_of(gateways="[]") == [["cart"]]
    assert routes_of(more="exportTo: [shop]") == [["cart"]]
    assert routes_of(gateways="[ingress]") == routes_of(more="exportTo: [bank]") == [["default"]]


def test_on_port_80_alone_hosts_nobody_knows_have_routes() -> None:
    web = service("web", "{name: http, port: 80}", more=", clusterIP: 10.0.0.3")
    nobody = virtual_service(spec("B.example", "fd::1", gateways="[mesh]"))
    found = at_sidecar(CART, web, nobody)

    assert {"b.example", "[fd::1]"} < found["80"].keys()
    assert "b.example" not in found["8080"]


def test_a_wildcard_that_stands_for_nothing_is_a_host_on_port_80() -> None:
    web = service("web", "{name: http, port: 80}")
    found = at_sidecar(web, virtual_service(spec("*.b.example", gateways="[mesh]")))

    assert found["80"]["*.b.example"] == ["cart"]


def test_a_short_name_gives_way_to_the_same_full_name() -> None:
    entry = (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
        "metadata: {name: entry, namespace: shop}\nspec: {hosts: [cart.shop], resolution: DNS,"
        " ports: [{number: 8080, name: http, protocol: HTTP}]}"
    )

    assert [key.split() for key in at_sidecar(CART, entry)["8080"]] == [
        [FULL, f"{FULL}.", "cart", "cart.shop.svc", "10.0.0.1"],
        ["cart.shop", "cart.shop."],
    ]


def test_a_wildcard_stands_for_what_nothing_else_speaks_for() -> None:
    documents = (
        CART,
        service("pay", "{name: http, port: 8080}"),
        service("web", "{name: grpc, port: 8080}", namespace="bank"),
        virtual_service(spec("*.cluster.local", to="a", gateways="[mesh]"), name="a"),
        virtual_service(spec("*.bank.svc.cluster.local", to="b", gateways="[mesh]"), name="b"),
        virtual_service(spec("pay", to="c", gateways="[mesh]"), name="c"),
    )

    assert {key.split()[0]: value for key, value in at_sidecar(*documents)["8080"].items()} == {
        FULL: ["a"],
        "pay.shop.svc.cluster.local": ["c"],
        "web.bank.svc.cluster.local": ["b"],
    }


def test_a_port_of_unknown_protocol_has_a_listener_and_routes_of_its_own() -> None:
    odd = service("odd", "{port: 8080}, {name: tcp, port: 9}", more=", clusterIP: 10.0.0.4")
    alone = table(sidecar_routes(world(odd), SIDECAR))
    found = sidecar_routes(world(CART, odd), SIDECAR)
    name = "odd.shop.svc.cluster.local:8080"

    assert alone == {name: {"*": ["default"]}}
    assert [each["name"] for each in found] == ["8080", name]
    assert [each["name"] for each in found[0]["virtual_hosts"]] == [
        f"{FULL}:8080",
        name,
        "allow_any",
    ]
    assert [each["domains"] for each in found[1]["virtual_hosts"]] == [["*"]]


def test_a_host_that_speaks_no_http_on_a_port_has_no_routes_there() -> None:
    tcp = service("tcp", "{name: tcp, port: 8080}, {name: http, port: 8081}")
    found = at_sidecar(CART, tcp, virtual_service(spec("tcp", gateways="[mesh]")))

    assert [key.split()[0] for key in found["8080"]] == [FULL]
    assert list(found["8081"].values()) == [["cart"]]


def test_a_destination_without_a_port_is_where_the_sidecars_request_went() -> None:
    pay = service("pay", "{name: http, port: 9090}")
    known = world(CART, pay, virtual_service(spec("cart", to="pay", gateways="[mesh]")))

    (host, _) = sidecar_routes(known, SIDECAR)[0]["virtual_hosts"]
    assert host["routes"][0]["route"]["cluster"] == "outbound|8080||pay.shop.svc.cluster.local"


def test_a_host_without_routes_is_hashed_by_its_rule() -> None:
    rule = (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        "metadata: {name: cart, namespace: shop}\nspec: {host: cart, trafficPolicy:"
        " {loadBalancer: {consistentHash: {httpHeaderName: a}}, portLevelSettings: [{port:"
        " {number: 9}, loadBalancer: {consistentHash: {httpHeaderName: b}}}]}}"
    )
    two = CART.replace("8080}]", "8080}, {name: http-b, port: 9}]")

    assert [
        each["virtual_hosts"][0]["routes"][0]["route"]["hash_policy"]
        for each in sidecar_routes(world(two, rule), SIDECAR)
    ] == [[{"header": {"header_name": "a"}}], [{"header": {"header_name": "b"}}]]


def test_no_two_virtual_hosts_share_a_route_that_a_patch_may_change() -> None:
    known = world(
        CART,
        INGRESS,
        gateway(server(8000, "*"), name="second"),
        virtual_service(spec("cart", "a.example", gateways="[mesh, ingress, second]")),
    )

    for configurations in (gateway_routes(known, GATEWAY), sidecar_routes(known, SIDECAR)):
        found = [
            id(route["match"])
            for host in configurations[0]["virtual_hosts"]
            for route in host["routes"]
        ]
        assert len(found) == len(set(found)) > 1
