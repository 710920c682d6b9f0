"""extproc/mesh/lint: rule by rule, what breaks it besides its example, and what must not."""

from pathlib import Path

import pytest

from extproc.mesh.lint.finding import Finding
from extproc.mesh.lint.lint import lint
from extproc.mesh.manifests import parse

EXAMPLES = Path(__file__).parents[1] / "mesh_lint"


def good(name: str) -> str:
    return (EXAMPLES / name / "good.yaml").read_text()


def found_in(text: str) -> list[Finding]:
    return list(lint(parse(text, "file.yaml")))


def changed(name: str, *changes: tuple[str, str]) -> list[tuple[str, str]]:
    """Rule and path of what is found in an example after changes that all take place."""
    text = good(name)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return sorted({(finding.rule, finding.path) for finding in found_in(text)})


Change = tuple[str, str]

RULE = """\
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: a, subsets: [{name: b}]}
---
"""

BROKEN: list[tuple[str, list[Change], str, str]] = [
    (
        "retry-on-refused",
        [("429", "too-many-requests")],
        "retry-on-refused",
        "spec.http[0].retries.retryOn",
    ),
    (
        "fallback-without-429",
        [('connect-failure,429"}', 'connect-failure", retryRemoteLocalities: true}')],
        "fallback-without-429",
        "spec.http[0].retries.retryOn",
    ),
    (
        "stream-retried",
        [("      retries: {attempts: 0}\n", "")],
        "stream-retried",
        "spec.http[0].retries",
    ),
    (
        "stream-retried",
        [("retries: {attempts: 0}", 'retries: {attempts: "9"}')],
        "stream-retried",
        "spec.http[0].retries.attempts",
    ),
    (
        "fallback-without-429",
        [
            (
                'retries: {attempts: 2, retryOn: "connect-failure,refused-stream"}',
                "retries: {attempts: 1}",
            )
        ],
        "one-attempt-is-a-retry",
        "spec.http[1].retries.attempts",
    ),
    (
        "route-without-timeout",
        [("timeout: 300s", "timeout: 0s")],
        "route-without-timeout",
        "spec.http[1].timeout",
    ),
    (
        "retry-on-refused",
        [("timeout: 120s", "timeout: 59s")],
        "timeout-shorter-than-tier",
        "spec.http[0].timeout",
    ),
    (
        "stream-by-accept-alone",
        [
            ('        - headers: {x-llm-stream: {exact: "true"}}\n', ""),
            ("exact: text/event-stream", 'regex: ".*text/event-stream.*"'),
        ],
        "stream-by-accept-alone",
        "spec.http[0].match",
    ),
    (
        "no-catch-all",
        [("    - name: default\n", "    - name: default\n      match: [{uri: {prefix: /v1}}]\n")],
        "no-catch-all",
        "spec.http",
    ),
    (
        "tier-without-route",
        [("      default: {", "      gold: {model: gpt-4}\n      default: {")],
        "tier-without-route",
        "spec.http",
    ),
    (
        "headers-not-stripped",
        [("                - {remove: x-llm-stream}\n", "")],
        "headers-not-stripped",
        "spec.configPatches[2].patch.value",
    ),
    (
        "headers-not-stripped",
        [("operation: INSERT_FIRST", "operation: INSERT_AFTER")],
        "headers-not-stripped",
        "spec.configPatches[2].patch.value",
    ),
    (
        "headers-not-stripped",
        [("context: GATEWAY", "context: SIDECAR_INBOUND")],
        "headers-not-stripped",
        "spec.configPatches[2].patch.value",
    ),
    (
        "buffer-below-body-limit",
        [
            ("applyTo: VIRTUAL_HOST", "applyTo: ROUTE_CONFIGURATION"),
            ("request_body_buffer_limit: 8650752", ""),
        ],
        "buffer-below-body-limit",
        "spec.configPatches[2].patch.value.typed_config.processing_mode.request_body_mode",
    ),
    (
        "message-timeout-too-short",
        [("message_timeout: 2s", "message_timeout: 0.2s")],
        "message-timeout-too-short",
        "spec.configPatches[2].patch.value.typed_config.message_timeout",
    ),
    (
        "metadata-not-received",
        [("untyped: [llm]", "untyped: [others]")],
        "metadata-not-received",
        "spec.configPatches[2].patch.value.typed_config.metadata_options.receiving_namespaces.untyped",
    ),
    (
        "stats-hidden",
        [('            stat_prefix: "llm."\n', "")],
        "stats-hidden",
        "spec.configPatches[2].patch.value.typed_config.stat_prefix",
    ),
    (
        "observer-fails-closed",
        [("  workloadSelector: {labels: {istio: ingressgateway}}\n", "")],
        "patch-reaches-too-far",
        "spec.workloadSelector",
    ),
    (
        "observer-fails-closed",
        [("        context: GATEWAY\n", "")],
        "patch-reaches-too-far",
        "spec.configPatches[0].match.context",
    ),
    (
        "newer-than-istios-envoy",
        [("{untyped: [llm]}", "{untyped: [llm], typed: [llm]}")],
        "newer-than-istios-envoy",
        "spec.configPatches[2].patch.value.typed_config.metadata_options.receiving_namespaces.typed",
    ),
    (
        "not-in-istio-proxy",
        [("outbound|8080||gpt4", "outbound|8080|none|gpt4")],
        "",
        "",
    ),
    (
        "unknown-port",
        [
            (
                "---\n",
                RULE,
            ),
            ("{host: local-llama}", "{host: local-llama, subset: v1}"),
        ],
        "unknown-subset",
        "spec.http[1].route[0].destination",
    ),
    (
        "unknown-envoy-field",
        [("request_body_mode: BUFFERED", "request_body_mode: BUFFER")],
        "unknown-envoy-field",
        "spec.configPatches[2].patch.value.typed_config.processing_mode.request_body_mode",
    ),
    (
        "http-filter-added",
        [("filters.http.lua.v3.Lua", "filters.http.luau.v3.Lua")],
        "unknown-envoy-field",
        "spec.configPatches[0].patch.value.typed_config.@type",
    ),
    (
        "unknown-istio-field",
        [("  http:\n", "  https: []\n  http:\n")],
        "unknown-istio-field",
        "spec.https",
    ),
    (
        "unknown-istio-field",
        [("hosts: [model-gateway]", "hosts: model-gateway")],
        "unknown-istio-field",
        "spec.hosts",
    ),
]


