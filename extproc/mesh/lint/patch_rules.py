"""Rules about patches: what istiod does with them, and whom they reach."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from extproc.mesh.lint.finding import Hit, Rule, quoted
from extproc.mesh.lint.patches import ANY_CONTEXT, EXT_PROC, Patch, type_of
from extproc.mesh.lint.routes import is_about_llm, word
from extproc.mesh.lint.scene import Scene
from extproc.mesh.manifests import mapping, sequence
from extproc.mesh.world import ROOT_NAMESPACE

_RELATIVE: Final = frozenset(("INSERT_BEFORE", "INSERT_AFTER"))
_INSERTING: Final = frozenset(("INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST", "ADD", "REPLACE"))
_FOREIGN_FILTERS: Final = ("envoy.", "istio", "extensions.istio.io")
"""How the names of filters begin that istiod itself puts in."""
_AGGREGATE: Final = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
_ROUTER: Final = "envoy.filters.http.router"
_DEFAULT_PRIORITIES: Final = ("DEFAULT", 0, None)


def _ours(scene: Scene) -> Iterator[Patch]:
    """Patches that have to do with LLM traffic."""
    ext_procs = [each.patch for each in scene.ext_procs]
    for patch in scene.patches:
        config = mapping(patch.value.get("typed_config"))
        name = str(patch.value.get("name") or "")
        is_named = is_about_llm(patch.manifest.name, name)
        is_ext_proc = type_of(config) == EXT_PROC and patch in ext_procs
        if is_named or is_ext_proc:
            yield patch


def _added(scene: Scene) -> Iterator[Hit]:
    for patch in scene.patches:
        if patch.apply_to == "HTTP_FILTER" and patch.operation == "ADD":
            yield Hit(patch.manifest, f"{patch.path}.patch.operation", "ADD on HTTP_FILTER")


def _behind_router(scene: Scene) -> Iterator[Hit]:
    for patch in scene.patches:
        is_after = patch.operation == "INSERT_AFTER" and patch.sub_filter == _ROUTER
        if patch.apply_to == "HTTP_FILTER" and is_after:
            yield Hit(patch.manifest, f"{patch.path}.patch.operation", f"after {_ROUTER}")


def _classed(scene: Scene) -> Iterator[Hit]:
    for patch in scene.patches:
        if word(patch.body.get("filterClass")) not in {"", "UNSPECIFIED"}:
            said = quoted(patch.body.get("filterClass"))
            yield Hit(patch.manifest, f"{patch.path}.patch.filterClass", said)


def _without_priority(scene: Scene) -> Iterator[Hit]:
    told: set[int] = set()
    for patch in _ours(scene):
        is_relative = patch.operation in _RELATIVE and bool(patch.sub_filter)
        is_told = id(patch.manifest) in told
        if is_relative and "priority" not in patch.manifest.spec and not is_told:
            told.add(id(patch.manifest))
            yield Hit(patch.manifest, "spec.priority", f"left out, beside {patch.operation}")


def _too_far(scene: Scene) -> Iterator[Hit]:
    for patch in _ours(scene):
        if patch.apply_to not in {"HTTP_FILTER", "NETWORK_FILTER"}:
            continue
        if not patch.reach.is_selective:
            everyone = patch.manifest.namespace == ROOT_NAMESPACE
            whom = "the mesh" if everyone else f"the namespace {patch.manifest.namespace}"
            what = f"every proxy of {whom}: neither workloadSelector nor targetRefs"
            yield Hit(
                patch.manifest, "spec.workloadSelector", what, "name the workloads by their labels"
            )
        if patch.context == ANY_CONTEXT:
            at = f"{patch.path}.match.context"
            yield Hit(
                patch.manifest, at, "every listener, inbound and outbound", "name the context"
            )
        is_named = patch.listener.get("portNumber") or patch.listener.get("name")
        if patch.context == "SIDECAR_OUTBOUND" and not is_named:
            yield Hit(
                patch.manifest,
                f"{patch.path}.match.listener.portNumber",
                "every outbound HTTP listener, that of the filter's own service too",
                "add the port of the service that is called: portNumber: 8080",
            )


def _useless_threshold(scene: Scene) -> Iterator[Hit]:
    plain = (patch.value for patch in _clusters_added(scene) if _is_plain(patch.value))
    added = {str(value["name"]) for value in plain}
    for patch in scene.patches:
        if patch.apply_to != "CLUSTER" or patch.operation != "MERGE":
            continue
        if word(mapping(patch.match.get("cluster")).get("name")) in added:
            continue
        thresholds = sequence(mapping(patch.value.get("circuit_breakers")).get("thresholds"))
        for at, each in enumerate(thresholds):
            if mapping(each).get("priority") in _DEFAULT_PRIORITIES:
                path = f"{patch.path}.patch.value.circuit_breakers.thresholds[{at}]"
                yield Hit(patch.manifest, path, "a second entry of the default priority")


def _beside_nothing(scene: Scene) -> Iterator[Hit]:
    added = {
        str(patch.value.get("name"))
        for patch in scene.patches
        if patch.apply_to == "HTTP_FILTER" and patch.operation in _INSERTING
    }
    for patch in scene.patches:
        name = patch.sub_filter
        own = {str(patch.value.get("name"))}
        is_own_name = bool(name) and not name.startswith(_FOREIGN_FILTERS)
        if is_own_name and patch.apply_to == "HTTP_FILTER" and name not in added and added - own:
            chain = "match.listener.filterChain.filter.subFilter.name"
            yield Hit(patch.manifest, f"{patch.path}.{chain}", f"no patch puts in {name!r}")


def _thin_fallback(scene: Scene) -> Iterator[Hit]:
    for patch in _clusters_added(scene):
        config = mapping(mapping(patch.value.get("cluster_type")).get("typed_config"))
        names = [str(patch.value.get("name")), *map(str, sequence(config.get("clusters")))]
        breakers = mapping(patch.value.get("circuit_breakers"))
        thresholds = sequence(breakers.get("thresholds"))
        is_limited = not any("max_retries" in mapping(each) for each in thresholds)
        if type_of(config) == _AGGREGATE and is_about_llm(*names) and is_limited:
            at = f"{patch.path}.patch.value.circuit_breakers.thresholds"
            yield Hit(patch.manifest, at, "no max_retries, so 3 at a time")


def _clusters_added(scene: Scene) -> Iterator[Patch]:
    for patch in scene.patches:
        if patch.apply_to == "CLUSTER" and patch.operation == "ADD":
            yield patch


def _is_plain(value: Mapping[str, Any]) -> bool:
    """Whether a cluster has a name, and no thresholds of its own."""
    return isinstance(value.get("name"), str) and "circuit_breakers" not in value


RULES: Final = (
    Rule(
        "http-filter-added",
        "`ADD` on HTTP_FILTER.",
        "istiod puts the filter behind the router, and Envoy refuses the whole listener",
        f"INSERT_BEFORE with subFilter {{name: {_ROUTER}}}",
        _added,
    ),
    Rule(
        "filter-behind-router",
        "A filter that is put in behind the router.",
        "the router is the end of the chain: Envoy refuses the whole listener",
        "INSERT_BEFORE",
        _behind_router,
    ),
    Rule(
        "filter-class",
        "`filterClass` in a patch.",
        "istiod does not implement it: the filter lands where the operation says, and nowhere else",
        "INSERT_BEFORE or INSERT_AFTER with a subFilter, and a priority",
        _classed,
    ),
    Rule(
        "priority-left-out",
        "An EnvoyFilter without `priority` that puts filters beside others.",
        "its place among other EnvoyFilters depends on which of them was created first",
        "priority: 20, say, and lower numbers for what must be in front",
        _without_priority,
    ),
    Rule(
        "patch-reaches-too-far",
        "A patch for LLM traffic that reaches more listeners than meant: on a sidecar's outbound"
        " side without a port, without a context, or without a workload.",
        "the filter runs, and charges, on calls that are none of its business; on calls to its own"
        " service as well",
        "name workload, context and port",
        _too_far,
    ),
    Rule(
        "threshold-appended",
        "MERGE of `circuit_breakers.thresholds`.",
        "lists are appended to, and Envoy takes the first entry of a priority, which is istiod's:"
        " this one has no effect",
        "set connectionPool in a DestinationRule",
        _useless_threshold,
    ),
    Rule(
        "filter-beside-nothing",
        "A patch that puts a filter beside one that no patch puts in.",
        "istiod drops such a patch without a word",
        "name a filter that is there, and give the EnvoyFilter that puts it in a lower priority",
        _beside_nothing,
    ),
    Rule(
        "fallback-cluster-limits",
        "An aggregate cluster of models without `max_retries`.",
        "Envoy's own limit is 3 retries at a time, and they are counted here: during an outage all"
        " but three calls fail",
        "circuit_breakers: {thresholds: [{max_connections: 4294967295, max_pending_requests:"
        " 4294967295, max_requests: 4294967295, max_retries: 4294967295}]}",
        _thin_fallback,
    ),
)
