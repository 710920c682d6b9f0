"""extproc/mesh: what DestinationRules make of clusters, beyond what istiod's own cases show."""

from typing import Any

import pytest
import yaml

from extproc.mesh.clusters import clusters
from extproc.mesh.endpoints import endpoints
from extproc.mesh.manifests import MeshError, parse
from extproc.mesh.world import Proxy, World, world_of

HOST = "api.n.svc.cluster.local"
MAIN = f"outbound|80||{HOST}"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: api, namespace: n}
spec:
  clusterIP: 10.0.0.1
  ports:
  - {name: http, port: 80}
  - {name: grpc, port: 81}
  - {name: other, port: 82}
  - {name: x, port: 25}
  - {name: dns, port: 53, protocol: UDP}
---
apiVersion: v1
kind: Pod
metadata: {name: api-0, namespace: n, labels: {app: api, version: v1}}
spec: {serviceAccountName: models}
---
apiVersion: v1
kind: Pod
metadata: {name: api-1, namespace: n, labels: {app: api, version: latest}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: api-x, namespace: n, labels: {kubernetes.io/service-name: api}}
ports: [{name: http, port: 8080}, {name: grpc, port: 8081}, {name: other, port: 8082}]
endpoints:
- {addresses: [10.1.0.1], targetRef: {kind: Pod, name: api-0}}
- {addresses: [10.1.0.2], targetRef: {kind: Pod, name: api-1}, conditions: {ready: false}}
- {addresses: [10.1.0.3], conditions: {ready: false, terminating: true}}
"""
GATEWAY = Proxy("gateway", "n", {})
SIDECAR = Proxy("sidecar", "n", {"app": "api"}, "10.1.0.1")


def rule(spec: dict[str, Any], name: str = "r", namespace: str = "n") -> str:
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"host": "api", **spec},
    }
    return yaml.safe_dump(document)


def world(*rules: str) -> World:
    return world_of(parse("---\n".join((SERVICE, *rules)), "m.yaml"))


def made(*rules: str, proxy: Proxy = GATEWAY) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in clusters(world(*rules), proxy)}


def with_policy(policy: dict[str, Any], proxy: Proxy = GATEWAY) -> dict[str, Any]:
    return made(rule({"trafficPolicy": policy}), proxy=proxy)[MAIN]


def options(cluster: dict[str, Any]) -> dict[str, Any]:
    (found,) = cluster.get("typed_extension_protocol_options", {"": {}}).values()
    return {key: value for key, value in found.items() if key != "@type"}


def balanced(load_balancer: dict[str, Any]) -> dict[str, Any]:
    cluster = with_policy({"loadBalancer": load_balancer})
    return {key: cluster[key] for key in cluster if key.startswith("lb_") or "lb_config" in key}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, {"lb_policy": "LEAST_REQUEST"}),
        ({"simple": "LEAST_CONN"}, {"lb_policy": "LEAST_REQUEST"}),
        ({"simple": "RANDOM"}, {"lb_policy": "RANDOM"}),
        ({"simple": "ROUND_ROBIN"}, {}),
        ({"simple": "PASSTHROUGH"}, {"lb_policy": "CLUSTER_PROVIDED"}),
        (
            {"simple": "LEAST_REQUEST", "warmup": {"duration": "1m", "aggression": 1.5}},
            {
                "lb_policy": "LEAST_REQUEST",
                "least_request_lb_config": {
                    "slow_start_config": {
                        "slow_start_window": "60s",
                        "aggression": {"default_value": 1.5, "runtime_key": "("},
                        "min_weight_percent": {"value": 10},
                    }
                },
            },
        ),
        (
            {"simple": "ROUND_ROBIN", "warmupDurationSecs": "1500ms"},
            {"round_robin_lb_config": {"slow_start_config": {"slow_start_window": "1.500s"}}},
        ),
        (
            {"consistentHash": {"useSourceIp": True}},
            {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": "1024"}},
        ),
        (
            {"consistentHash": {"httpCookie": {"name": "c", "ttl": "0s"}, "minimumRingSize": 64}},
            {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": "64"}},
        ),
        (
            {"consistentHash": {"httpHeaderName": "x", "ringHash": {}}},
            {"lb_policy": "RING_HASH"},
        ),
        (
            {"consistentHash": {"httpQueryParameterName": "q", "maglev": {"tableSize": 5003}}},
            {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": "5003"}},
        ),
        ({"localityLbSetting": {"enabled": False}}, {"lb_policy": "LEAST_REQUEST"}),
    ],
)
def test_load_balancers(said: dict[str, Any], expected: dict[str, Any]) -> None:
    found = balanced(said)
    del found["common_lb_config"]

    assert found == expected


def test_passthrough_goes_where_requests_were_sent() -> None:
    found = with_policy({"loadBalancer": {"simple": "PASSTHROUGH"}})

    assert found["type"] == "ORIGINAL_DST"
    assert "eds_cluster_config" not in found


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ({}, {}),
        ({"tcp": {"idleTimeout": "1h"}}, {"idle_timeout": "3600s"}),
        ({"tcp": {"idleTimeout": "1h"}, "http": {"idleTimeout": "2s"}}, {"idle_timeout": "2s"}),
        ({"tcp": {"maxConnectionDuration": "1m30s"}}, {"max_connection_duration": "90s"}),
        ({"http": {"maxRequestsPerConnection": 0}}, {}),
    ],
)
def test_limits_of_connections(pool: dict[str, Any], expected: dict[str, Any]) -> None:
    found = options(with_policy({"connectionPool": pool}))

    assert found.get("common_http_protocol_options", {}) == expected
    assert not expected or found["explicit_http_config"] == {"http_protocol_options": {}}


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        ({"h2UpgradePolicy": "UPGRADE"}, "explicit_http_config"),
        ({"h2UpgradePolicy": "UPGRADE", "useClientProtocol": True}, "use_downstream"),
        ({"useClientProtocol": True}, "use_downstream"),
    ],
)
def test_what_is_spoken_upstream(http: dict[str, Any], expected: str) -> None:
    found = options(with_policy({"connectionPool": {"http": http}}))

    (name,) = found
    assert name.startswith(expected)
    assert "http2_protocol_options" in found[name]


def test_a_sidecar_speaks_as_asked_where_nobody_said_and_a_gateway_does_not() -> None:
    name = f"outbound|82||{HOST}"

    assert "use_downstream_protocol_config" in options(made(proxy=SIDECAR)[name])
    assert options(made()[name]) == {}
    assert options(made(proxy=SIDECAR)[f"outbound|25||{HOST}"]) == {}
    assert f"outbound|53||{HOST}" not in made()
    assert "explicit_http_config" in options(made()[f"outbound|81||{HOST}"])


def test_keepalive_of_nothing_is_the_systems() -> None:
    pool = {"tcp": {"tcpKeepalive": {"time": "90s"}}}

    found = with_policy({"connectionPool": pool})
    assert found["upstream_connection_options"] == {"tcp_keepalive": {"keepalive_time": 90}}
    found = with_policy({"connectionPool": {"tcp": {"tcpKeepalive": {}}}})
    assert found["upstream_connection_options"] == {"tcp_keepalive": {}}


def test_a_retry_budget() -> None:
    found = with_policy({"retryBudget": {"percent": 12.5}})["circuit_breakers"]["thresholds"][0]

    assert found["retry_budget"] == {"budget_percent": {"value": 12.5}, "min_retry_concurrency": 3}


def context(tls: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    cluster = with_policy({"tls": tls})
    return cluster["transport_socket"]["typed_config"], cluster


def test_mutual_tls_out_of_files() -> None:
    found, cluster = context(
        {
            "mode": "MUTUAL",
            "clientCertificate": "/c.pem",
            "privateKey": "/k.pem",
            "caCertificates": "/ca.pem",
            "caCrl": "/crl.pem",
        }
    )
    common = found["common_tls_context"]

    assert common["tls_certificate_sds_secret_configs"][0]["name"] == "file-cert:/c.pem~/k.pem"
    trusted = common["combined_validation_context"]
    assert trusted["validation_context_sds_secret_config"]["name"] == "file-root:/ca.pem"
    assert trusted["default_validation_context"] == {"crl": {"filename": "/crl.pem"}}
    assert "sni" not in found
    assert options(cluster)["upstream_http_protocol_options"] == {
        "auto_sni": True,
        "auto_san_validation": True,
    }
    assert cluster["metadata"]["filter_metadata"]["istio"]["alpn_override"] == "false"


def test_tls_that_checks_nothing() -> None:
    found, cluster = context({"mode": "SIMPLE", "insecureSkipVerify": True})

    assert found["common_tls_context"]["validation_context"] == {}
    assert options(cluster)["upstream_http_protocol_options"] == {"auto_sni": True}


def test_istios_own_tls_expects_the_service_accounts() -> None:
    found, cluster = context({"mode": "ISTIO_MUTUAL"})

    trusted = found["common_tls_context"]["combined_validation_context"]
    assert trusted["default_validation_context"]["match_subject_alt_names"] == [
        {"exact": "spiffe://cluster.local/ns/n/sa/default"},
        {"exact": "spiffe://cluster.local/ns/n/sa/models"},
    ]
    assert found["common_tls_context"]["alpn_protocols"] == ["istio"]
    assert found["sni"] == f"outbound_.80_._.{HOST}"
    assert options(cluster) == {}


def test_tls_that_is_off() -> None:
    assert "transport_socket" not in with_policy({"tls": {"mode": "DISABLE", "sni": "x"}})


def test_what_a_port_says_of_itself_replaces_all() -> None:
    policy = {
        "connectionPool": {"tcp": {"maxConnections": 7}},
        "portLevelSettings": [{"port": {"number": 81}, "outlierDetection": {}}],
    }
    found = made(rule({"trafficPolicy": policy}))

    def limit(number: int) -> int:
        cluster = found[f"outbound|{number}||{HOST}"]
        value: int = cluster["circuit_breakers"]["thresholds"][0]["max_connections"]
        return value

    assert (limit(80), limit(81)) == (7, 4294967295)
    assert "outlier_detection" in found[f"outbound|81||{HOST}"]


def test_endpoints_of_subsets_and_of_none() -> None:
    said = [{"name": "one", "labels": {"version": "v1"}}, {"name": "none", "labels": {"x": "y"}}]
    found = {
        each["cluster_name"]: each for each in endpoints(world(rule({"subsets": said})), GATEWAY)
    }

    whole = found[MAIN]["endpoints"][0]["lb_endpoints"]
    assert [each["metadata"]["filter_metadata"]["istio"]["workload"] for each in whole] == [
        "api-0;n;api;v1;Kubernetes",
        "api-1;n;api;;Kubernetes",
    ]
    assert len(found[f"outbound|80|one|{HOST}"]["endpoints"][0]["lb_endpoints"]) == 1
    assert found[f"outbound|80|none|{HOST}"] == {"cluster_name": f"outbound|80|none|{HOST}"}


def test_who_is_not_ready_is_sent_unless_a_rule_says_how_many_must_be_well() -> None:
    def healths(*rules: str) -> list[str]:
        found = {each["cluster_name"]: each for each in endpoints(world(*rules), GATEWAY)}
        return [each["health_status"] for each in found[MAIN]["endpoints"][0]["lb_endpoints"]]

    assert healths() == ["HEALTHY", "UNHEALTHY"]
    policy = {"outlierDetection": {"minHealthPercent": 10}}
    assert healths(rule({"trafficPolicy": policy})) == ["HEALTHY"]


def test_what_a_sidecar_serves_itself_has_its_rules_limits() -> None:
    policy = {
        "connectionPool": {"tcp": {"maxConnections": 7}},
        "outlierDetection": {},
        "tls": {"mode": "ISTIO_MUTUAL"},
    }
    found = made(rule({"trafficPolicy": policy}), proxy=SIDECAR)

    assert {name for name in found if name.startswith("inbound|")} == {
        "inbound|8080||",
        "inbound|8081||",
        "inbound|8082||",
    }
    mine = found["inbound|8080||"]
    assert mine["circuit_breakers"]["thresholds"][0]["max_connections"] == 7
    assert not {"outlier_detection", "transport_socket"} & mine.keys()
    assert "explicit_http_config" in options(found["inbound|8081||"])
    assert "use_downstream_protocol_config" in options(found["inbound|8082||"])


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"host": ""}, r"spec\.host: must be text"),
        ({"host": None}, r"spec\.host: missing"),
        ({"nonsense": 1}, r"spec\.nonsense: is no field"),
        ({"workloadSelector": {"matchLabels": {}}}, r"spec\.workloadSelector: not translated"),
        ({"subsets": [{"labels": {}}]}, r"spec\.subsets\[0\]\.name: missing"),
        ({"subsets": [{"name": "a"}, {"name": "a"}]}, r"spec\.subsets\[1\]\.name: .*twice"),
        ({"subsets": [{"name": "a", "labels": {"x": 1}}]}, r"labels\.x: must be text"),
        ({"subsets": {"name": "a"}}, r"spec\.subsets: must be a list"),
        ({"trafficPolicy": []}, r"spec\.trafficPolicy: must be a mapping"),
        ({"exportTo": "*"}, r"spec\.exportTo: must be a list"),
    ],
)
def test_a_rule_that_is_not_understood_is_an_error(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(MeshError, match=rf"m\.yaml:\d+: DestinationRule n/r: .*{why}"):
        made(rule(spec))


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"tunnel": {}}, "tunnel: not translated"),
        ({"proxyProtocol": {}}, "proxyProtocol: not translated"),
        ({"retryBudget": {}}, r"retryBudget\.percent: missing"),
        ({"loadBalancer": {"simple": "BEST"}}, "simple: must be one of"),
        (
            {"loadBalancer": {"simple": "RANDOM", "consistentHash": {"useSourceIp": True}}},
            "may have one of consistentHash, simple",
        ),
        (
            {"loadBalancer": {"localityLbSetting": {"failover": []}}},
            r"localityLbSetting\.failover: localities are not known",
        ),
        ({"loadBalancer": {"warmup": {"aggression": 0.5}}}, "aggression: must be a number from 1"),
        ({"loadBalancer": {"warmup": {}}}, r"warmup\.duration: missing"),
        ({"connectionPool": {"tcp": {"maxConnections": "7"}}}, "maxConnections: must be a whole"),
        ({"connectionPool": {"tcp": {"maxConnections": True}}}, "maxConnections: must be a whole"),
        ({"connectionPool": {"tcp": {"connectTimeout": 5}}}, "connectTimeout: must be a duration"),
        ({"connectionPool": {"tcp": {"connectTimeout": "1us"}}}, r"duration of 0\.001s or more"),
        ({"connectionPool": {"tcp": {"connectTimeout": "5x"}}}, "must be a duration"),
        ({"connectionPool": {"tcp": {"connectTimeout": "9999999h"}}}, "must be a duration"),
        ({"connectionPool": {"http": {"http2KeepAlive": {}}}}, "http2KeepAlive: is no field"),
        ({"outlierDetection": {"consecutiveErrors": 1}}, "write consecutive5xxErrors"),
        ({"outlierDetection": {"outlierDetectionHttpErrorCodes": [429]}}, "not translated"),
        ({"outlierDetection": {"maxEjectionPercent": 101}}, "from 0 to 100"),
        ({"tls": {"mode": "MUTUAL"}}, r"tls\.clientCertificate: missing"),
        ({"tls": {"mode": "SIMPLE", "credentialName": "x"}}, "credentialName: no secrets"),
        ({"tls": {"mode": "SIMPLE", "privateKey": "x"}}, "mode MUTUAL alone"),
        ({"tls": {"mode": "ISTIO_MUTUAL", "caCertificates": "x"}}, "SIMPLE and MUTUAL alone"),
        ({"portLevelSettings": [{"tunnel": {}}]}, r"portLevelSettings\[0\]\.tunnel: is no field"),
        ({"portLevelSettings": [{}]}, r"portLevelSettings\[0\]\.port: missing"),
        ({"portLevelSettings": [{"port": {"number": 0}}]}, r"number: must be a whole number"),
    ],
)
def test_a_policy_that_is_not_understood_is_an_error(policy: dict[str, Any], why: str) -> None:
    with pytest.raises(MeshError, match=why):
        made(rule({"trafficPolicy": policy}))
    with pytest.raises(MeshError, match=why):
        made(rule({"subsets": [{"name": "a", "trafficPolicy": policy}]}))
