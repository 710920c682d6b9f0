"""The rule about a client's own headers of our names, which nobody may send."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from extproc.exchange.names import REQUEST_HEADERS
from extproc.mesh.lint.finding import Hit, Rule
from extproc.mesh.lint.patches import ExtProc, Patch, type_of
from extproc.mesh.lint.routes import matches
from extproc.mesh.lint.scene import Scene
from extproc.mesh.manifests import mapping, sequence

_HEADER_MUTATION: Final = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
_EARLY: Final = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"


def _unstripped(scene: Scene) -> Iterator[Hit]:
    trusted = {
        source.header.lower()
        for source in (scene.settings.identity if scene.settings else ())
        if source.header
    }
    strippers = {place: found for place, found in enumerate(map(_stripper, scene.patches)) if found}
    places = {id(patch): place for place, patch in enumerate(scene.patches)}
    for each in scene.deciders:
        own_place = places[id(each.patch)]
        removed = [
            mutation
            for place, found in strippers.items()
            if found.patch.reach.covers(each.patch.reach)
            and _is_before(found, each, is_earlier=place < own_place)
            for mutation in found.mutations
        ]
        left = [
            name
            for name in REQUEST_HEADERS
            if name not in trusted and not any(_removes(one, name) for one in removed)
        ]
        if left:
            what = f"nothing in front of {each.name!r} removes {', '.join(left)}"
            yield Hit(each.patch.manifest, f"{each.patch.path}.patch.value", what)


class _Stripper(NamedTuple):
    """A patch that may remove request headers."""

    patch: Patch
    mutations: tuple[Mapping[str, Any], ...]
    is_filter: bool
    """Whether it is a filter among others; else it works before all of them."""


def _stripper(patch: Patch) -> _Stripper | None:
    config = mapping(patch.value.get("typed_config"))
    if patch.apply_to == "NETWORK_FILTER":
        inner = [
            mapping(mapping(each).get("typed_config"))
            for each in sequence(config.get("early_header_mutation_extensions"))
        ]
        early = [each for each in inner if type_of(each) == _EARLY]
        found = [mapping(one) for each in early for one in sequence(each.get("mutations"))]
        return _Stripper(patch, tuple(found), is_filter=False) if found else None
    if patch.apply_to == "HTTP_FILTER" and type_of(config) == _HEADER_MUTATION:
        mutations = sequence(mapping(config.get("mutations")).get("request_mutations"))
        return _Stripper(patch, tuple(map(mapping, mutations)), is_filter=True)
    return None


def _is_before(found: _Stripper, filter_: ExtProc, *, is_earlier: bool) -> bool:
    """Whether a request comes to it first."""
    patch, other = found.patch, filter_.patch
    if not found.is_filter or (patch.is_in_front and not other.is_in_front):
        return True
    is_beside = patch.sub_filter == filter_.name
    is_same_place = patch.sub_filter == other.sub_filter and is_earlier
    return patch.operation == "INSERT_BEFORE" and (is_beside or is_same_place)


def _removes(mutation: Mapping[str, Any], header: str) -> bool:
    if str(mutation.get("remove") or "").lower() == header:
        return True
    matcher = mapping(mapping(mutation.get("remove_on_match")).get("key_matcher"))
    prefix, exact = matcher.get("prefix"), matcher.get("exact")
    regex = mapping(matcher.get("safe_regex")).get("regex")
    if isinstance(regex, str):
        return matches(regex, header) is True
    is_prefix = isinstance(prefix, str) and bool(prefix) and header.startswith(prefix.lower())
    return is_prefix or (isinstance(exact, str) and exact.lower() == header)


RULES: Final = (
    Rule(
        "headers-not-stripped",
        "A filter without a header mutation in front of it that removes a client's own headers of"
        " our names.",
        "wherever the filter does not run, fails open or sees no body, a client chooses its own"
        " tier and tenant",
        "remove them by early_header_mutation_extensions, or by a header_mutation filter that is"
        " put in by INSERT_FIRST",
        _unstripped,
    ),
)
