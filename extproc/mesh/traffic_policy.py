"""What a DestinationRule's `trafficPolicy` makes of a cluster.

Facts from istiod's `pilot/pkg/networking/core/cluster_traffic_policy.go`.
"""

from collections.abc import Mapping
from typing import Any, Final

from extproc.mesh.cluster_drafts import Draft

UNLIMITED: Final = (1 << 32) - 1
"""What istiod writes where a rule sets no limit: Envoy's own defaults are low."""
CONNECT_TIMEOUT: Final = "10s"
RETRY_CONCURRENCY_MIN: Final = 3
RING_SIZE_MIN: Final = 1024
"""Of a consistent hash whose rule names no algorithm."""

_ENFORCED: Final = 100


def apply_outbound(draft: Draft, policy: Mapping[str, Any]) -> None:
    """Set all but TLS."""
    pool = policy.get("connectionPool", {})
    http = pool.get("http", {})
    if http.get("h2UpgradePolicy") == "UPGRADE":
        draft.speak_h2()
    apply_connection_pool(draft, policy)
    _apply_outlier_detection(draft.cluster, policy.get("outlierDetection"))
    _apply_load_balancer(draft.cluster, policy.get("loadBalancer", {}))


def apply_connection_pool(draft: Draft, policy: Mapping[str, Any]) -> None:
    """Set limits and timeouts, those left out too. A count of 0 is as one left out."""
    pool = policy.get("connectionPool", {})
    tcp, http = pool.get("tcp", {}), pool.get("http", {})
    cluster, options = draft.cluster, draft.options
    cluster["connect_timeout"] = tcp.get("connectTimeout", CONNECT_TIMEOUT)
    threshold: dict[str, Any] = {
        "max_connections": tcp.get("maxConnections") or UNLIMITED,
        "max_pending_requests": http.get("http1MaxPendingRequests") or UNLIMITED,
        "max_requests": http.get("http2MaxRequests") or UNLIMITED,
        "max_retries": http.get("maxRetries") or UNLIMITED,
    }
    if "retryBudget" in policy:
        budget = policy["retryBudget"]
        threshold["retry_budget"] = {
            "budget_percent": percent(budget["percent"]),
            "min_retry_concurrency": budget.get("minRetryConcurrency") or RETRY_CONCURRENCY_MIN,
        }
    cluster["circuit_breakers"] = {"thresholds": [threshold]}
    if "tcpKeepalive" in tcp:
        cluster["upstream_connection_options"] = {"tcp_keepalive": _keepalive(tcp["tcpKeepalive"])}
    common = {
        "idle_timeout": http.get("idleTimeout") or tcp.get("idleTimeout"),
        "max_requests_per_connection": http.get("maxRequestsPerConnection"),
        "max_connection_duration": tcp.get("maxConnectionDuration"),
    }
    streams = http.get("maxConcurrentStreams")
    if streams or any(common.values()):
        options["common_http_protocol_options"] = {
            name: value for name, value in common.items() if value
        }
    if streams and draft.is_h2:
        options["explicit_http_config"]["http2_protocol_options"] = {
            "max_concurrent_streams": streams
        }
    if http.get("useClientProtocol"):
        draft.speak_as_asked()


def percent(value: float) -> dict[str, float]:
    """A Percent as protobuf JSON writes it."""
    return {"value": value} if value else {}


def _keepalive(said: Mapping[str, Any]) -> dict[str, int]:
    found = {}
    if said.get("probes"):
        found["keepalive_probes"] = said["probes"]
    for name in ("time", "interval"):
        if name in said:
            # Whole seconds: the rest is dropped.
            found[f"keepalive_{name}"] = int(said[name].removesuffix("s").partition(".")[0])
    return found


def _apply_outlier_detection(cluster: dict[str, Any], said: Mapping[str, Any] | None) -> None:
    if said is None:
        return
    found: dict[str, Any] = {"enforcing_success_rate": 0}
    for name, key in (
        ("consecutive5xxErrors", "consecutive_5xx"),
        ("consecutiveGatewayErrors", "consecutive_gateway_failure"),
    ):
        if name in said:
            found[key] = said[name]
            found[f"enforcing_{key}"] = _ENFORCED if said[name] else 0
    for name, key in (("interval", "interval"), ("baseEjectionTime", "base_ejection_time")):
        if name in said:
            found[key] = said[name]
    if said.get("maxEjectionPercent"):
        found["max_ejection_percent"] = said["maxEjectionPercent"]
    if said.get("splitExternalLocalOriginErrors"):
        found["split_external_local_origin_errors"] = True
        found["enforcing_local_origin_success_rate"] = 0
        if said.get("consecutiveLocalOriginFailures"):
            found["consecutive_local_origin_failure"] = said["consecutiveLocalOriginFailures"]
            found["enforcing_consecutive_local_origin_failure"] = _ENFORCED
    cluster["outlier_detection"] = found
    cluster["common_lb_config"]["healthy_panic_threshold"] = percent(
        said.get("minHealthPercent", 0)
    )


def _apply_load_balancer(cluster: dict[str, Any], said: Mapping[str, Any]) -> None:
    if cluster["type"] == "ORIGINAL_DST":
        cluster["lb_policy"] = "CLUSTER_PROVIDED"
        return
    simple = said.get("simple", "UNSPECIFIED")
    if simple == "PASSTHROUGH":
        cluster["lb_policy"] = "CLUSTER_PROVIDED"
        cluster["type"] = "ORIGINAL_DST"
        cluster.pop("load_assignment", None)
    elif simple == "RANDOM":
        cluster["lb_policy"] = "RANDOM"
    else:
        # ROUND_ROBIN is Envoy's default, which protobuf JSON leaves out.
        is_robin = simple == "ROUND_ROBIN"
        cluster |= {} if is_robin else {"lb_policy": "LEAST_REQUEST"}
        slow_start = _slow_start(said)
        if slow_start:
            name = "round_robin_lb_config" if is_robin else "least_request_lb_config"
            cluster[name] = {"slow_start_config": slow_start}
    if "consistentHash" in said:
        _apply_consistent_hash(cluster, said["consistentHash"])


def _slow_start(said: Mapping[str, Any]) -> dict[str, Any]:
    if "warmup" in said:
        warmup = said["warmup"]
        return {
            "slow_start_window": warmup["duration"],
            # istiod's own runtime key, which no runtime has: the value stays.
            "aggression": {"default_value": warmup.get("aggression", 1), "runtime_key": "("},
            "min_weight_percent": percent(warmup.get("minimumPercent", 10)),
        }
    if "warmupDurationSecs" in said:
        return {"slow_start_window": said["warmupDurationSecs"]}
    return {}


def _apply_consistent_hash(cluster: dict[str, Any], said: Mapping[str, Any]) -> None:
    if "maglev" in said:
        cluster["lb_policy"] = "MAGLEV"
        size, config = said["maglev"].get("tableSize"), ("maglev_lb_config", "table_size")
    else:
        cluster["lb_policy"] = "RING_HASH"
        config = ("ring_hash_lb_config", "minimum_ring_size")
        if "ringHash" in said:
            size = said["ringHash"].get("minimumRingSize")
        else:
            size = said.get("minimumRingSize") or RING_SIZE_MIN
    if size:
        cluster.pop("least_request_lb_config", None)
        # A 64-bit number is text in protobuf JSON.
        cluster[config[0]] = {config[1]: str(size)}
