"""What a request must be for a route to take it: Envoy's RouteMatch of Istio's HTTPMatchRequest.

Facts from istiod's `pilot/pkg/networking/core/route/route.go`.
"""

from collections.abc import Mapping
from typing import Any, Final

from extproc.mesh.route_fields import Fields

Config = dict[str, Any]

_PSEUDO_HEADERS: Final = {"method": ":method", "authority": ":authority", "scheme": ":scheme"}
_PATHS: Final = ("prefix", "path", "safe_regex")


def concerns(match: Fields | None, labels: Mapping[str, str], namespace: str, *, of: str) -> bool:
    """Whether a match is meant for a proxy with these labels behind the gateway `of`.

    Where a match names gateways, istiod does not look at its source's labels and namespace.
    """
    if match is None:
        return True
    if match["gateways"]:
        return of in match["gateways"]
    wanted: Mapping[str, str] = match.get("sourceLabels", {})
    is_source = all(labels.get(key) == value for key, value in wanted.items())
    return is_source and match.get("sourceNamespace", "") in {"", namespace}


def route_match(match: Fields | None) -> Config:
    """The RouteMatch; none is said where every request matches."""
    found: Config = {"prefix": "/"}
    if match is None:
        return found
    uri = match.get("uri", {})
    if "exact" in uri:
        found = {"path": uri["exact"]}
    elif "prefix" in uri:
        found = {"prefix": uri["prefix"]}
    elif "regex" in uri:
        found = {"safe_regex": {"regex": uri["regex"]}}
    found["case_sensitive"] = not match.get("ignoreUriCase", False)
    headers = [_header(name, said) for name, said in match.get("headers", {}).items()]
    headers += [_without(name, said) for name, said in match.get("withoutHeaders", {}).items()]
    headers.sort(key=lambda header: str(header["name"]))
    headers += [
        _header(name, match[field]) for field, name in _PSEUDO_HEADERS.items() if field in match
    ]
    if headers:
        found["headers"] = headers
    # istiod goes through a Go map here, whose order is chance: by name is one of its orders.
    queries = [_header(name, said) for name, said in sorted(match.get("queryParams", {}).items())]
    if queries:
        found["query_parameters"] = queries
    return found


def takes_everything(match: Config) -> bool:
    """Whether no request is left for the routes that follow."""
    every_path = match.get("prefix") == "/" or match.get("safe_regex") == {"regex": ".*"}
    return every_path and not match.get("headers") and not match.get("query_parameters")


def path_of(match: Config) -> str:
    """The path as the name of a trace's operation has it."""
    if "path" in match:
        return str(match["path"])
    if "safe_regex" in match:
        return str(match["safe_regex"]["regex"])
    return f"{match['prefix']}*"


def string_matcher(said: Fields) -> Config:
    """Envoy's StringMatcher."""
    if "exact" in said:
        return {"exact": said["exact"]}
    if "prefix" in said:
        return {"prefix": said["prefix"]}
    return {"safe_regex": {"regex": said["regex"]}}


def _header(name: str, said: Fields) -> Config:
    if not said:
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": string_matcher(said)}


def _without(name: str, said: Fields) -> Config:
    found = {**_header(name, said), "invert_match": True}
    # Envoy can't have it beside present_match.
    return {**found, "treat_missing_header_as_empty": True} if said else found
