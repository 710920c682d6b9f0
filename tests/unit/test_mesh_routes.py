"""extproc/mesh: what a VirtualService's rule becomes, and which rules are refused."""

from typing import Any

import pytest

from extproc.mesh.manifests import MeshError
from extproc.mesh.routes import dropped, gateway_routes, sidecar_routes
from tests.mesh_worlds import CART, GATEWAY, INGRESS, SIDECAR, virtual_service, world

TO_CART = "route: [{destination: {host: cart}}]"
PREVIOUS_HOSTS = [
    {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {
            "@type": "type.googleapis.com/"
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        },
    }
]


def routes(rule: str, *others: str) -> list[dict[str, Any]]:
    """The gateway's routes of a rule, in flow style without its braces."""
    service = virtual_service(f"hosts: [cart]\ngateways: [ingress]\nhttp: [{{{rule}}}]")
    found: list[dict[str, Any]] = gateway_routes(world(INGRESS, CART, service, *others), GATEWAY)[
        0
    ]["virtual_hosts"][0]["routes"]
    return found


def route(rule: str, *others: str) -> dict[str, Any]:
    (found,) = routes(rule, *others)
    return found


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("{}", {"prefix": "/", "case_sensitive": True}),
        ("{uri: {}}", {"prefix": "/", "case_sensitive": True}),
        ("{uri: {prefix: ''}}", {"prefix": "", "case_sensitive": True}),
        ("{uri: {exact: /a}, ignoreUriCase: true}", {"path": "/a", "case_sensitive": False}),
        ("{uri: {regex: '/.*'}}", {"safe_regex": {"regex": "/.*"}, "case_sensitive": True}),
        (
            "{scheme: {exact: https}, authority: {}, method: {}}",
            {
                "prefix": "/",
                "case_sensitive": True,
                "headers": [
                    {"name": ":method", "present_match": True},
                    {"name": ":authority", "present_match": True},
                    {"name": ":scheme", "string_match": {"exact": "https"}},
                ],
            },
        ),
        (
            "{headers: {b: {exact: ''}}, withoutHeaders: {c: {regex: '*'}, a: , b: {prefix: x}}}",
            {
                "prefix": "/",
                "case_sensitive": True,
                "headers": [
                    {"name": "a", "present_match": True, "invert_match": True},
                    {"name": "b", "string_match": {"exact": ""}},
                    {
                        "name": "b",
                        "string_match": {"prefix": "x"},
                        "invert_match": True,
                        "treat_missing_header_as_empty": True,
                    },
                    {"name": "c", "present_match": True, "invert_match": True},
                ],
            },
        ),
        (
            "{queryParams: {b: {}, a: {regex: x}}}",
            {
                "prefix": "/",
                "case_sensitive": True,
                "query_parameters": [
                    {"name": "a", "string_match": {"safe_regex": {"regex": "x"}}},
                    {"name": "b", "present_match": True},
                ],
            },
        ),
    ],
)
def test_a_match_says_what_a_request_must_be(said: str, expected: dict[str, Any]) -> None:
    assert route(f"match: [{said}], {TO_CART}")["match"] == expected


@pytest.mark.parametrize(
    ("match", "is_there"),
    [
        ("port: 8000", True),
        ("port: 8080", False),
        ("port: 0", True),
        ("sourceLabels: {istio: ingress}", True),
        ("sourceLabels: {istio: egress}", False),
        ("sourceNamespace: shop", True),
        ("sourceNamespace: bank", False),
        ("gateways: [ingress]", True),
        ("gateways: [shop/ingress, mesh]", True),
        ("gateways: [mesh]", False),
        # Beside gateways, istiod looks at nothing else.
        ("gateways: [ingress], sourceLabels: {istio: egress}", True),
    ],
)
def test_a_match_of_another_place_leaves_no_route(match: str, is_there: bool) -> None:
    found = routes(
        f"match: [{{{match}, name: it, uri: {{exact: /x}}}}, {{uri: {{exact: /y}}}}], {TO_CART}"
    )

    assert [each["match"]["path"] for each in found] == (["/x", "/y"] if is_there else ["/y"])


