"""By what a request is hashed to a host: Envoy's HashPolicy of a DestinationRule's consistentHash.

Facts from istiod's `pilot/pkg/networking/core/route/route.go`.
"""

from collections.abc import Mapping
from typing import Any

from extproc.mesh.destination_rules import Policy, Rule
from extproc.mesh.route_fields import Fields

Config = dict[str, Any]
ConsistentHash = Mapping[str, Any]


def of_destination(rule: Rule | None, destination: Fields) -> ConsistentHash | None:
    """What a route's destination is hashed by.

    The subset's word for the port counts most, then the subset's, the host's for the port, and the
    host's. What is said for a port counts only where the destination names that port.
    """
    if rule is None:
        return None
    port: int | None = destination.get("port", {}).get("number")
    subset = next(
        (each for each in rule.subsets if each.name == destination.get("subset", "")), None
    )
    own = subset.policy if subset else None
    for found in (_for_port(own, port), _of(own), _for_port(rule.policy, port)):
        if found is not None:
            return found
    return _of(rule.policy)


def of_port(rule: Rule | None, port: int) -> ConsistentHash | None:
    """What a host without routes of its own is hashed by."""
    if rule is None:
        return None
    found = _for_port(rule.policy, port)
    return _of(rule.policy) if found is None else found


def hash_policies(said: ConsistentHash | None) -> list[Config]:
    """The HashPolicy, in a list of one; an empty list where nothing is hashed."""
    if said is None:
        return []
    if "httpHeaderName" in said:
        return [{"header": {"header_name": said["httpHeaderName"]}}]
    if "httpCookie" in said:
        cookie = said["httpCookie"]
        kept = ("name", "ttl", "path", "attributes")
        return [{"cookie": {key: cookie[key] for key in kept if cookie.get(key)}}]
    if "useSourceIp" in said:
        return [{"connection_properties": {"source_ip": True} if said["useSourceIp"] else {}}]
    if "httpQueryParameterName" in said:
        return [{"query_parameter": {"name": said["httpQueryParameterName"]}}]
    return []


def _of(policy: Policy | Fields | None) -> ConsistentHash | None:
    found: ConsistentHash | None = (policy or {}).get("loadBalancer", {}).get("consistentHash")
    return found


def _for_port(policy: Policy | None, port: int | None) -> ConsistentHash | None:
    settings = (policy or {}).get("portLevelSettings", ())
    said = (each for each in settings if each.get("port", {}).get("number") == port)
    return _of(next(said, None)) if port is not None else None
