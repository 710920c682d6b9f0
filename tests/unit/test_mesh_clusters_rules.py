"""extproc/mesh: which DestinationRule a host has, and what ServiceEntries make of clusters."""

from typing import Any

import pytest
import yaml

from extproc.mesh.clusters import clusters
from extproc.mesh.endpoints import endpoints
from extproc.mesh.manifests import MeshError, parse
from extproc.mesh.world import Proxy, World, world_of

ISTIO = "networking.istio.io/v1"
HOST = "api.far.svc.cluster.local"
MAIN = f"outbound|80||{HOST}"
GATEWAY = Proxy("gateway", "near", {})
SIDECAR = Proxy("sidecar", "near", {}, "10.1.0.1")


def service(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "api", "namespace": "far", **metadata},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }


def rule(name: str, namespace: str, host: str = HOST, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": ISTIO,
        "kind": "DestinationRule",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"host": host, **spec},
    }


def entry(**spec: Any) -> dict[str, Any]:
    said = {
        "hosts": ["api.example"],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "resolution": "DNS",
        **spec,
    }
    metadata = {"name": "out", "namespace": "far"}
    return {"apiVersion": ISTIO, "kind": "ServiceEntry", "metadata": metadata, "spec": said}


def world(*documents: dict[str, Any]) -> World:
    return world_of(parse(yaml.safe_dump_all(documents), "m.yaml"))


def made(*documents: dict[str, Any], proxy: Proxy = GATEWAY) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in clusters(world(*documents), proxy)}


def followed(*rules: dict[str, Any], proxy: Proxy = GATEWAY) -> str:
    """Namespace and name of the rule that the host has."""
    metadata = made(service(), *rules, proxy=proxy)[MAIN]["metadata"]["filter_metadata"]["istio"]
    path = str(metadata.get("config", ""))
    return "/".join(path.split("/")[5::2]) if path else ""


FAR, NEAR, ROOT = (rule("r", namespace) for namespace in ("far", "near", "istio-system"))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], ""),
        ([ROOT, FAR, NEAR], "near/r"),
        ([ROOT, FAR], "far/r"),
        ([ROOT], "istio-system/r"),
        ([rule("r", "other")], ""),
        ([rule("r", "far", exportTo=["."])], ""),
        ([rule("r", "far", exportTo=["far"]), ROOT], "istio-system/r"),
        ([rule("r", "far", exportTo=["near"])], "far/r"),
        ([rule("r", "near", exportTo=["far"]), FAR], "far/r"),
        ([rule("r", "near", exportTo=["."])], "near/r"),
        ([rule("r", "istio-system", exportTo=["."])], ""),
        ([rule("all", "far", "*"), rule("some", "far", "*.far.svc.cluster.local")], "far/some"),
        ([rule("some", "far", "*.far.svc.cluster.local"), FAR], "far/r"),
        ([rule("other", "far", "*.near.svc.cluster.local")], ""),
        ([rule("short", "far", "api")], "far/short"),
        ([rule("short", "near", "api")], ""),
    ],
)
def test_which_rule_a_host_has(rules: list[dict[str, Any]], expected: str) -> None:
    assert followed(*rules) == expected


def test_a_proxy_of_the_root_namespace_has_its_private_rules_first() -> None:
    proxy = GATEWAY._replace(namespace="istio-system")

    assert followed(ROOT, FAR, proxy=proxy) == "far/r"
    assert followed(rule("p", "istio-system", exportTo=["."]), FAR, proxy=proxy) == "istio-system/p"


def test_two_rules_of_a_host_are_one_and_the_first_keeps_what_it_says() -> None:
    one = rule("a", "far", subsets=[{"name": "x", "labels": {"v": "1"}}])
    two = rule(
        "b",
        "far",
        trafficPolicy={"loadBalancer": {"simple": "RANDOM"}},
        subsets=[
            {"name": "x", "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"}}},
            {"name": "y"},
        ],
    )
    found = made(service(), one, two)

    assert found[MAIN]["lb_policy"] == "RANDOM"
    assert found[f"outbound|80|x|{HOST}"]["lb_policy"] == "RANDOM"
    assert f"outbound|80|y|{HOST}" in found
    config = found[MAIN]["metadata"]["filter_metadata"]["istio"]["config"]
    assert config.endswith("/namespaces/far/destination-rule/a")


def test_rules_exported_to_others_stay_apart() -> None:
    one = rule("a", "far", exportTo=["other"], subsets=[{"name": "x"}])
    two = rule("b", "far", exportTo=["near"], subsets=[{"name": "y"}])
    found = made(service(), one, two)

    assert f"outbound|80|y|{HOST}" in found
    assert f"outbound|80|x|{HOST}" not in found
    assert f"outbound|80|y|{HOST}" in made(service(), two, rule("z", "far", exportTo=["other"]))


@pytest.mark.parametrize(
    ("export_to", "is_known"),
    [("", True), ("*", True), ("a, near", True), (".", False), ("~", False)],
)
def test_hosts_are_known_to_whom_they_are_exported(export_to: str, is_known: bool) -> None:
    said = service(annotations={"networking.istio.io/exportTo": export_to})

    assert (MAIN in made(said)) is is_known
    if export_to:
        outside = entry(exportTo=[each.strip() for each in export_to.split(",")])
        assert ("outbound|80||api.example" in made(outside)) is is_known


def test_a_host_that_is_said_twice_is_an_error() -> None:
    with pytest.raises(MeshError, match=r"the host api\.example is said by ServiceEntry far/out"):
        made(entry(), entry())