def test_names_are_of_the_rule_and_of_the_match() -> None:
    match = "match: [{name: a, uri: {exact: /a}}, {uri: {exact: /b}, statPrefix: p}]"

    assert [each.get("name") for each in routes(f"name: rule, {match}, {TO_CART}")] == [
        "rule.a",
        "rule",
    ]
    first, second = routes(f"{match}, {TO_CART}")
    assert first["name"] == ".a"
    assert "name" not in second
    assert second["stat_prefix"] == "p"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("{attempts: 0}", None),
        ("{retryIgnorePreviousHosts: true, backoff: 1s}", None),
        (
            "{attempts: 1, perTryTimeout: 1m30s, backoff: 25ms}",
            {
                "num_retries": 1,
                "retry_on": "connect-failure,refused-stream,unavailable,cancelled,"
                "retriable-status-codes",
                "host_selection_retry_max_attempts": "5",
                "retry_host_predicate": PREVIOUS_HOSTS,
                "per_try_timeout": "90s",
                "retry_back_off": {"base_interval": "0.025s"},
            },
        ),
        (
            "{attempts: 2, retryOn: '429,503', retryIgnorePreviousHosts: false}",
            {
                "num_retries": 2,
                "retry_on": ",retriable-status-codes",
                "retriable_status_codes": [429, 503],
                "host_selection_retry_max_attempts": "5",
            },
        ),
        (
            "{attempts: 2, retryOn: 'retriable-status-codes,429,reset', retryRemoteLocalities: no}",
            {
                "num_retries": 2,
                "retry_on": "retriable-status-codes,reset",
                "retriable_status_codes": [429],
                "host_selection_retry_max_attempts": "5",
                "retry_host_predicate": PREVIOUS_HOSTS,
            },
        ),
    ],
)
def test_retries_are_translated(said: str, expected: dict[str, Any] | None) -> None:
    assert route(f"{TO_CART}, retries: {said}")["route"].get("retry_policy") == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("{uri: /b}", {"path_redirect": "/b"}),
        (
            "{authority: b.example, scheme: https, port: 443, redirectCode: 301}",
            {"path_redirect": "", "host_redirect": "b.example", "scheme_redirect": "https"},
        ),
        ("{port: 80}", {"path_redirect": ""}),
        ("{port: 443}", {"path_redirect": "", "port_redirect": 443}),
        ("{derivePort: FROM_REQUEST_PORT}", {"path_redirect": "", "port_redirect": 8000}),
        ("{derivePort: FROM_PROTOCOL_DEFAULT}", {"path_redirect": ""}),
        ("{uri: /b, redirectCode: 302}", {"path_redirect": "/b", "response_code": "FOUND"}),
    ],
)
def test_redirects_are_translated(said: str, expected: dict[str, Any]) -> None:
    found = route(f"redirect: {said}")

    assert found["redirect"] == expected
    assert found["decorator"] == {"operation": "cart:8000/*"}


def test_an_answer_may_have_no_body() -> None:
    assert route("directResponse: {status: 503}")["direct_response"] == {"status": 503}
    said = "directResponse: {status: 503, body: {string: ''}}"
    assert route(said)["direct_response"] == {"status": 503, "body": {"inline_string": ""}}


def test_a_rewrite_may_be_a_regular_expression() -> None:
    said = "rewrite: {uriRegexRewrite: {match: '^/a/(.*)', rewrite: '/b/\\1'}, authority: ''}"

    assert route(f"{TO_CART}, {said}")["route"]["regex_rewrite"] == {
        "pattern": {"regex": "^/a/(.*)"},
        "substitution": "/b/\\1",
    }


