"""What becomes of a request that a route takes: sent on, sent away, or answered.

Facts from istiod's `pilot/pkg/networking/core/route/route.go`.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from extproc.mesh.destination_rules import DestinationRules, Rule
from extproc.mesh.hash_policies import hash_policies, of_destination
from extproc.mesh.header_operations import authority, operations
from extproc.mesh.retries import retry_policy
from extproc.mesh.route_fields import REDIRECT_CODES, Fields
from extproc.mesh.route_filters import fraction, hundredths
from extproc.mesh.world import Host, Proxy

Config = dict[str, Any]

NO_TIMEOUT: Final = "0s"


class Place(NamedTuple):
    """Where routes are made for: a proxy, the gateway it stands at, and the port of a listener."""

    proxy: Proxy
    gateway: str
    port: int
    is_tls: bool
    hosts: Mapping[str, Host]
    """Those the proxy knows, by name; to a sidecar's listener, those that have its port."""
    rules: DestinationRules

    def cluster(self, destination: Fields) -> tuple[str, str]:
        """The cluster of a destination, and its `host:port`.

        A destination without a port means the only one its host has, else the listener's own,
        though the host may have none of that number: then the cluster isn't there.
        """
        hostname = destination["host"]
        host = self.hosts.get(hostname)
        port = destination.get("port", {}).get("number")
        if port is None:
            known = host.ports if host else ()
            port = known[0].number if len(known) == 1 else self.port
        name = f"outbound|{port}|{destination.get('subset', '')}|{hostname}"
        return name, f"{hostname}:{port}"

    def rule(self, hostname: str) -> Rule | None:
        """The DestinationRule for a host."""
        host = self.hosts.get(hostname)
        return self.rules.find(host, self.proxy) if host else None


def redirected(said: Fields, place: Place) -> Config:
    """Envoy's RedirectAction."""
    # A path that is empty is said all the same: it is one of several in protobuf's eyes.
    found: Config = {"path_redirect": said.get("uri", "")}
    if said.get("authority"):
        found["host_redirect"] = said["authority"]
    scheme = said.get("scheme")
    if scheme:
        found["scheme_redirect"] = scheme
    port = said.get("port")
    if said.get("derivePort") == "FROM_REQUEST_PORT":
        port = place.port
    if port and (scheme or ("https" if place.is_tls else "http"), port) not in _DEFAULT_PORTS:
        found["port_redirect"] = port
    code = REDIRECT_CODES[said.get("redirectCode", 0)]
    return found if code == REDIRECT_CODES[0] else {**found, "response_code": code}


_DEFAULT_PORTS: Final = frozenset((("http", 80), ("https", 443)))


def answered(said: Fields) -> Config:
    """Envoy's DirectResponseAction."""
    found: Config = {"status": said["status"]}
    if "string" in said.get("body", {}):
        found["body"] = {"inline_string": said["body"]["string"]}
    return found


def sent(route: Fields, place: Place) -> tuple[Config, Config, str]:
    """Envoy's RouteAction; header operations of the only destination; `host:port` of that, if so.

    The last is empty where there are several: which one, Envoy draws.
    """
    said = authority(route.get("headers", {}))
    action: Config = {
        **timeouts(route.get("timeout", NO_TIMEOUT)),
        **_rewritten(route.get("rewrite", {})),
    }
    said = route.get("rewrite", {}).get("authority") or said
    mirrors = _mirrors(route, place)
    if mirrors:
        action["request_mirror_policies"] = mirrors
    destinations = [
        each for each in route["route"] if each.get("weight") or len(route["route"]) == 1
    ]
    hashes = [
        of_destination(place.rule(each["destination"]["host"]), each["destination"])
        for each in destinations
    ]
    policies = [policy for each in hashes for policy in hash_policies(each)]
    if policies:
        action["hash_policy"] = policies
    headers: Config = {}
    at = ""
    is_single = len(route["route"]) == 1
    if is_single:
        action["cluster"], at = place.cluster(destinations[0]["destination"])
        own = destinations[0].get("headers", {})
        headers = operations(own)
        said = said or authority(own)
    else:
        action["weighted_clusters"] = {
            "clusters": [_weighted(each, place) for each in destinations]
        }
    if said:
        action["host_rewrite_literal"] = said
    retries = retry_policy(route.get("retries"), is_hashed=is_single and hashes[0] is not None)
    if retries:
        action["retry_policy"] = retries
    return action, headers, at


def timeouts(timeout: str) -> Config:
    """Both timeouts of a RouteAction; none, unless said: Envoy's own default is 15 seconds."""
    return {"timeout": timeout, "max_grpc_timeout": timeout}


def _rewritten(said: Fields) -> Config:
    if "uriRegexRewrite" in said:
        regex = said["uriRegexRewrite"]
        found: Config = {"pattern": {"regex": regex.get("match", "")}}
        if regex.get("rewrite"):
            found["substitution"] = regex["rewrite"]
        return {"regex_rewrite": found}
    return {"prefix_rewrite": said["uri"]} if said.get("uri") else {}


def _weighted(said: Fields, place: Place) -> Config:
    own = said.get("headers", {})
    name, _at = place.cluster(said["destination"])
    found = {"name": name, "weight": said["weight"], **operations(own)}
    return {**found, "host_rewrite_literal": authority(own)} if authority(own) else found


def _mirrors(route: Fields, place: Place) -> list[Config]:
    """Those that get anything: without a percentage all, at 0 % nothing, so they are left out."""
    said = [(each["destination"], _share(each.get("percentage"))) for each in route["mirrors"]]
    if "mirror" in route:
        share = _share(route.get("mirrorPercentage"))
        if "mirrorPercentage" not in route:
            share = hundredths(route.get("mirrorPercent", 100))
        said.append((route["mirror"], share))
    return [
        {
            "cluster": place.cluster(destination)[0],
            "runtime_fraction": {"default_value": share},
            "trace_sampled": False,
            "disable_shadow_host_suffix_append": True,
        }
        for destination, share in said
        if share
    ]


def _share(percentage: Fields | None) -> Config:
    if percentage is None:
        return hundredths(100)
    return fraction(percentage) if percentage.get("value") else {}