@pytest.mark.parametrize(("name", "changes", "rule", "path"), BROKEN)
def test_a_change_breaks_a_rule(name: str, changes: list[Change], rule: str, path: str) -> None:
    assert changed(name, *changes) == ([(rule, path)] if rule else [])


FINE: list[tuple[str, list[Change]]] = [
    # A header mutation that is put in just before the filter is in front of it as well.
    (
        "headers-not-stripped",
        [
            ("operation: INSERT_FIRST", "operation: INSERT_BEFORE"),
            (
                "http_connection_manager}}}",
                "http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}",
            ),
        ],
    ),
    (
        "headers-not-stripped",
        [
            ("                - {remove: x-llm-tier}\n", ""),
            ("                - {remove: x-llm-model}\n", ""),
            ("                - {remove: x-llm-prompt-tokens}\n", ""),
            ("{remove: x-llm-stream}", "{remove_on_match: {key_matcher: {prefix: x-llm-}}}"),
        ],
    ),
    # Whoever takes tenants from a header needs it to come through.
    (
        "buffer-below-body-limit",
        [
            ("{remove: x-tenant-id}", "{remove: x-other}"),
            ("{jwt_claim: tenant}", "{header: x-tenant-id}"),
        ],
    ),
    (
        "buffer-below-body-limit",
        [
            ("applyTo: VIRTUAL_HOST", "applyTo: LISTENER"),
            ("request_body_buffer_limit", "per_connection_buffer_limit_bytes"),
        ],
    ),
    # A catch-all by another word.
    (
        "no-catch-all",
        [("    - name: default\n", "    - name: default\n      match: [{uri: {prefix: /}}]\n")],
    ),
    ("tier-without-route", [("{exact: premium}", '{regex: "prem.*"}')]),
    # Retries and shadows of what is no LLM traffic are nobody's business here.
    ("second-virtual-service", [("- route:", "- retries: {attempts: 1}\n      route:")]),
    ("http-filter-added", [("  priority: 20\n", "")]),
    ("http-filter-added", [("  workloadSelector: {labels: {istio: ingressgateway}}\n", "")]),
    # protobuf JSON has two names for a field.
    (
        "message-timeout-too-short",
        [
            (
                "            stat_prefix:",
                "            messageTimeout: 2s\n            stat_prefix:",
            ),
            ("            message_timeout: 2s\n", ""),
        ],
    ),
    ("merge-of-default", [("stream_idle_timeout: 900s", "stream_idle_timeout: 0s")]),
    ("merge-of-default", [("stream_idle_timeout: 900s", "use_remote_address: false")]),
    (
        "merge-of-default",
        [
            (
                "stream_idle_timeout: 900s",
                "access_log: [{name: x, filter: {not_health_check_filter: {}}}]",
            )
        ],
    ),
]


