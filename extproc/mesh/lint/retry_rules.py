"""Rules about timeouts, retries and streams."""

from collections.abc import Iterator
from typing import Final

from extproc.exchange.names import STREAM, TIER
from extproc.mesh.lint.finding import Hit, Rule, quoted
from extproc.mesh.lint.routes import Route, milliseconds, word
from extproc.mesh.lint.scene import Scene
from extproc.mesh.manifests import mapping
from extproc.mesh.route_fields import RETRY_ON, status_code

TOKENS_PER_SECOND_AT_BEST: Final = 100
"""No model that is routed by tiers is expected to answer faster."""
_QUOTA: Final = "429"


def _retry_on(route: Route) -> str:
    said = (route.retries or {}).get("retryOn")
    return said if isinstance(said, str) else ""


def _refused(scene: Scene) -> Iterator[Hit]:
    for route in scene.routes:
        said = _retry_on(route)
        for token in said.split(",") if said else ():
            if token not in RETRY_ON and status_code(token) is None:
                what = "has a space beside" if token != token.strip() else "does not know"
                yield Hit(
                    route.manifest, f"{route.path}.retries.retryOn", f"{what} {quoted(token)}"
                )


def _means_fallback(route: Route, names: frozenset[str]) -> bool:
    """Whether what fails here is to be served elsewhere."""
    if (route.retries or {}).get("retryRemoteLocalities") is True or route.name in names:
        return True
    return "retriable-4xx" in _retry_on(route).split(",") and any(True for _ in route.tiers())


def _patched_to_fall_back(scene: Scene) -> Iterator[str]:
    """The names of routes for which a patch has other upstreams tried."""
    for patch in scene.patches:
        config = mapping(patch.match.get("routeConfiguration"))
        name = word(mapping(mapping(config.get("vhost")).get("route")).get("name"))
        policy = mapping(mapping(patch.value.get("route")).get("retry_policy"))
        moves_on = policy.get("retry_priority") or policy.get("refresh_cluster_on_retry")
        if patch.apply_to == "HTTP_ROUTE" and name and moves_on:
            yield name


def _without_quota(scene: Scene) -> Iterator[Hit]:
    names = frozenset(_patched_to_fall_back(scene))
    for route in scene.llm_routes:
        said = _retry_on(route)
        tokens = [token.strip() for token in said.split(",")]
        if said and _QUOTA not in tokens and _means_fallback(route, names):
            yield Hit(route.manifest, f"{route.path}.retries.retryOn", quoted(said))


def _repeated_streams(scene: Scene) -> Iterator[Hit]:
    for route in scene.llm_routes:
        if not route.is_for_streams or not route.sends:
            continue
        if route.retries is None:
            yield Hit(route.manifest, f"{route.path}.retries", "left out, which means two retries")
        elif route.retries.get("attempts", 2) not in (0, 1):
            attempts = quoted(route.retries.get("attempts", 2))
            yield Hit(route.manifest, f"{route.path}.retries.attempts", f"{attempts} on a stream")


def _one_attempt(scene: Scene) -> Iterator[Hit]:
    for route in scene.llm_routes:
        retries = route.retries or {}
        if retries.get("attempts") != 1 or isinstance(retries.get("attempts"), bool):
            continue
        says_no_more = not retries.keys() - {"attempts"}
        if route.is_for_streams or says_no_more:
            yield Hit(route.manifest, f"{route.path}.retries.attempts", "1")


def _endless(scene: Scene) -> Iterator[Hit]:
    for route in scene.llm_routes:
        if route.sends and milliseconds(route.said.get("timeout", "0s")) == 0:
            said = "0s" if "timeout" in route.said else "left out"
            yield Hit(route.manifest, f"{route.path}.timeout", said)


