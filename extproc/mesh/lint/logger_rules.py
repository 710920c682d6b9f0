"""Rules about the access logger that budgets are settled from (`docs/operations.md`, Delivery)."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from extproc.mesh.lint.finding import Hit, Rule, quoted
from extproc.mesh.lint.patches import Patch, type_of
from extproc.mesh.lint.routes import milliseconds
from extproc.mesh.lint.scene import Scene
from extproc.mesh.manifests import mapping, sequence
from extproc.wire.records import ATTRIBUTES

BUFFER_BYTES_MAX: Final = 32_768
"""Envoy keeps 64 KiB of a call to send it again (docs/decisions/0006)."""
FLUSH_MS_MAX: Final = 1000
RETRIES_MIN: Final = 100
"""With a back-off of 10 s at most, what lasts some minutes."""
_OTEL: Final = "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig"
_UNACKNOWLEDGED: Final = frozenset(
    (
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
    )
)
_NEEDED: Final = {
    "x-envoy-retry-on": ("reset,connect-failure,refused-stream,gateway-error", "reset"),
    "x-envoy-retry-grpc-on": (
        "unavailable,cancelled,internal,deadline-exceeded,resource-exhausted",
        "unavailable",
    ),
    "x-envoy-max-retries": ("400", ""),
    "x-envoy-upstream-rq-per-try-timeout-ms": ("2000", ""),
}
"""Of the call's own metadata: a value that does, and a word that it must have."""
_LOST: Final = {
    "x-envoy-retry-on": "a batch is lost whose receiver dies after reading it",
    "x-envoy-retry-grpc-on": "a batch is lost whose receiver drains",
    "x-envoy-max-retries": "a batch is tried twice, and then lost",
    "x-envoy-upstream-rq-per-try-timeout-ms": "a receiver that stalls holds its batch for ever",
}


class _Logger(NamedTuple):
    patch: Patch
    path: str
    config: Mapping[str, Any]

    @property
    def service(self) -> Mapping[str, Any]:
        """Where records are sent."""
        return mapping(mapping(self.config.get("common_config")).get("grpc_service"))

    @property
    def cluster(self) -> str:
        return str(mapping(self.service.get("envoy_grpc")).get("cluster_name") or "")

    def hit(self, path: str, what: str, fix: str) -> Hit:
        return Hit(self.patch.manifest, f"{self.path}.{path}", what, fix)


def _loggers(scene: Scene) -> Iterator[_Logger]:
    """Access loggers that send to the filter's service, or send what it noted."""
    clusters = {each.cluster for each in scene.ext_procs if each.cluster}
    for patch in scene.patches:
        if patch.apply_to not in {"NETWORK_FILTER", "LISTENER"}:
            continue
        at = f"{patch.path}.patch.value"
        inner = mapping(patch.value.get("typed_config"))
        for where, owner in ((at, patch.value), (f"{at}.typed_config", inner)):
            for number, said in enumerate(sequence(owner.get("access_log"))):
                config = mapping(mapping(said).get("typed_config"))
                path = f"{where}.access_log[{number}].typed_config"
                found = _Logger(patch, path, config)
                if found.cluster in clusters or "%DYNAMIC_METADATA(llm)%" in str(config):
                    yield found


def _loses(scene: Scene) -> Iterator[Hit]:
    for each in _loggers(scene):
        kind = type_of(each.config)
        if kind in _UNACKNOWLEDGED:
            fix = f"use {_OTEL}, whose calls are answered"
            yield each.hit("@type", "nobody acknowledges what this logger sends", fix)
        if kind == _OTEL:
            yield from _repeating(each)
            yield from _calls(each)
            yield from _batches(each)
            yield from _cluster(scene, each)
            yield from _told(each)