@pytest.mark.parametrize(("name", "changes"), FINE)
def test_a_change_breaks_nothing(name: str, changes: list[Change]) -> None:
    assert changed(name, *changes) == []


LOSSES: list[tuple[Change, str, str]] = [
    (
        ('                        - {key: x-envoy-max-retries, value: "400"}\n', ""),
        "initial_metadata",
        "x-envoy-max-retries",
    ),
    (("reset,connect-failure,", "connect-failure,"), "initial_metadata", "without reset"),
    (("num_retries: 400", "num_retries: 5"), "num_retries", "too few"),
    (('value: "2000"', 'value: "0"'), "initial_metadata", "per-try-timeout"),
    ((", max_interval: 10s", ""), "retry_back_off", "left out"),
    (
        ("                    buffer_flush_interval: 0.2s\n", ""),
        "buffer_flush_interval",
        "left out",
    ),
    (("buffer_flush_interval: 0.2s", "buffer_flush_interval: 30s"), "buffer_flush_interval", "30s"),
    (("%STREAM_ID%", "%REQ(X)%"), "attributes.values", "stream_id"),
    (
        ("open_telemetry.v3.OpenTelemetryAccessLogConfig", "grpc.v3.HttpGrpcAccessLogConfig"),
        "@type",
        "nobody",
    ),
]


@pytest.mark.parametrize(("change", "path", "what"), LOSSES)
def test_each_setting_that_a_logger_lacks_is_told(change: Change, path: str, what: str) -> None:
    text = good("access-log-loses-records")
    assert change[0] in text

    found = [
        each for each in found_in(text.replace(*change)) if each.rule == "access-log-loses-records"
    ]

    assert [(each.path.endswith(path), what in each.what) for each in found] == [(True, True)]


def test_a_logger_of_others_may_lose_what_it_likes() -> None:
    text = good("access-log-loses-records").replace("llm-settle", "spans")
    text = text.replace("%DYNAMIC_METADATA(llm)%", "%REQ(X)%").replace(
        "num_retries: 400", "num_retries: 1"
    )

    assert found_in(text) == []


EXT_PROC = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"


def test_a_filter_may_be_written_as_a_typed_struct() -> None:
    text = good("message-timeout-too-short")
    start, _, rest = text.partition(f'"@type": {EXT_PROC}\n')
    assert rest
    inside = rest.replace("\n  ", "\n    ")
    head = '"@type": type.googleapis.com/udpa.type.v1.TypedStruct\n'
    fine = f"{start}{head}            type_url: {EXT_PROC}\n            value:\n  {inside}"

    assert found_in(fine) == []
    (found,) = found_in(fine.replace("message_timeout: 2s", "message_timeout: 0.1s"))
    assert found.rule == "message-timeout-too-short"
    assert found.path.endswith("typed_config.value.message_timeout")
    (found,) = found_in(fine.replace("stat_prefix: ", "prefix: a\n              stat_prefix: "))
    assert (found.rule, found.path.rpartition(".")[2]) == ("unknown-envoy-field", "prefix")


def test_what_a_patch_merges_into_a_filter_is_not_taken_for_the_whole() -> None:
    text = (
        good("message-timeout-too-short")
        + """\
    - applyTo: HTTP_FILTER
      match:
        context: GATEWAY
        listener: {filterChain: {filter: {name: a, subFilter: {name: llm.policy}}}}
      patch:
        operation: MERGE
        value:
          name: llm.policy
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
            failure_mode_allow: true
"""
    )
    assert found_in(text) == []
    (found,) = found_in(text.replace("failure_mode_allow: true", "failure_mode_allow: false"))
    assert found.rule == "merge-of-default"


def test_what_has_nothing_to_do_with_llms_is_left_alone() -> None:
    assert found_in((EXAMPLES / "not-llm.yaml").read_text()) == []


def test_a_lone_route_is_not_asked_for_its_services() -> None:
    assert (
        found_in(good("no-catch-all").replace("{host: gpt4-adapter}", "{host: a, subset: b}")) == []
    )
