"""What a patch of an EnvoyFilter must match, read strictly.

Facts from istiod's `pkg/config/validation/envoyfilter`, whose refusals are errors here too.
"""

from collections.abc import Mapping
from typing import Any, Final

from extproc.mesh.manifests import Manifest, Tree, mapping
from extproc.mesh.text_fields import regex

CONTEXTS: Final = frozenset(("ANY", "GATEWAY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND"))
ACTIONS: Final = frozenset(("ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"))
NUMBER_MAX: Final = (1 << 32) - 1
VERSION_CHARS_MAX: Final = 1024
"""A longer regular expression of `proxyVersion` never matches, istiod says."""

MANAGER: Final = "envoy.filters.network.http_connection_manager"
MANAGERS: Final = frozenset((MANAGER, "envoy.http_connection_manager"))
"""The second is an old name, which istiod's webhook still takes and no filter has."""

LISTENER_KINDS: Final = frozenset(
    ("LISTENER", "LISTENER_FILTER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER")
)
ROUTE_KINDS: Final = frozenset(("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"))
_OBJECTS: Final = {
    "listener": LISTENER_KINDS,
    "routeConfiguration": ROUTE_KINDS,
    "cluster": frozenset(("CLUSTER",)),
}

_NAME: Final = {"name": str}
_FIELDS: Final[Mapping[str, Mapping[str, type]]] = {
    "match": {"context": str, "proxy": dict} | dict.fromkeys(_OBJECTS, dict),
    "proxy": {"proxyVersion": str},
    "listener": _NAME | {"portNumber": int, "filterChain": dict, "listenerFilter": str},
    "filterChain": _NAME
    | {"sni": str, "transportProtocol": str, "applicationProtocols": str}
    | {"destinationPort": int, "filter": dict},
    "filter": _NAME | {"subFilter": dict},
    "subFilter": _NAME,
    "routeConfiguration": _NAME
    | {"portNumber": int, "portName": str, "gateway": str}
    # What follows is a message.
    | {"vhost": dict},
    "vhost": _NAME | {"domainName": str, "route": dict},
    "route": _NAME | {"action": str},
    "cluster": _NAME | {"portNumber": int, "service": str, "subset": str},
}
"""The fields of each message in a match, and what they are in YAML."""
_KINDS: Final = {str: "text", int: "a number", dict: "a mapping"}


def read_match(manifest: Manifest, path: str, apply_to: str, said: Tree) -> dict[str, Any]:
    """The match at `path`, without what has its default: istiod takes that for nothing.

    Raises:
        MeshError: istiod's webhook refuses it, or it can't be translated.
    """
    found = _message(manifest, path, "match", said or {})
    if found.get("context", "ANY") not in CONTEXTS:
        manifest.fail(f"{path}.context", f"{found['context']} is not translated")
    for key, kinds in _OBJECTS.items():
        if key in found and apply_to not in kinds:
            manifest.fail(f"{path}.{key}", f"says nothing of a {apply_to}")
    route = mapping(mapping(mapping(found.get("routeConfiguration")).get("vhost")).get("route"))
    if route.get("action", "ANY") not in ACTIONS:
        where = f"{path}.routeConfiguration.vhost.route.action"
        manifest.fail(where, f"{route['action']} is none of {', '.join(sorted(ACTIONS))}")
    _check_filter(manifest, f"{path}.listener.filterChain.filter", apply_to, found)
    version = mapping(found.get("proxy")).get("proxyVersion", "")
    if version and len(version) <= VERSION_CHARS_MAX:
        regex(manifest, f"{path}.proxy.proxyVersion", version)
    return found


def _message(manifest: Manifest, path: str, kind: str, said: Tree) -> dict[str, Any]:
    if not isinstance(said, Mapping):
        manifest.fail(path, "must be a mapping")
    found: dict[str, Any] = {}
    for key, value in said.items():
        where = f"{path}.{key}"
        wanted = _FIELDS[kind].get(key)
        if wanted is None:
            manifest.fail(where, f"{key} is not translated")
        if value is None:
            continue
        if not isinstance(value, wanted) or isinstance(value, bool):
            manifest.fail(where, f"must be {_KINDS[wanted]}")
        if isinstance(value, int) and not 0 <= value <= NUMBER_MAX:
            manifest.fail(where, f"must be between 0 and {NUMBER_MAX}")
        if wanted is dict:
            found[key] = _message(manifest, where, key, value)
        elif value:
            found[key] = value
    return found


def _check_filter(manifest: Manifest, path: str, apply_to: str, found: Mapping[str, Any]) -> None:
    chain = mapping(mapping(found.get("listener")).get("filterChain"))
    if "filter" not in chain or apply_to == "LISTENER_FILTER":
        return
    name, sub_filter = chain["filter"].get("name"), chain["filter"].get("subFilter")
    if name is None:
        manifest.fail(f"{path}.name", "missing")
    if sub_filter is None:
        return
    if apply_to != "HTTP_FILTER":
        manifest.fail(f"{path}.subFilter", f"says nothing of a {apply_to}")
    if name not in MANAGERS:
        manifest.fail(f"{path}.name", f"must be {MANAGER}, for a subFilter is given")
    if "name" not in sub_filter:
        manifest.fail(f"{path}.subFilter.name", "missing")