def _repeating(each: _Logger) -> Iterator[Hit]:
    policy = mapping(mapping(each.config.get("common_config")).get("grpc_stream_retry_policy"))
    at = "common_config.grpc_stream_retry_policy"
    retries = _number(policy.get("num_retries"))
    if not policy:
        what = "left out: no batch is sent twice"
    elif retries is None or retries < RETRIES_MIN:
        at, what = f"{at}.num_retries", "too few: they end before a long outage does"
    elif not mapping(policy.get("retry_back_off")).get("max_interval"):
        at, what = f"{at}.retry_back_off", "left out: all tries are over within seconds"
    else:
        return
    fix = "{num_retries: 400, retry_back_off: {base_interval: 0.1s, max_interval: 10s}}"
    yield each.hit(at, what, fix)


def _calls(each: _Logger) -> Iterator[Hit]:
    said = {
        str(mapping(pair).get("key")).lower(): str(mapping(pair).get("value"))
        for pair in sequence(each.service.get("initial_metadata"))
    }
    at = "common_config.grpc_service.initial_metadata"
    for key, (value, word) in _NEEDED.items():
        fix = f'- {{key: {key}, value: "{value}"}}'
        if key not in said:
            yield each.hit(at, f"no {key}: {_LOST[key]}", fix)
        elif word not in said[key].split(",") and word:
            yield each.hit(at, f"{key} without {word}: {_LOST[key]}", fix)
        elif not word and (_number(said[key]) or 0) <= 0:
            yield each.hit(at, f"{key} is {quoted(said[key])}: {_LOST[key]}", fix)


def _batches(each: _Logger) -> Iterator[Hit]:
    common = mapping(each.config.get("common_config"))
    size = common.get("buffer_size_bytes")
    size = _number(size.get("value") if isinstance(size, Mapping) else size)
    if size is not None and size > BUFFER_BYTES_MAX:
        what = f"{size}: Envoy keeps 64 KiB of a call; a larger batch that fails once is lost"
        yield each.hit("common_config.buffer_size_bytes", what, str(BUFFER_BYTES_MAX))
    flush = common.get("buffer_flush_interval")
    if flush is None or (milliseconds(flush) or 0) > FLUSH_MS_MAX:
        shown = "left out, so 1s" if flush is None else quoted(flush)
        what = f"{shown}: so much is lost with an Envoy that is killed, and budgets wait for it"
        yield each.hit("common_config.buffer_flush_interval", what, "0.2s")


def _cluster(scene: Scene, each: _Logger) -> Iterator[Hit]:
    for patch in scene.patches:
        is_added = patch.apply_to == "CLUSTER" and patch.operation == "ADD"
        if not is_added or patch.value.get("name") != each.cluster:
            continue
        thresholds = sequence(mapping(patch.value.get("circuit_breakers")).get("thresholds"))
        if not any("max_retries" in mapping(one) for one in thresholds):
            at = f"{patch.path}.patch.value.circuit_breakers.thresholds"
            what = "no max_retries, so 3: flushes during an outage are dropped"
            yield Hit(patch.manifest, at, what, "- {max_retries: 4294967295}")


def _told(each: _Logger) -> Iterator[Hit]:
    values = sequence(mapping(each.config.get("attributes")).get("values"))
    said = {
        str(mapping(pair).get("key")): mapping(mapping(pair).get("value")).get("string_value")
        for pair in values
    }
    for key, value in ATTRIBUTES.items():
        if said.get(key) != value:
            what = f"{key} is another" if key in said else f"no {key}: the record says less"
            fix = f'- {{key: {key}, value: {{string_value: "{value}"}}}}'
            yield each.hit("attributes.values", what, fix)


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value[:19])
    return value if isinstance(value, int) and not isinstance(value, bool) else None


RULES: Final = (
    Rule(
        "access-log-loses-records",
        "An access logger to the filter's service that lacks one of the settings by which no record"
        " is lost. Each is a finding of its own.",
        "what requests used is never settled: their reservations expire, and are charged what was"
        " expected",
        "see docs/operations.md, Delivery",
        _loses,
    ),
)
