"""What a route does to headers: Envoy's HeaderValueOptions of Istio's HeaderOperations.

Facts from istiod's `pilot/pkg/networking/core/route/route.go`.
"""

from typing import Any

from extproc.mesh.route_fields import Fields
from extproc.mesh.text_fields import is_authority

Config = dict[str, Any]


def operations(said: Fields) -> Config:
    """The fields `request_headers_to_add` and the like, each a list; the authority is not there."""
    found: Config = {}
    for direction in ("request", "response"):
        ours = said.get(direction, {})
        added = _options(ours.get("set", {}), append_action="OVERWRITE_IF_EXISTS_OR_ADD")
        added += _options(ours.get("add", {}))
        if added:
            found[f"{direction}_headers_to_add"] = added
        if ours.get("remove"):
            found[f"{direction}_headers_to_remove"] = list(ours["remove"])
    return found


def authority(said: Fields) -> str:
    """What the request's authority becomes; empty where it stays. `set` goes before `add`."""
    request = said.get("request", {})
    for operation in ("set", "add"):
        for header, value in request.get(operation, {}).items():
            if is_authority(header) and value:
                return str(value)
    return ""


def _options(headers: Fields, **action: str) -> list[Config]:
    """Sorted by name. Appending is the default, so it is not said."""
    return [
        {"header": {"key": key, "value": value} if value else {"key": key}, **action}
        for key, value in sorted(headers.items())
        if not is_authority(key)
    ]
