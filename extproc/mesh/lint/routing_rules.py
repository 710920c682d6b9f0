"""Rules about where routes lead: tiers, hosts, subsets, ports."""

import re
from collections.abc import Iterator
from typing import Final

from extproc.exchange.names import TIER
from extproc.mesh.lint.finding import Hit, Rule, quoted
from extproc.mesh.lint.routes import Route, gateways_of, matches
from extproc.mesh.lint.scene import Reference, Scene, destination_label
from extproc.mesh.manifests import Manifest, mapping, sequence, texts
from extproc.mesh.virtual_services import MESH
from extproc.mesh.world import DOMAIN, qualified

_TRIAL: Final = re.compile(r"canary|shadow|mirror|preview|experiment", re.IGNORECASE)


def _by_service(scene: Scene) -> Iterator[tuple[Manifest, tuple[Route, ...]]]:
    """The VirtualServices that route by what the filter has decided, and their routes."""
    for manifest, routes in scene.virtual_services:
        if any(route.llm_headers for route in routes):
            yield manifest, routes


def _no_catch_all(scene: Scene) -> Iterator[Hit]:
    for manifest, routes in _by_service(scene):
        if not any(route.is_catch_all for route in routes):
            yield Hit(manifest, "spec.http", "every route asks for something")


def _never_reached(scene: Scene) -> Iterator[Hit]:
    for manifest, routes in scene.virtual_services:
        for first, route in enumerate(routes[:-1]):
            if route.takes_everything:
                what = f"behind {route.path}, which takes everything"
                yield Hit(manifest, routes[first + 1].path, what)
                break


def _tier_without_route(scene: Scene) -> Iterator[Hit]:
    if scene.settings is None:
        return
    for manifest, routes in _by_service(scene):
        if not any(True for route in routes for _ in route.tiers()):
            continue
        for name, tier in scene.settings.tiers.items():
            if not any(_leads(scene, route, name, tier.model) for route in routes):
                yield Hit(manifest, "spec.http", f"no route for the tier {name!r}")


def _leads(scene: Scene, route: Route, tier: str, model: str) -> bool:
    """Whether the route is meant for a tier: by its value, its name, or where it goes."""
    if any(_takes(kind, value, tier) for kind, value in route.tiers()):
        return True
    if not route.is_catch_all:
        return False
    served = [scene.served_by.get(destination_label(each)) for each in route.destinations]
    is_known = any(model in models for models in scene.served_by.values())
    return route.name == tier or not is_known or any(model in (found or ()) for found in served)


def _takes(kind: str, value: str, tier: str) -> bool:
    if kind == "regex":
        return matches(value, tier) is not False
    return {"exact": tier == value, "prefix": tier.startswith(value)}.get(kind, True)


def _route_without_tier(scene: Scene) -> Iterator[Hit]:
    if scene.settings is None:
        return
    for route in scene.routes:
        for kind, value in route.tiers():
            if kind == "exact" and value not in scene.settings.tiers:
                at = f"{route.path}.match"
                yield Hit(route.manifest, at, f"{TIER}: {quoted(value)} is no tier of the settings")


def _without_subset(scene: Scene) -> Iterator[Hit]:
    for route in scene.llm_routes:
        for to in route.destinations:
            if to.subset or not to.host:
                continue
            subsets = scene.subsets.get(to.host, {})
            trials = [
                name
                for name, labels in subsets.items()
                if _TRIAL.search(" ".join((name, *texts(labels).values())))
            ]
            if trials:
                yield Hit(route.manifest, to.path, f"no subset, beside {quoted(min(trials))}")


def _second_on_mesh(scene: Scene) -> Iterator[Hit]:
    seen: dict[str, list[Manifest]] = {}
    for manifest in scene.istio("VirtualService"):
        if MESH not in gateways_of(manifest):
            continue
        for at, each in enumerate(sequence(manifest.spec.get("hosts"))):
            host = qualified(str(each), manifest.namespace).lower()
            others = seen.setdefault(host, [])
            first = next((other for other in others if _meet(other, manifest)), None)
            if first is None:
                others.append(manifest)
            else:
                what = f"{host} is also that of {first.title}, which is first"
                yield Hit(manifest, f"spec.hosts[{at}]", what)


def _meet(one: Manifest, other: Manifest) -> bool:
    """Whether some namespace sees both, and with the same precedence.

    One that is exported to a namespace by name goes before one for everyone, and is so meant. Of
    one resource in two files, the later stands.
    """
    first, second = _audience(one), _audience(other)
    is_same = one.title == other.title
    return not is_same and bool(first & second) and ("*" in first) == ("*" in second)


def _audience(manifest: Manifest) -> frozenset[str]:
    said = [str(each) for each in sequence(manifest.spec.get("exportTo"))] or ["*"]
    return frozenset(manifest.namespace if each == "." else each for each in said) - {"~"}


