"""extproc/mesh/lint: the edges of rules, where one more step would be a miss or a false alarm."""

from pathlib import Path

import pytest

from extproc.mesh.lint.lines import line_of
from extproc.mesh.lint.lint import lint
from extproc.mesh.lint.routes import matches, milliseconds
from extproc.mesh.manifests import parse
from tests.unit.test_mesh_lint_cases import Change, changed, found_in, good

STRIPPED = "- {remove: x-llm-tier}"
BOTH = "                - {remove: x-llm-model}\n                - {remove: x-llm-prompt-tokens}\n"
ROUTER = "http_connection_manager}}}"
BEFORE = "http_connection_manager, subFilter: {name: NAME}}}}"
OF_FILTER = "http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}"


def test_a_removal_by_pattern_removes_what_it_matches_and_no_more() -> None:
    for key, left in (
        ("{exact: x-llm-tier}", False),
        ("{exact: x-llm}", True),
        ("{prefix: x-llm-t}", False),
        ("{prefix: x-llm-s}", True),
        ("{prefix: ''}", True),
        ('{safe_regex: {regex: "x-llm-.*"}}', False),
        ('{safe_regex: {regex: "x-other-.*"}}', True),
        ('{safe_regex: {regex: "("}}', True),
    ):
        by = f"- {{remove_on_match: {{key_matcher: {key}}}}}"
        found = changed("headers-not-stripped", (STRIPPED, by))
        assert [rule for rule, _ in found] == ["headers-not-stripped"] * left, key


@pytest.mark.parametrize(
    ("name", "is_in_front"),
    [("envoy.filters.http.router", True), ("llm.policy", True), ("envoy.filters.http.cors", False)],
)
def test_a_stripper_is_in_front_only_where_that_is_sure(name: str, *, is_in_front: bool) -> None:
    found = changed(
        "headers-not-stripped",
        ("operation: INSERT_FIRST", "operation: INSERT_BEFORE"),
        (ROUTER, BEFORE.replace("NAME", name)),
    )
    assert (found == []) is is_in_front


def test_a_stripper_that_is_put_in_later_is_behind() -> None:
    text = good("headers-not-stripped").replace("INSERT_FIRST", "INSERT_BEFORE")
    text = text.replace(ROUTER, BEFORE.replace("NAME", "envoy.filters.http.router"), 1)
    head, first, rest = text.partition("    - applyTo: HTTP_FILTER\n")
    stripper, second, others = rest.partition("    - applyTo: VIRTUAL_HOST\n")

    found = found_in(f"{head}{second}{others}{first}{stripper}")

    assert [each.rule for each in found] == ["headers-not-stripped"]


SECOND = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: more, namespace: NAMESPACE}
spec:
  hosts: [reviews.shop.svc.cluster.local]
  EXPORT
  http: [{route: [{destination: {host: a}}]}]
"""


@pytest.mark.parametrize(
    ("namespace", "export", "is_dropped"),
    [
        ("shop", "exportTo: ['.']", False),
        ("other", "exportTo: ['*']", True),
        ("other", "exportTo: []", True),
        ("other", "exportTo: ['.']", False),  # there it goes first, and is so meant
        ("other", "exportTo: ['~']", False),
        ("other", "gateways: [door]", False),
        ("other", "gateways: [door, mesh]", True),
    ],
)
def test_the_second_of_a_host_is_dropped_where_both_are_seen(
    namespace: str, export: str, *, is_dropped: bool
) -> None:
    second = SECOND.replace("NAMESPACE", namespace).replace("EXPORT", export)
    found = found_in(good("second-virtual-service") + second)

    assert [each.rule for each in found] == ["second-virtual-service"] * is_dropped


def test_each_of_two_for_namespaces_of_their_own_stands() -> None:
    first = good("second-virtual-service").replace("  http:", "  exportTo: ['.']\n  http:")
    second = SECOND.replace("NAMESPACE", "other").replace("EXPORT", "exportTo: ['.']")

    assert found_in(first + second) == []


def test_one_resource_in_two_files_is_not_two() -> None:
    text = good("second-virtual-service")

    assert found_in(f"{text}---\n{text}") == []


CLUSTER = """\
    - applyTo: CLUSTER
      match: {context: GATEWAY}
      patch:
        operation: ADD
        value: {name: llm-records, type: STRICT_DNS, circuit_breakers: {thresholds: [LIMITS]}}
"""


@pytest.mark.parametrize(("limits", "count"), [("{max_retries: 100000}", 0), ("{}", 1)])
def test_a_loggers_own_cluster_must_allow_retries(limits: str, count: int) -> None:
    text = good("access-log-loses-records") + CLUSTER.replace("LIMITS", limits)
    text = text.replace("outbound|50051||llm-extproc.llm-system.svc.cluster.local", "llm-records")

    found = found_in(text)

    assert [each.path.rpartition(".")[2] for each in found] == ["thresholds"] * count


QUIET: list[tuple[str, list[Change]]] = [
    # Another route's settings of the filter are read, where the route matched before it ran.
    (
        "override-after-routing",
        [
            (
                "applyTo: VIRTUAL_HOST\n      match: {context: GATEWAY}",
                "applyTo: VIRTUAL_HOST\n      match: {context: GATEWAY} ",
            ),
        ],
    ),
    # No proxy, no figures.
    (
        "stats-hidden",
        [
            ("inject.istio.io/templates: gateway", 'sidecar.istio.io/inject: "false"'),
            ("ext_proc.*", "none"),
        ],
    ),
    (
        "stats-hidden",
        [
            (
                "labels: {istio: ingressgateway}\n      annotations",
                "labels: {istio: other}\n      annotations",
            ),
            ("ext_proc.*", "none"),
        ],
    ),
    # A tier by pattern has no timeout of its own to compare with.
    (
        "timeout-shorter-than-tier",
        [("{exact: premium}", "{prefix: premium}"), ("timeout: 120s", "timeout: 60s")],
    ),
    (
        "fallback-without-429",
        [('"connect-failure,refused-stream"', '"gateway-error,retriable-4xx"')],
    ),
]


@pytest.mark.parametrize(("name", "changes"), QUIET)
def test_nothing_is_said(name: str, changes: list[Change]) -> None:
    assert changed(name, *changes) == []


def test_a_route_that_a_patch_sends_on_needs_429() -> None:
    patch = """\
    - applyTo: HTTP_ROUTE
      match: {context: GATEWAY, routeConfiguration: {vhost: {route: {name: NAME}}}}
      patch:
        operation: MERGE
        value: {route: {retry_policy: {retry_priority: {name: a}}}}
