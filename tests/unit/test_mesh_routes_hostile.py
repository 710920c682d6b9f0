"""extproc/mesh: whatever stands in a VirtualService, it is translated or an error, not a crash."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml

from extproc.mesh.manifests import MeshError
from extproc.mesh.routes import gateway_routes, sidecar_routes
from tests.mesh_worlds import CART, GATEWAY, INGRESS, SIDECAR, virtual_service, world

EVERYTHING = """
hosts: [cart, a.example, "*.b.example"]
gateways: [mesh, ingress]
exportTo: ["*"]
http:
- name: all
  match:
  - name: first
    uri: {prefix: /a}
    headers: {x: {regex: "a+"}, y: {}}
    withoutHeaders: {z: {}, q: {exact: b}}
    queryParams: {p: {prefix: x}, r: {}}
    method: {exact: GET}
    scheme: {exact: https}
    authority: {prefix: a}
    sourceLabels: {}
    statPrefix: s
    ignoreUriCase: true
  - {uri: {regex: "/b.*"}, gateways: [mesh], port: 8080}
  route:
  - destination: {host: cart, subset: s, port: {number: 8080}}
    weight: 3
    headers: {request: {set: {host: q, a: b}, add: {c: d}, remove: [e]}, response: {add: {f: g}}}
  - {destination: {host: pay}, weight: 1}
  timeout: 3s
  retries:
    attempts: 3
    perTryTimeout: 1s
    retryOn: 5xx,429
    backoff: 25ms
    retryRemoteLocalities: true
    retryIgnorePreviousHosts: true
  mirrors: [{destination: {host: cart}, percentage: {value: 1.5}}]
  rewrite: {uriRegexRewrite: {match: "^/a", rewrite: "/b"}, authority: c}
  fault: {delay: {fixedDelay: 1s, percent: 1}, abort: {grpcStatus: OK, percentage: {value: 0.5}}}
  corsPolicy: {allowOrigins: [{regex: "x.*"}], allowMethods: [GET], maxAge: 1h}
- {match: [{uri: {exact: /r}}], redirect: {uri: /x, authority: y, scheme: https, port: 1}}
- {match: [{uri: {exact: /d}}], directResponse: {status: 200, body: {string: hi}}}
- {mirror: {host: pay}, mirrorPercent: 3, route: [{destination: {host: pay}}]}
"""
JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    float("nan"),
    "",
    "\0",
    "*",
    [],
    [None],
    {},
    {"a": None},
    {1: [{}]},
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def test_junk_in_any_place_is_taken_or_refused() -> None:
    whole = yaml.safe_load(EVERYTHING)
    known = world(INGRESS, CART, virtual_service(EVERYTHING))
    (manifest,) = known.virtual_services
    refused: list[str] = []
    for *path, last in places(whole):
        for junk in JUNK:
            spec = deepcopy(whole)
            parent = spec
            for key in path:
                parent = parent[key]
            parent[last] = junk
            other = manifest._replace(document={**manifest.document, "spec": spec})
            for make, proxy in ((gateway_routes, GATEWAY), (sidecar_routes, SIDECAR)):
                try:
                    make(known._replace(virtual_services=(other,)), proxy)
                except MeshError as error:
                    refused.append(str(error))

    assert refused
    assert all(text.startswith("test.yaml:") and "\n" not in text for text in refused)


def test_a_field_nobody_knows_is_refused_in_every_mapping_but_those_of_names() -> None:
    whole = yaml.safe_load(EVERYTHING)
    known = world(INGRESS, CART, virtual_service(EVERYTHING))
    (manifest,) = known.virtual_services
    names = {"withoutHeaders", "queryParams", "sourceLabels", "set", "add"}
    for path in [(), *places(whole)]:
        spec = deepcopy(whole)
        found = spec
        for key in path:
            found = found[key]
        is_match = "match" in path and path[-1] == "headers"
        if not isinstance(found, dict) or is_match or names & set(path[-1:]):
            continue
        found["unheardOf"] = 1
        other = manifest._replace(document={**manifest.document, "spec": spec})
        with pytest.raises(MeshError, match="unheardOf: is no field that is translated"):
            gateway_routes(known._replace(virtual_services=(other,)), GATEWAY)