def _unknown_host(scene: Scene) -> Iterator[Hit]:
    for place in scene.references:
        if scene.host(place.host) is None and _should_be_known(scene, place.host):
            yield Hit(place.manifest, place.path, f"nothing defines {quoted(place.host)}")


def _should_be_known(scene: Scene, host: str) -> bool:
    """Whether what would define a host is among the manifests, as far as that can be told."""
    if not host or host.startswith("*"):
        return False
    if not host.endswith(f".svc.{DOMAIN}"):
        return bool(scene.istio("ServiceEntry"))
    namespace = host.removesuffix(f".svc.{DOMAIN}").rpartition(".")[2]
    return namespace in scene.whole_namespaces


def _unknown_subset(scene: Scene) -> Iterator[Hit]:
    for place in scene.references:
        if place.subset and place.subset not in scene.subsets.get(place.host, {}):
            is_known = place.host in scene.subsets or scene.host(place.host) is not None
            if is_known or scene.subsets:
                what = f"no DestinationRule has the subset {place.subset!r} of {place.host}"
                if not _is_covered(scene, place):
                    yield Hit(place.manifest, place.path, what)


def _is_covered(scene: Scene, place: Reference) -> bool:
    """Whether a rule for a wildcard has the subset."""
    return any(
        host.startswith("*") and place.host.endswith(host[1:]) and place.subset in subsets
        for host, subsets in scene.subsets.items()
    )


def _unknown_port(scene: Scene) -> Iterator[Hit]:
    for place in scene.references:
        found = scene.host(place.host)
        if found is None or place.port is None or place.port in found.ports:
            continue
        known = ", ".join(map(str, sorted(found.ports))) or "none"
        yield Hit(place.manifest, place.path, f"{place.host} has no port {place.port}, but {known}")


def _override(scene: Scene) -> Iterator[Hit]:
    ours = {each.name for each in scene.deciders}
    chosen = {route.name for route in scene.routes if route.llm_headers and route.name}
    for patch in scene.patches:
        config = mapping(patch.match.get("routeConfiguration"))
        name = mapping(mapping(config.get("vhost")).get("route")).get("name")
        if patch.apply_to != "HTTP_ROUTE" or not isinstance(name, str) or name not in chosen:
            continue
        for key in mapping(patch.value.get("typed_per_filter_config")):
            if key in ours:
                at = f"{patch.path}.patch.value.typed_per_filter_config.{key}"
                yield Hit(patch.manifest, at, f"on {name!r}, which is chosen after the filter ran")


RULES: Final = (
    Rule(
        "no-catch-all",
        "A VirtualService that routes by the filter's headers, in which every route asks for"
        " something.",
        "a tier that is new in the settings, a request on which the filter failed open, a path that"
        " is no LLM call: all get 404",
        "end with a route without a match",
        _no_catch_all,
    ),
    Rule(
        "route-never-reached",
        "A route behind one that takes everything.",
        "routes are tried in their order: nothing ever comes so far",
        "put the route without a match at the end",
        _never_reached,
    ),
    Rule(
        "tier-without-route",
        "A tier of the settings that no route asks for, and that does not go to its model by the"
        " catch-all either.",
        "its calls go to the model of another tier, and are charged by the price of their own",
        f"add a route that asks for {TIER}: {{exact: TIER}}, or name the catch-all after the tier",
        _tier_without_route,
    ),
    Rule(
        "route-without-tier",
        "A route that asks for a tier that the settings don't have.",
        "nothing ever takes this route",
        "name the tier as the settings do, or take the route out",
        _route_without_tier,
    ),
    Rule(
        "subset-left-out",
        "A route without a subset to a host that has a canary or shadow subset.",
        "it goes to every Pod behind the host: users get the canary's and the shadow's answers",
        "name the subset, such as stable",
        _without_subset,
    ),
    Rule(
        "second-virtual-service",
        "Two VirtualServices for one host on the mesh.",
        "sidecars take the first, and drop the second without a word",
        "put all routes of the host into one VirtualService",
        _second_on_mesh,
    ),
    Rule(
        "unknown-host",
        "A host that neither a Service nor a ServiceEntry defines.",
        "the proxy has no such cluster: every request gets 503",
        "write the name in full, or add what defines it",
        _unknown_host,
    ),
    Rule(
        "unknown-subset",
        "A subset that no DestinationRule of its host defines.",
        "the proxy has no such cluster: every request gets 503",
        "add the subset to the DestinationRule, with the labels of its Pods",
        _unknown_subset,
    ),
    Rule(
        "unknown-port",
        "A port that the host does not have.",
        "the proxy has no such cluster: every request gets 503",
        "name a port of the Service, not of its Pods",
        _unknown_port,
    ),
    Rule(
        "override-after-routing",
        "Settings of the filter on a route that is chosen by what the filter decides.",
        "Envoy reads them once, from the route that matched before the filter ran: here they never"
        " apply",
        "put them on the virtual host, or on every route; the filter itself can answer with a"
        " mode_override",
        _override,
    ),
)