def _too_short(scene: Scene) -> Iterator[Hit]:
    longest: dict[tuple[str, frozenset[str]], float] = {}
    for route in scene.llm_routes:
        for tier in _tiers(route):
            key = tier, _others(route)
            longest[key] = max(longest.get(key, 0), _timeout(route))
    for route in scene.llm_routes:
        timeout = _timeout(route)
        if not timeout:
            continue
        at = f"{route.path}.timeout"
        a_try = milliseconds((route.retries or {}).get("perTryTimeout")) or 0
        if a_try > timeout:
            yield Hit(
                route.manifest, at, f"{_shown(timeout)}, but one try may take {_shown(a_try)}"
            )
        for tier in _tiers(route):
            needed = _needed(scene, tier)
            if timeout < needed:
                what = f"{_shown(timeout)}; the longest answer of {tier!r} takes {_shown(needed)}"
                yield Hit(route.manifest, at, what)
            elif timeout < longest[tier, _others(route)]:
                other = _shown(longest[tier, _others(route)])
                yield Hit(
                    route.manifest, at, f"{_shown(timeout)}; {tier!r} has {other} on another route"
                )


def _tiers(route: Route) -> list[str]:
    return [value for kind, value in route.tiers() if kind == "exact"]


def _others(route: Route) -> frozenset[str]:
    return frozenset(name for name, _, _ in route.headers if name != TIER)


def _timeout(route: Route) -> float:
    return milliseconds(route.said.get("timeout")) or 0


def _needed(scene: Scene, tier: str) -> float:
    """Milliseconds that the longest answer of a tier takes where all goes well."""
    known = scene.settings.tiers.get(tier) if scene.settings else None
    model = scene.settings.models.get(known.model) if scene.settings and known else None
    tokens = model.output_tokens_max if model else 0
    return (tokens or 0) / TOKENS_PER_SECOND_AT_BEST * 1000


def _shown(milliseconds: float) -> str:
    return f"{milliseconds / 1000:g}s"


def _accept_alone(scene: Scene) -> Iterator[Hit]:
    told = {id(route.manifest) for route in scene.llm_routes if route.asks_for_stream}
    for route in scene.llm_routes:
        if route.accepts_stream and id(route.manifest) not in told:
            yield Hit(route.manifest, f"{route.path}.match", "asks for `accept` alone")


RULES: Final = (
    Rule(
        "retry-on-refused",
        "`retryOn` with spaces, or with a word that Istio does not know.",
        "Istio refuses the VirtualService, and the one that was there before stays in force",
        "write the words with commas and no spaces: gateway-error,connect-failure,429",
        _refused,
    ),
    Rule(
        "fallback-without-429",
        "`retryOn` without `429` on a route that is to fall back to another model.",
        "a model that is out of quota answers 429, and `retriable-4xx` is 409 alone: such an answer"
        " goes to the client, and nobody falls back",
        "add 429 to retryOn",
        _without_quota,
    ),
    Rule(
        "stream-retried",
        "Retries on a route for streams.",
        "a stream that is begun anew repeats what was read, and is paid twice",
        "retries: {attempts: 0}",
        _repeated_streams,
    ),
    Rule(
        "one-attempt-is-a-retry",
        "`attempts: 1` where nothing is to be retried.",
        "it counts retries, not tries: the request is sent twice",
        "retries: {attempts: 0}",
        _one_attempt,
    ),
    Rule(
        "route-without-timeout",
        "A route of LLM traffic without a timeout.",
        "Istio sets none of its own: a model that hangs holds its request, its connection and its"
        " reservation for ever",
        "say how long a whole answer may take, such as timeout: 120s, and more for streams",
        _endless,
    ),
    Rule(
        "timeout-shorter-than-tier",
        "A timeout shorter than one try, than another route of the same tier, or than the longest"
        f" answer of the tier's model at {TOKENS_PER_SECOND_AT_BEST} tokens a second.",
        "answers that would have come are cut off, and paid all the same",
        "make it as long as the tier's calls may take",
        _too_short,
    ),
    Rule(
        "stream-by-accept-alone",
        "Streams told by the header `accept` alone.",
        "the OpenAI SDK asks for a stream with `accept: application/json` and `stream` in the body:"
        " its streams take the other route, with its timeout and its retries",
        f'add another match to the route: - headers: {{{STREAM}: {{exact: "true"}}}}',
        _accept_alone,
    ),
)
