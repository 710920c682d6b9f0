"""Spans of Envoy's own, with what the filter and the meter noted as tags."""

import json
from typing import Any, Final

TAGS: Final = {
    # Row B9 of the mission, and the same under OpenTelemetry's names.
    "llm.model": "model",
    "llm.tenant_id": "tenant",
    "llm.temperature": "temperature",
    "llm.prompt.tokens": "prompt_tokens_used",
    "llm.prompt.tokens.estimated": "prompt_tokens",
    "llm.completion.tokens": "completion_tokens_used",
    "llm.total.tokens": "total_tokens_used",
    "llm.tokens.per.second": "tokens_per_second",
    "llm.tier": "tier",
    "llm.downgraded_from": "downgraded_from",
    "llm.reason": "reason",
    "gen_ai.request.model": "requested_model",
    "gen_ai.response.model": "model",
    "gen_ai.usage.input_tokens": "prompt_tokens_used",
    "gen_ai.usage.output_tokens": "completion_tokens_used",
}
"""Tag to key of the metadata `llm`. Read when the span ends, so that the meter has been there."""

_CLUSTER: Final = "collector"


def tracing(collector_port: int, *, version: str) -> str:
    """The `tracing` of a connection manager, as one line of YAML; nothing without a collector."""
    if not collector_port:
        return ""
    provider = {
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "grpc_service": {"envoy_grpc": {"cluster_name": _CLUSTER}, "timeout": "1s"},
            "service_name": "gateway",
        },
    }
    tags = [_from_metadata(tag, key) for tag, key in TAGS.items()]
    if not version.startswith("1.36."):  # which has no tags that a format makes
        tags.append({"tag": "llm.latency.ms", "value": "%DURATION%"})
    told: dict[str, Any] = {
        "provider": provider,
        # One span for the request, one for each attempt at an upstream.
        "spawn_upstream_span": True,
        # Of requests whose caller did not decide. Where a `traceparent` came, its flag rules.
        "random_sampling": {"value": 100},
        "custom_tags": tags,
    }
    return "tracing: " + json.dumps(told)


def tracing_cluster(collector_port: int) -> str:
    """The collector's cluster, as one item of a YAML list; nothing without a collector."""
    if not collector_port:
        return ""
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    address = {"address": "127.0.0.1", "port_value": collector_port}
    endpoint = {"endpoint": {"address": {"socket_address": address}}}
    told = {
        "name": _CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: {
                "@type": "type.googleapis.com/" + options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {"cluster_name": _CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return "- " + json.dumps(told)


def _from_metadata(tag: str, key: str) -> dict[str, Any]:
    where = {"key": "llm", "path": [{"key": key}]}
    return {"tag": tag, "metadata": {"kind": {"request": {}}, "metadata_key": where}}
