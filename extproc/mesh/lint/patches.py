"""Patches of an EnvoyFilter, and the ext_proc filters in them, as far as they can be understood."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from extproc.mesh.lint.routes import is_about_llm
from extproc.mesh.manifests import Manifest, mapping, sequence, texts
from extproc.mesh.world import ROOT_NAMESPACE

EXT_PROC: Final = "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
TYPED_STRUCTS: Final = frozenset(("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"))
"""A message written as plain JSON beside the name of its type."""
ANY_CONTEXT: Final = "ANY"
_CAMEL: Final = re.compile("[a-z][a-z0-9]*([A-Z][a-z0-9]*)+")
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class Reach(NamedTuple):
    """Which proxies a patch is for, and which side of them."""

    namespace: str
    context: str
    selector: frozenset[tuple[str, str]]
    """Labels of workloads."""
    refs: tuple[tuple[str, str], ...]
    """Kind and name of what the EnvoyFilter is bound to."""

    @property
    def is_selective(self) -> bool:
        """Whether it is for some workloads only."""
        return bool(self.selector or self.refs)

    def covers(self, other: "Reach") -> bool:
        """Whether all that the other reaches is reached, by what they say."""
        if self.namespace not in {other.namespace, ROOT_NAMESPACE}:
            return False
        if self.context not in {other.context, ANY_CONTEXT}:
            return False
        return self.refs == other.refs if self.refs else self.selector <= other.selector


class Patch(NamedTuple):
    """One of an EnvoyFilter's `configPatches`."""

    manifest: Manifest
    number: int
    apply_to: str
    match: Mapping[str, Any]
    operation: str
    body: Mapping[str, Any]
    """`patch`, whole."""
    reach: Reach
    value: Mapping[str, Any]
    """What is merged or put in, with the names of fields as Envoy's messages have them."""

    @property
    def path(self) -> str:
        """Where it stands."""
        return f"spec.configPatches[{self.number}]"

    @property
    def context(self) -> str:
        """The kind of proxy and side that it is for; left out it is any."""
        return self.reach.context

    @property
    def priority(self) -> int:
        """Of its EnvoyFilter: lower ones are applied first."""
        said = self.manifest.spec.get("priority")
        return said if isinstance(said, int) else 0

    @property
    def listener(self) -> Mapping[str, Any]:
        """What it asks of a listener."""
        return mapping(self.match.get("listener"))

    @property
    def sub_filter(self) -> str:
        """The HTTP filter that it is relative to."""
        chain = mapping(self.listener.get("filterChain"))
        return str(mapping(mapping(chain.get("filter")).get("subFilter")).get("name") or "")

    @property
    def is_in_front(self) -> bool:
        """Whether it puts its filter in front of all that are there."""
        is_before_all = self.operation == "INSERT_BEFORE" and not self.sub_filter
        return self.operation == "INSERT_FIRST" or is_before_all


class ExtProc(NamedTuple):
    """An ext_proc filter."""

    patch: Patch
    path: str
    """Of its configuration."""
    name: str
    config: Mapping[str, Any]
    is_upstream: bool
    """Whether it lies on a cluster, and so sees attempts."""

    @property
    def cluster(self) -> str:
        """Where it is served."""
        service = mapping(self.config.get("grpc_service"))
        return str(mapping(service.get("envoy_grpc")).get("cluster_name") or "")

    @property
    def observes(self) -> bool:
        """Whether it gets copies, and nobody waits for it."""
        return self.config.get("observability_mode") is True

    @property
    def decides(self) -> bool:
        """Whether it sees requests before they are routed, and may change them."""
        mode = mapping(self.config.get("processing_mode"))
        is_blind = (
            mode.get("request_header_mode") == "SKIP"
            and mode.get("request_body_mode", "NONE") == "NONE"
        )
        return not (self.observes or self.is_upstream or is_blind)

    @property
    def is_llm(self) -> bool:
        """Whether a name in it tells that it is about LLM traffic."""
        named = mapping(mapping(self.config.get("metadata_options")).get("receiving_namespaces"))
        names = [self.name, self.cluster, str(self.config.get("stat_prefix") or "")]
        names += [self.patch.manifest.name, *map(str, sequence(named.get("untyped")))]
        return is_about_llm(*names)


def patches_of(manifest: Manifest) -> Iterator[Patch]:
    """The patches of an EnvoyFilter, in their order."""
    for at, said in enumerate(sequence(manifest.spec.get("configPatches"))):
        whole = mapping(said)
        body = mapping(whole.get("patch"))
        yield Patch(
            manifest,
            at,
            str(whole.get("applyTo") or ""),
            mapping(whole.get("match")),
            str(body.get("operation") or ""),
            body,
            _reach(manifest, str(mapping(whole.get("match")).get("context") or ANY_CONTEXT)),
            mapping(_named(body.get("value"))),
        )


def _reach(manifest: Manifest, context: str) -> Reach:
    labels = selector_of(manifest)
    return Reach(manifest.namespace, context, frozenset(labels.items()), target_refs_of(manifest))


def _named(tree: Any) -> Any:  # noqa: ANN401  # YAML
    """The tree with `messageTimeout` as `message_timeout`: protobuf JSON takes either."""
    if isinstance(tree, Mapping):
        return {_snake(key): _named(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_named(item) for item in tree]
    return tree


def _snake(key: object) -> object:
    if not isinstance(key, str) or not _CAMEL.fullmatch(key):
        return key
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", key)


def selector_of(manifest: Manifest) -> Mapping[str, str]:
    """The labels of the workloads that an EnvoyFilter is for."""
    return texts(mapping(manifest.spec.get("workloadSelector")).get("labels"))


def target_refs_of(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Kind and name of what an EnvoyFilter is bound to."""
    refs = sequence(manifest.spec.get("targetRefs"))
    return tuple((str(mapping(each).get("kind")), str(mapping(each).get("name"))) for each in refs)


def type_of(config: Mapping[str, Any]) -> str:
    """The message type of a `typed_config`, without its prefix."""
    return str(config.get("@type") or "").rpartition("/")[2]


def ext_procs_of(patch: Patch) -> Iterator[ExtProc]:
    """The ext_proc filters that a patch puts in, whole. What MERGE adds to one is no filter."""
    at = f"{patch.path}.patch.value"
    if patch.apply_to == "HTTP_FILTER" and patch.operation not in {"REMOVE", "MERGE"}:
        yield from _ext_proc(patch, at, patch.value, is_upstream=False)
    if patch.apply_to == "CLUSTER":
        options = mapping(patch.value.get("typed_extension_protocol_options"))
        inner = f"{at}.typed_extension_protocol_options.{_HTTP_OPTIONS}.http_filters"
        filters = sequence(mapping(options.get(_HTTP_OPTIONS)).get("http_filters"))
        for number, each in enumerate(filters):
            yield from _ext_proc(patch, f"{inner}[{number}]", mapping(each), is_upstream=True)


def _ext_proc(
    patch: Patch, path: str, said: Mapping[str, Any], *, is_upstream: bool
) -> Iterator[ExtProc]:
    config = mapping(said.get("typed_config"))
    at = f"{path}.typed_config"
    if type_of(config) in TYPED_STRUCTS:
        kind = config.get("type_url")
        config, at = {"@type": kind, **mapping(config.get("value"))}, f"{at}.value"
    if type_of(config) == EXT_PROC:
        yield ExtProc(patch, at, str(said.get("name") or ""), config, is_upstream)
