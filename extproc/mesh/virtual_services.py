"""VirtualServices: read, checked whole, their names made full, and chosen for a proxy.

Facts from istiod's `pilot/pkg/model/virtualservice.go` and `push_context.go`.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final, NamedTuple

from extproc.mesh.manifests import Manifest
from extproc.mesh.route_fields import VIRTUAL_SERVICE, Fields
from extproc.mesh.text_fields import is_address, is_authority
from extproc.mesh.world import World, qualified

MESH: Final = "mesh"
"""The gateway that stands for every sidecar."""
_ANYONE: Final = "*"
_HOME: Final = "."
_NOBODY: Final = "~"


class VirtualService(NamedTuple):
    """One of them. Hosts, destinations and gateways have their full names."""

    manifest: Manifest
    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    """`mesh`, or `namespace/name`."""
    export_to: frozenset[str]
    http: tuple[Fields, ...]


def read_all(world: World) -> tuple[VirtualService, ...]:
    """Every VirtualService there is, oldest first.

    Raises:
        MeshError: istiod would refuse one, or a field is not translated.
    """
    return tuple(_read(manifest) for manifest in world.virtual_services)


def chosen(
    every: Sequence[VirtualService], gateway: str, namespace: str
) -> tuple[VirtualService, ...]:
    """Those bound to a gateway that a proxy of this namespace sees, in the order of precedence.

    What is exported to that namespace alone goes before what is exported to everyone.
    """
    ranks: tuple[list[VirtualService], ...] = ([], [], [])
    for each in every:
        rank = _rank(each, namespace)
        if gateway in each.gateways and rank is not None:
            ranks[rank].append(each)
    return tuple(each for rank in ranks for each in rank)


def is_wildcard(host: str) -> bool:
    """Whether a host stands for many."""
    return host.startswith("*")


def is_within(host: str, other: str) -> bool:
    """Whether `other`, which may be a wildcard, covers all of `host`."""
    if not is_wildcard(other):
        return host == other
    if is_wildcard(host):
        return len(host) >= len(other) and host[1:].endswith(other[1:])
    return host.endswith(other[1:])


def overlaps(host: str, other: str) -> bool:
    """Whether one covers the other."""
    return is_within(host, other) or is_within(other, host)


def _rank(each: VirtualService, namespace: str) -> int | None:
    home, to = each.manifest.namespace, each.export_to
    if not to or _ANYONE in to:
        return 2
    if _NOBODY in to:
        return None
    if home == namespace and to & {_HOME, home}:
        return 0
    return 1 if namespace in to else None


def _read(manifest: Manifest) -> VirtualService:
    said = VIRTUAL_SERVICE(manifest, "spec", manifest.spec)
    home = manifest.namespace
    if not said.get("hosts"):
        manifest.fail("spec.hosts", "missing; a delegate, which has none, is not translated")
    if not said.get("http"):
        manifest.fail("spec.http", "missing")
    hosts = tuple(dict.fromkeys(_full(host, home).lower() for host in said["hosts"]))
    gateways = tuple(dict.fromkeys(_gateway(each, home) for each in said.get("gateways") or [MESH]))
    for first, second in combinations(said["hosts"], 2):
        if overlaps(first, second):
            manifest.fail("spec.hosts", f"{first} and {second} overlap")
    if "*" in hosts and MESH in gateways:
        manifest.fail("spec.hosts", "* is not allowed on the gateway `mesh`")
    for at, route in enumerate(said["http"]):
        _check(manifest, f"spec.http[{at}]", route)
    http = tuple(_named(route, home) for route in said["http"])
    return VirtualService(manifest, hosts, gateways, frozenset(said.get("exportTo", ())), http)


def _full(host: str, home: str) -> str:
    return host if is_address(host) else qualified(host, home)


def _gateway(said: str, home: str) -> str:
    """`namespace/name`. Names with dots are of old: `name.namespace.svc.cluster.local`."""
    if said == MESH:
        return said
    namespace, slash, name = said.partition("/")
    if slash:
        return f"{home if namespace == _HOME else namespace}/{name}"
    if "." in said:
        name, namespace = said.split(".")[:2]
        return f"{namespace}/{name}"
    return f"{home}/{said}"


def _named(route: Fields, home: str) -> Fields:
    """The route with full names."""

    def full(destination: Mapping[str, Any]) -> dict[str, Any]:
        return {**destination, "host": _full(destination["host"], home)}

    found = dict(route)
    if "mirror" in found:
        found["mirror"] = full(found["mirror"])
    for key in ("route", "mirrors"):
        found[key] = [
            {**each, "destination": full(each["destination"])} for each in found.get(key, ())
        ]
    found["match"] = [
        {**match, "gateways": [_gateway(each, home) for each in match.get("gateways", ())]}
        for match in found.get("match", ())
    ]
    return found


def _check(manifest: Manifest, path: str, route: Fields) -> None:
    """Refuse what istiod's webhook refuses in fields that are fine one by one."""
    kinds = [key for key in ("redirect", "directResponse") if key in route]
    kinds += ["route"] if route.get("route") else []
    if len(kinds) != 1:
        manifest.fail(path, "must have one of route, redirect and directResponse")
    if kinds != ["route"]:
        for key in ("fault", "rewrite"):
            if key in route:
                manifest.fail(f"{path}.{key}", f"is not allowed beside {kinds[0]}")
    if "mirror" in route and route.get("mirrors"):
        manifest.fail(f"{path}.mirrors", "is not allowed beside mirror")
    _check_destinations(manifest, path, route)
    rewrite = route.get("rewrite")
    if rewrite is not None and not any(rewrite.values()):
        manifest.fail(f"{path}.rewrite", "must say uri, uriRegexRewrite or authority")
    redirect = route.get("redirect")
    if redirect is not None and not redirect.keys() - {"redirectCode"}:
        manifest.fail(f"{path}.redirect", "must say uri, authority, scheme or port")
    if "directResponse" in route and "status" not in route["directResponse"]:
        manifest.fail(f"{path}.directResponse.status", "missing")
    _check_fault(manifest, f"{path}.fault", route)
    if len(list(_authorities(route))) > 1:
        manifest.fail(path, "sets the authority more than once")


def _check_destinations(manifest: Manifest, path: str, route: Fields) -> None:
    for key in ("route", "mirrors"):
        for at, each in enumerate(route.get(key, ())):
            if "destination" not in each:
                manifest.fail(f"{path}.{key}[{at}].destination", "missing")
    weights = [each.get("weight", 0) for each in route.get("route", ())]
    if len(weights) > 1 and not sum(weights):
        manifest.fail(f"{path}.route", "has several destinations, and none has a weight")


def _check_fault(manifest: Manifest, path: str, route: Fields) -> None:
    fault = route.get("fault")
    if fault is None:
        return
    if not fault:
        manifest.fail(path, "must say delay or abort")
    if "delay" in fault and "fixedDelay" not in fault["delay"]:
        manifest.fail(f"{path}.delay.fixedDelay", "missing")
    if "abort" in fault and not fault["abort"].keys() & {"httpStatus", "grpcStatus"}:
        manifest.fail(f"{path}.abort", "must say httpStatus or grpcStatus")


def _authorities(route: Fields) -> Iterable[str]:
    if route.get("rewrite", {}).get("authority"):
        yield route["rewrite"]["authority"]
    request = route.get("headers", {}).get("request", {})
    for operation in ("set", "add"):
        yield from (header for header in request.get(operation, ()) if is_authority(header))