OUT = "outbound|80||api.example"


@pytest.mark.parametrize(
    ("proxy", "spec", "expected"),
    [
        (GATEWAY, {}, "STRICT_DNS"),
        (GATEWAY, {"resolution": "DNS_ROUND_ROBIN"}, "LOGICAL_DNS"),
        (GATEWAY, {"resolution": "STATIC"}, "EDS"),
        (GATEWAY, {"resolution": "NONE"}, "EDS"),
        (GATEWAY, {"resolution": None}, "EDS"),
        (SIDECAR, {"resolution": "NONE"}, "ORIGINAL_DST"),
    ],
)
def test_how_the_endpoints_of_an_entry_are_found(
    proxy: Proxy, spec: dict[str, Any], expected: str
) -> None:
    found = made(entry(**spec), proxy=proxy)[OUT]

    assert found["type"] == expected
    assert ("load_assignment" in found) is expected.endswith("DNS")
    assert found["metadata"]["filter_metadata"]["istio"]["external"] is True


def test_without_resolution_the_port_may_be_another() -> None:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}]
    found = made(entry(resolution="NONE", ports=ports), proxy=SIDECAR)[OUT]

    assert found["original_dst_lb_config"] == {"upstream_port_override": 8080}
    assert "original_dst_lb_config" not in made(entry(resolution="NONE", ports=ports))[OUT]


def test_endpoints_of_an_entry() -> None:
    said = [
        {"address": "10.2.0.1", "weight": 3, "labels": {"app": "m", "version": "v1"}},
        {"address": "10.2.0.2", "ports": {"http": 8000}},
    ]
    policy = rule("r", "far", "api.example", subsets=[{"name": "one", "labels": {"app": "m"}}])
    subset, whole = endpoints(world(entry(resolution="STATIC", endpoints=said), policy), GATEWAY)

    first, second = whole["endpoints"][0]["lb_endpoints"]
    assert whole["endpoints"][0]["load_balancing_weight"] == 4
    assert subset["endpoints"][0]["lb_endpoints"] == [first]
    assert first["metadata"]["filter_metadata"]["istio"]["workload"] == "out;far;m;v1;Kubernetes"
    assert second["endpoint"]["address"]["socket_address"]["port_value"] == 8000
    assert "health_status" not in first


def test_a_subset_without_endpoints_to_resolve_is_no_cluster() -> None:
    policy = rule("r", "far", "api.example", subsets=[{"name": "one", "labels": {"app": "m"}}])

    assert "outbound|80|one|api.example" not in made(entry(), policy)


def test_an_outside_host_is_held_to_the_names_its_entry_says() -> None:
    policy = rule("r", "far", "api.example", trafficPolicy={"tls": {"mode": "SIMPLE"}})
    found = made(entry(subjectAltNames=["b.example", "a.example"]), policy)[OUT]

    trusted = found["transport_socket"]["typed_config"]["common_tls_context"]
    assert trusted["combined_validation_context"]["default_validation_context"] == {
        "match_subject_alt_names": [{"exact": "a.example"}, {"exact": "b.example"}]
    }


def test_a_proxy_on_ipv6_resolves_to_that() -> None:
    found = made(entry(), proxy=SIDECAR._replace(address="fd00::1"))

    assert found[OUT]["dns_lookup_family"] == "V6_ONLY"
    bound = found["InboundPassthroughCluster"]["upstream_bind_config"]["source_address"]
    assert bound["address"] == "::6"


PORT = {"number": 80, "name": "http"}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"nonsense": 1}, r"spec\.nonsense: is no field"),
        ({"hosts": []}, r"spec\.hosts: missing"),
        ({"hosts": "api.example"}, r"spec\.hosts: must be a list"),
        ({"ports": [80]}, r"spec\.ports\[0\]: must be a mapping"),
        ({"ports": [{"number": 80}]}, r"spec\.ports\[0\]\.name: missing"),
        ({"ports": [PORT, PORT]}, r"spec\.ports\[0\]\.number: 80 stands here twice"),
        ({"ports": [{**PORT, "targetPort": "x"}]}, "targetPort: must be a whole number"),
        ({"ports": [{**PORT, "protocol": "UDP"}]}, "protocol: must be one of"),
        ({"resolution": "DYNAMIC_DNS"}, r"spec\.resolution: must be one of"),
        ({"workloadSelector": {}}, "workloadSelector: not translated"),
        ({"hosts": ["*.example"]}, r"spec\.hosts\[0\]: a wildcard can't be resolved"),
        ({"resolution": "NONE", "endpoints": [{"address": "1.2.3.4"}]}, "there may be none"),
        ({"resolution": "STATIC", "endpoints": [{"address": "a.example"}]}, "an IP address where"),
        ({"endpoints": [{"address": "unix:///x"}]}, "must be an IP address or, for DNS, a name"),
        ({"endpoints": [{"address": "a.b", "ports": {"x": 1}}]}, "is no port of the entry"),
        ({"endpoints": [{"address": "a.b", "locality": "r/z"}]}, "localities are not known"),
        ({"endpoints": [{"address": "a.b", "labels": {"a": 1}}]}, r"labels\.a: must be text"),
        (
            {
                "resolution": "DNS_ROUND_ROBIN",
                "endpoints": [{"address": "a.example"}, {"address": "b.example"}],
            },
            "there may be one",
        ),
    ],
)
def test_an_entry_that_is_not_understood_is_an_error(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(MeshError, match=why):
        world(entry(**spec))
