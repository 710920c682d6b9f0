"""A VirtualService's routes, in order, for one listener of one proxy.

Facts from istiod's `pilot/pkg/networking/core/route/route.go`.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

from extproc.mesh.hash_policies import hash_policies, of_port
from extproc.mesh.header_operations import operations
from extproc.mesh.matching import concerns, path_of, route_match, takes_everything
from extproc.mesh.retries import retry_policy
from extproc.mesh.route_actions import NO_TIMEOUT, Place, answered, redirected, sent, timeouts
from extproc.mesh.route_fields import Fields
from extproc.mesh.route_filters import filter_configs
from extproc.mesh.virtual_services import VirtualService
from extproc.mesh.world import Host

Config = dict[str, Any]

BODY_BYTES_MAX: Final = 1 << 20
"""Of a direct answer; Envoy's own default is 4096."""


def routes(service: VirtualService, place: Place) -> tuple[list[Config], str]:
    """The routes, and a line on what is left out because no request reaches it; empty if nothing.

    Matches of other ports, gateways or sources leave no route. After a rule without a match, or a
    match that takes everything, the rest is left out: nothing would reach it.
    """
    found: list[Config] = []
    is_full = False
    for path, rule, match in _matches(service):
        if is_full:
            return found, f"{service.manifest.title}: {path}: no request is left for it"
        if _concerns(match, place):
            found.append(_route(service, rule, match, place))
            is_full = match is None or takes_everything(found[-1]["match"])
    return found, ""


def default_route(host: Host, port: int, place: Place) -> Config:
    """The route to a host that no VirtualService speaks for."""
    action: Config = {
        "cluster": f"outbound|{port}||{host.hostname}",
        **timeouts(NO_TIMEOUT),
        "retry_policy": retry_policy(None, is_hashed=False),
    }
    policies = hash_policies(of_port(place.rule(host.hostname), port))
    if policies:
        action["hash_policy"] = policies
    return {
        "name": "default",
        "match": route_match(None),
        "route": action,
        "decorator": {"operation": f"{host.hostname}:{port}/*"},
    }


def configuration(name: str, virtual_hosts: list[Config]) -> Config:
    """The RouteConfiguration of these virtual hosts, each with routes of its own to patch."""
    return {
        "name": name,
        "virtual_hosts": [
            {key: _apart(value) if key == "routes" else value for key, value in each.items()}
            for each in virtual_hosts
        ],
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": BODY_BYTES_MAX,
    }


def _apart(found: list[Config]) -> list[Config]:
    return [deepcopy(route) for route in found]


def _matches(service: VirtualService) -> Iterator[tuple[str, Fields, Fields | None]]:
    for at, rule in enumerate(service.http):
        path = f"spec.http[{at}]"
        if not rule["match"]:
            yield path, rule, None
        for number, match in enumerate(rule["match"]):
            yield f"{path}.match[{number}]", rule, match


def _concerns(match: Fields | None, place: Place) -> bool:
    if match is not None and match.get("port", 0) not in {0, place.port}:
        return False
    proxy = place.proxy
    return concerns(match, proxy.labels, proxy.namespace, of=place.gateway)


def _route(service: VirtualService, rule: Fields, match: Fields | None, place: Place) -> Config:
    manifest = service.manifest
    name = rule.get("name", "")
    own_name = match.get("name") if match else None
    found: Config = {
        "match": route_match(match),
        "metadata": {
            "filter_metadata": {
                "istio": {
                    "config": f"/apis/networking.istio.io/v1/namespaces/{manifest.namespace}"
                    f"/virtual-service/{manifest.name}"
                }
            }
        },
        **operations(rule.get("headers", {})),
    }
    if name or own_name:
        found["name"] = f"{name}.{own_name}" if own_name else name
    if match and match.get("statPrefix"):
        found["stat_prefix"] = match["statPrefix"]
    at = ""
    if "redirect" in rule:
        found["redirect"] = redirected(rule["redirect"], place)
    elif "directResponse" in rule:
        found["direct_response"] = answered(rule["directResponse"])
    else:
        found["route"], own, at = sent(rule, place)
        for field, values in own.items():
            found[field] = found.get(field, []) + values
    operation = f"{at or f'{manifest.name}:{place.port}'}{path_of(found['match'])}"
    found["decorator"] = {"operation": operation}
    filters = filter_configs(rule)
    return {**found, "typed_per_filter_config": filters} if filters else found