---
"""
    text = good("route-without-timeout").replace(",429", "")
    ours = good("message-timeout-too-short")

    for name, count in (("premium", 1), ("other", 0)):
        found = found_in(ours + patch.replace("NAME", name) + text)
        assert [each.rule for each in found] == ["fallback-without-429"] * count


def test_a_duration_that_is_none_is_told_once() -> None:
    (found,) = found_in(
        good("message-timeout-too-short").replace("message_timeout: 2s", "message_timeout: soon")
    )

    assert found.rule == "unknown-envoy-field"


def test_the_settings_of_two_routes_of_a_tier_are_compared() -> None:
    text = good("timeout-shorter-than-tier").partition("---")[0]
    other = text.replace("model-gateway", "models").replace("120s", "90s")

    (found,) = found_in(f"{text}---\n{other}")

    assert (found.rule, found.resource) == (
        "timeout-shorter-than-tier",
        "VirtualService ai-platform/models",
    )


def test_lines_are_those_of_keys_that_begin_alike(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "kind: A\nmetadata: {name: a}\nspec:\n  a: 1\n  a.b: 2\n  ab: {c: 3}\n  d: [1,\n   2]\n"
    )
    (manifest,) = parse(file.read_text(), str(file))

    lines = [line_of(manifest, f"spec.{path}") for path in ("a", "ab", "ab.c", "d[1]", "d[7]", "e")]

    assert lines == [4, 6, 6, 8, 7, 3]
    assert line_of(manifest._replace(file="nowhere"), "spec.a") == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("1m30s", 90_000), ("0", 0), ("0.5s", 500), ("s", None), ("1", None), ("", None), (3, None)],
)
def test_durations(text: object, value: float | None) -> None:
    assert milliseconds(text) == value


def test_expressions_that_may_take_for_ever_are_not_tried() -> None:
    assert matches("a+", "aaa") is True
    assert matches("a", "b") is False
    assert matches("(a+)+b", "a" * 60) is None
    assert matches("a*" * 30 + "b", "a" * 60) is None
    assert matches("(", "a") is None


def test_a_lone_list_has_no_findings() -> None:
    assert lint(parse("kind: List\nitems: []\n", "a.yaml")) == ()


def test_a_stream_told_by_accept_is_a_stream_too() -> None:
    by_filter = '        - headers: {x-llm-stream: {exact: "true"}}\n'
    found = changed("stream-retried", (by_filter, ""), ("attempts: 0", "attempts: 2"))

    assert [rule for rule, _ in found] == ["stream-by-accept-alone", "stream-retried"]


@pytest.mark.parametrize(
    ("match", "is_catch_all"),
    [
        ("uri: {regex: '.*'}", True),
        ("uri: {regex: '/v1/.*'}", False),
        ("name: rest", True),
        ("gateways: [door]", True),
        ("method: {exact: POST}", False),
        ("headers: {}", True),
    ],
)
def test_a_catch_all_is_what_takes_every_request(match: str, *, is_catch_all: bool) -> None:
    name = "    - name: default\n"
    found = changed("no-catch-all", (name, f"{name}      match: [{{{match}}}]\n"))

    assert (found == []) is is_catch_all


REFS = "  targetRefs: [{kind: Gateway, name: NAME}]\n"
LABELS = "  workloadSelector: {labels: {istio: ingressgateway}}\n"


@pytest.mark.parametrize(("name", "is_covered"), [("door", True), ("other", False)])
def test_a_stripper_must_be_on_the_same_gateway(name: str, *, is_covered: bool) -> None:
    text = good("headers-not-stripped")
    policy = text.replace(LABELS, REFS.replace("NAME", "door")).replace(STRIPPED, "")
    stripper = text.replace("name: llm-policy,", "name: llm-strip,")
    stripper = stripper.replace(LABELS, REFS.replace("NAME", name))
    stripper = stripper.partition("    - applyTo: VIRTUAL_HOST")[0]

    found = found_in(f"{policy}---\n{stripper}")

    assert [each.rule for each in found] == ["headers-not-stripped"] * (not is_covered)


def test_a_filter_that_sees_no_request_decides_nothing() -> None:
    text = good("headers-not-stripped").replace(STRIPPED, "")
    text = text.replace("request_body_mode: BUFFERED", "request_body_mode: NONE")

    assert [each.rule for each in found_in(text)] == ["headers-not-stripped"]
    text = text.replace("request_header_mode: SEND", "request_header_mode: SKIP")
    assert found_in(text) == []