@pytest.mark.parametrize(
    ("rule", "authority"),
    [
        ("headers: {request: {set: {Host: a}}}", "a"),
        ("headers: {request: {add: {':authority': b}}}", "b"),
        ("rewrite: {authority: c}", "c"),
        ("rewrite: {uri: /}", None),
    ],
)
def test_the_authority_is_rewritten_not_set(rule: str, authority: str | None) -> None:
    found = route(f"{TO_CART}, {rule}")

    assert found["route"].get("host_rewrite_literal") == authority
    assert "request_headers_to_add" not in found


def test_the_only_destinations_headers_are_the_routes_own() -> None:
    own = "headers: {request: {set: {b: '2', host: own}}, response: {remove: [c]}}"
    ours = "headers: {request: {set: {a: '1'}}}"
    found = route(f"route: [{{destination: {{host: cart}}, {own}}}], {ours}")

    assert [each["header"] for each in found["request_headers_to_add"]] == [
        {"key": "a", "value": "1"},
        {"key": "b", "value": "2"},
    ]
    assert found["response_headers_to_remove"] == ["c"]
    assert found["route"]["host_rewrite_literal"] == "own"


def test_one_of_several_destinations_keeps_its_headers_and_needs_a_weight() -> None:
    own = "headers: {request: {set: {b: '2', host: own}}}"
    weighted = f"{{destination: {{host: x.y}}, weight: 5, {own}}}"
    found = route(f"route: [{{destination: {{host: cart}}}}, {weighted}]")

    assert found["route"]["weighted_clusters"]["clusters"] == [
        {
            "name": "outbound|8000||x.y",
            "weight": 5,
            "host_rewrite_literal": "own",
            "request_headers_to_add": [
                {
                    "header": {"key": "b", "value": "2"},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
        }
    ]
    assert found["decorator"] == {"operation": "cart:8000/*"}


@pytest.mark.parametrize(
    ("said", "shares"),
    [
        ("mirror: {host: cart}", [{"numerator": 100}]),
        ("mirror: {host: cart}, mirrorPercent: 0", []),
        ("mirror: {host: cart}, mirrorPercent: 7", [{"numerator": 7}]),
        ("mirror: {host: cart}, mirrorPercentage: {value: 0}", []),
        ("mirror: {host: cart}, mirrorPercentage: {}", []),
        (
            "mirrors: [{destination: {host: cart}, percentage: {value: 0.29}}]",
            [{"numerator": 2900, "denominator": "MILLION"}],
        ),
        (
            "mirrors: [{destination: {host: cart}, percentage: {value: 0}}]",
            [],
        ),
    ],
)
def test_mirrors_get_their_share(said: str, shares: list[dict[str, Any]]) -> None:
    found = route(f"{TO_CART}, {said}")["route"].get("request_mirror_policies", [])

    assert [each["runtime_fraction"]["default_value"] for each in found] == shares
    assert all(each["cluster"] == "outbound|8080||cart.shop.svc.cluster.local" for each in found)


def test_faults_and_sharing_are_told_to_their_filters() -> None:
    fault = "fault: {abort: {grpcStatus: UNAVAILABLE}, delay: {fixedDelay: 5ms, percent: 3}}"
    cors = (
        "corsPolicy: {allowOrigin: [a], allowCredentials: false, exposeHeaders: [x, y],"
        " unmatchedPreflights: IGNORE}"
    )
    found = route(f"{TO_CART}, {fault}, {cors}")["typed_per_filter_config"]

    assert found["envoy.filters.http.fault"] == {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"grpc_status": 14},
        "delay": {"fixed_delay": "0.005s", "percentage": {"numerator": 3}},
    }
    assert found["envoy.filters.http.cors"] == {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "filter_enabled": {"default_value": {"numerator": 100}},
        "forward_not_matching_preflights": False,
        "allow_origin_string_match": [{"exact": "a"}],
        "allow_credentials": False,
        "expose_headers": "x,y",
    }


@pytest.mark.parametrize(
    ("destination", "cluster"),
    [
        ("{host: cart}", "outbound|8080||cart.shop.svc.cluster.local"),
        ("{host: cart, port: {number: 1}}", "outbound|1||cart.shop.svc.cluster.local"),
        ("{host: cart, subset: s}", "outbound|8080|s|cart.shop.svc.cluster.local"),
        # A host nobody knows is taken to listen where the gateway does.
        ("{host: away.example}", "outbound|8000||away.example"),
    ],
)
def test_a_destination_is_a_cluster(destination: str, cluster: str) -> None:
    assert route(f"route: [{{destination: {destination}}}]")["route"]["cluster"] == cluster


def hashed(rule: str, policy: str) -> dict[str, Any]:
    found: dict[str, Any] = route(
        rule,
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        f"metadata: {{name: cart, namespace: shop}}\nspec: {{host: cart, {policy}}}",
    )["route"]
    return found


def by_header(header: str) -> str:
    return f"loadBalancer: {{consistentHash: {{httpHeaderName: {header}}}}}"


@pytest.mark.parametrize(
    ("destination", "header"),
    [
        ("{host: cart}", "host"),
        ("{host: cart, port: {number: 8080}}", "host-port"),
        ("{host: cart, subset: s}", "subset"),
        ("{host: cart, subset: s, port: {number: 8080}}", "subset-port"),
        ("{host: cart, subset: plain}", "host"),
    ],
)
def test_what_a_request_is_hashed_by_is_the_closest_word(destination: str, header: str) -> None:
    settings = "portLevelSettings: [{{port: {{number: 8080}}, {}}}]"
    found = hashed(
        f"route: [{{destination: {destination}}}]",
        f"trafficPolicy: {{{by_header('host')}, {settings.format(by_header('host-port'))}}},"
        f" subsets: [{{name: plain}}, {{name: s, trafficPolicy: {{{by_header('subset')},"
        f" {settings.format(by_header('subset-port'))}}}}}]",
    )

    assert found["hash_policy"] == [{"header": {"header_name": header}}]
    assert "retry_host_predicate" not in found["retry_policy"]


@pytest.mark.parametrize(
    ("said", "policies"),
    [
        ("useSourceIp: true", [{"connection_properties": {"source_ip": True}}]),
        ("httpQueryParameterName: q", [{"query_parameter": {"name": "q"}}]),
        (
            "httpCookie: {name: c, ttl: 0s, path: /p}",
            [{"cookie": {"name": "c", "ttl": "0s", "path": "/p"}}],
        ),
    ],
)
def test_requests_are_hashed_by_many_things(said: str, policies: list[dict[str, Any]]) -> None:
    policy = f"trafficPolicy: {{loadBalancer: {{consistentHash: {{{said}}}}}}}"

    assert hashed(TO_CART, policy)["hash_policy"] == policies


def test_rules_that_nothing_reaches_are_left_out_and_told() -> None:
    service = virtual_service(f"""
hosts: [cart]
gateways: [ingress, mesh]
http:
- {{match: [{{uri: {{regex: ".*"}}}}, {{uri: {{exact: /never}}}}], {TO_CART}}}
- {{name: never, {TO_CART}}}
""")
    found = gateway_routes(world(INGRESS, CART, service), GATEWAY)

    assert len(found[0]["virtual_hosts"][0]["routes"]) == 1
    for proxy in (GATEWAY, SIDECAR):
        (line,) = dropped(world(INGRESS, CART, service), proxy)
        assert line.startswith(
            "VirtualService shop/cart: spec.http[0].match[1]: no request is left"
        )


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("", "http[0]: must have one of"),
        ("{0}, redirect: {{uri: /}}", "http[0]: must have one of"),
        ("{0}, directResponse: {{status: 200}}", "http[0]: must have one of"),
        ("directResponse: {{}}", "directResponse.status: missing"),
        ("directResponse: {{status: 99}}", "directResponse.status"),
        (
            f"directResponse: {{{{status: 200, body: {{{{string: {'é' * (1 << 19)}e}}}}}}}}",
            "directResponse.body.string: is longer than 1048576 bytes",
        ),
        ("directResponse: {{status: 200, body: {{bytes: YQ==}}}}", "body.bytes: not translated"),
        ("redirect: {{redirectCode: 301}}", "redirect: must say uri"),
        ("redirect: {{uri: /, redirectCode: 303.0}}", "redirectCode"),
        ("redirect: {{uri: /, redirectCode: 304}}", "redirectCode"),
        ("redirect: {{uri: /, port: 1, derivePort: FROM_REQUEST_PORT}}", "may have one of"),
        ("redirect: {{uri: /, scheme: ftp}}", "redirect.scheme"),
        ("redirect: {{uri: /}}, fault: {{abort: {{httpStatus: 500}}}}", "fault: is not allowed"),
        ("redirect: {{uri: /}}, rewrite: {{uri: /}}", "rewrite: is not allowed"),
        ("delegate: {{name: x}}", "delegate: delegates are not translated"),
        ("{0}, foo: 1", "http[0].foo: is no field"),
        ("{0}, timeout: 5", "timeout: must be a duration"),
        ("{0}, timeout: 0s", "timeout: must be a duration of 0.001s or more"),
        ("{0}, retries: {{attempts: -1}}", "retries.attempts"),
        ("{0}, retries: {{attempts: 0, retryOn: reset}}", "retries: attempts"),
        ("{0}, retries: {{perTryTimeout: 1s}}", "retries: attempts"),
        ("{0}, retries: {{attempts: 1, retryOn: 'reset, 429'}}", "retryOn: ' 429'"),
        ("{0}, retries: {{attempts: 1, retryOn: '999'}}", "retryOn: '999'"),
        ("{0}, retries: {{attempts: 1, retryOn: 0}}", "retryOn: must be text"),
        ("{0}, retries: {{attempts: 1, backoff: x}}", "retries.backoff"),
        ("{0}, mirror: {{host: a}}, mirrors: [{{destination: {{host: a}}}}]", "mirrors: is not"),
        ("{0}, mirrors: [{{}}]", "mirrors[0].destination: missing"),
        ("{0}, mirrors: [{{destination: {{host: a}}, percentage: {{value: 101}}}}]", "percentage"),
        ("{0}, mirror: {{host: a}}, mirrorPercentage: {{value: .nan}}", "mirrorPercentage.value"),
        ("{0}, fault: {{}}", "fault: must say"),
        ("{0}, fault: {{delay: {{percent: 1}}}}", "fault.delay.fixedDelay: missing"),
        ("{0}, fault: {{delay: {{exponentialDelay: 1s}}}}", "fault.delay.exponentialDelay"),
        ("{0}, fault: {{abort: {{}}}}", "fault.abort: must say"),
        ("{0}, fault: {{abort: {{grpcStatus: NO}}}}", "fault.abort.grpcStatus"),
        ("{0}, corsPolicy: {{maxAge: 1500ms}}", "corsPolicy.maxAge: must be whole"),
        ("{0}, corsPolicy: {{allowOrigins: [{{exact: a, prefix: b}}]}}", "allowOrigins[0]: may"),
        ("{0}, rewrite: {{}}", "rewrite: must say"),
        ("{0}, rewrite: {{uri: /, uriRegexRewrite: {{match: a}}}}", "rewrite: may have one"),
        ("{0}, headers: {{request: {{set: {{':path': /}}}}}}", "set.:path: can't be changed"),
        ("{0}, headers: {{request: {{remove: [host]}}}}", "remove.host: can't be changed"),
        ("{0}, headers: {{response: {{set: {{host: a}}}}}}", "set.host: can't be changed"),
        ("{0}, headers: {{request: {{set: {{a: 1}}}}}}", "set.a: must be text"),
        ("{0}, headers: {{request: {{set: {{'': a}}}}}}", "must have a name"),
        ("{0}, rewrite: {{authority: a}}, headers: {{request: {{set: {{host: b}}}}}}", "authority"),
        ("{0}, match: [{{queryParams: {{a: null}}}}]", "queryParams.a: must be a mapping"),
        ("{0}, match: [{{headers: {{a: null}}}}]", "match[0].headers.a: must be a mapping"),
        ("{0}, match: [{{headers: {{a: {{prefix: ''}}}}}}]", "headers.a.prefix: must not"),
        ("{0}, match: [{{uri: {{regex: ''}}}}]", "uri.regex: must not"),
        ("{0}, match: [{{uri: {{regex: '*'}}}}]", "uri.regex: '*' is no"),
        ("{0}, match: [{{headers: {{a: {{regex: 'a(?!b)'}}}}}}]", "headers.a.regex: 'a(?!b)' is"),
        ("{0}, match: [{{uri: {{regex: '(a)\\1'}}}}]", "is no regular expression of RE2"),
        (f"{{0}}, match: [{{{{uri: {{{{regex: {'a' * 1025}}}}}}}}}]", "longer than 1024"),
        ('{0}, match: [{{headers: {{"a\\0": {{}}}}}}]', "match[0].headers: must not have line"),
        ('{0}, rewrite: {{authority: "a\\n"}}', "rewrite.authority: must not have line"),
        ('{0}, headers: {{request: {{set: {{a: "b\\r"}}}}}}', "set.a: must not have line"),
        ("{0}, rewrite: {{uriRegexRewrite: {{rewrite: a}}}}", "uriRegexRewrite.match: missing"),
        ("{0}, match: [{{uri: /a}}]", "match[0].uri: must be a mapping"),
        ("{0}, match: [{{headers: {{'@request.auth.claims.a': {{}}}}}}]", "JWT claims"),
        ("{0}, match: {{uri: {{}}}}", "match: must be a list"),
        ("{0}, match: [null]", "match[0]: must be a mapping"),
        ("{0}, match: [{{port: 65536}}]", "match[0].port"),
        ("route: [{{destination: {{}}}}]", "destination.host: missing"),
        ("route: [{{weight: 1}}]", "route[0].destination: missing"),
        ("route: [{{destination: {{host: a, port: {{}}}}}}]", "port.number: missing"),
        (
            "route: [{{destination: {{host: a}}}}, {{destination: {{host: b}}}}]",
            "none has a weight",
        ),
        ("route: [{{destination: {{host: a}}, weight: -1}}]", "route[0].weight"),
    ],
)
def test_what_istiod_refuses_or_is_not_translated_is_an_error(rule: str, path: str) -> None:
    with pytest.raises(MeshError, match=r"test.yaml:\d+: VirtualService shop/cart: spec") as caught:
        routes(rule.format(TO_CART))

    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (f"http: [{{{TO_CART}}}]", "spec.hosts: missing"),
        ("hosts: [a]", "spec.http: missing"),
        (f"hosts: [a b]\nhttp: [{{{TO_CART}}}]", "spec.hosts[0]: 'a b' is no domain"),
        (f"hosts: ['*']\nhttp: [{{{TO_CART}}}]", "spec.hosts: * is not allowed on the gateway"),
        (f"hosts: ['*.x.y', a.x.y]\nhttp: [{{{TO_CART}}}]", "spec.hosts: *.x.y and a.x.y overlap"),
        (f"hosts: [a]\ntcp: [{{}}]\nhttp: [{{{TO_CART}}}]", "spec.tcp: TLS and TCP"),
        (f"hosts: [a]\nbogus: 1\nhttp: [{{{TO_CART}}}]", "spec.bogus: is no field"),
    ],
)
def test_every_virtual_service_is_checked_even_where_it_is_not_used(spec: str, path: str) -> None:
    known = world(CART, virtual_service(spec, name="far", namespace="away"))

    for make in (gateway_routes, sidecar_routes):
        with pytest.raises(MeshError) as caught:
            make(known, SIDECAR)
        assert f"VirtualService away/far: {path}" in str(caught.value)
