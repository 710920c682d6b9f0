"""HTTP routes of a VirtualService, as far as they can be understood."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

from extproc.exchange.names import STREAM, TIER
from extproc.mesh.manifests import Manifest, mapping, sequence
from extproc.mesh.text_fields import PATTERN_LENGTH_MAX
from extproc.mesh.virtual_services import MESH
from extproc.mesh.world import qualified

OWN_PREFIX: Final = "x-llm-"
"""Of the headers that the filter sets."""
_ABOUT_LLM: Final = re.compile(
    r"(?<![a-z])(v?llms?|gpt|chatgpt|openai|anthropic|claude|llama|ollama|mistral|gemini|bedrock)"
    r"(?![a-z])"
    r"|/v1/(chat|completions|embeddings|messages|responses)"
)
REPETITIONS_MAX: Final = 4
_NESTED: Final = re.compile(r"\)[*+{]")
_EVENT_STREAM: Final = "event-stream"
_MILLISECONDS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_DURATION_PART: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h)")
_DURATION_CHARS_MAX: Final = 64


class Destination(NamedTuple):
    """Where requests, or copies of them, are sent."""

    path: str
    host: str
    """In full."""
    subset: str
    port: int | None


class Route:
    """One HTTP route."""

    def __init__(self, manifest: Manifest, path: str, said: Mapping[str, Any]) -> None:
        self.manifest = manifest
        self.path = path
        self.said = said
        self.name = str(said.get("name") or "")
        self.matches: Sequence[Any] = sequence(said.get("match"))

    @cached_property
    def destinations(self) -> tuple[Destination, ...]:
        """Where it sends requests."""
        return tuple(
            self._destination(f"{self.path}.route[{at}].destination", mapping(each))
            for at, each in enumerate(sequence(self.said.get("route")))
        )

    @cached_property
    def mirrors(self) -> tuple[Destination, ...]:
        """Where it sends copies."""
        several = tuple(
            self._destination(f"{self.path}.mirrors[{at}].destination", mapping(each))
            for at, each in enumerate(sequence(self.said.get("mirrors")))
        )
        one = mapping(self.said.get("mirror"))
        if not one:
            return several
        return (*several, self._destination(f"{self.path}.mirror", {"destination": one}))

    @cached_property
    def headers(self) -> tuple[tuple[str, str, str], ...]:
        """Headers that it asks for: name in lower case, kind (`exact`, …; may be empty), value."""
        return tuple(
            (str(name).lower(), kind, value)
            for match in self.matches
            for name, said in mapping(mapping(match).get("headers")).items()
            for kind, value in _string_match(said)
        )

    @cached_property
    def llm_headers(self) -> frozenset[str]:
        """Those of the filter's own headers that it asks for."""
        return frozenset(name for name, _, _ in self.headers if name.startswith(OWN_PREFIX))

    @cached_property
    def is_llm(self) -> bool:
        """Whether it tells that this is LLM traffic: by a header of ours, or by a name."""
        texts = [self.manifest.name, *map(str, sequence(self.manifest.spec.get("hosts")))]
        texts += [each.host for each in (*self.destinations, *self.mirrors)]
        for match in self.matches:
            texts += [value for _, value in _string_match(mapping(match).get("uri"))]
        return bool(self.llm_headers) or is_about_llm(*texts)

    @cached_property
    def is_catch_all(self) -> bool:
        """Whether it takes whatever comes."""
        return not self.matches or any(_takes_everything(mapping(each)) for each in self.matches)

    @property
    def takes_everything(self) -> bool:
        """Whether nothing comes past it, whoever asks."""
        narrowing = ("gateways", "sourceLabels", "sourceNamespace")
        return not self.matches or any(
            _takes_everything(mapping(each)) and not any(key in mapping(each) for key in narrowing)
            for each in self.matches
        )

    def tiers(self) -> Iterator[tuple[str, str]]:
        """The values of x-llm-tier that it asks for: kind and value."""
        for name, kind, value in self.headers:
            if name == TIER:
                yield kind, value

    @property
    def asks_for_stream(self) -> bool:
        """Whether the filter's word on streams is asked for."""
        return any(name == STREAM for name, _, _ in self.headers)

    @property
    def accepts_stream(self) -> bool:
        """Whether a client's `accept` is asked for streams."""
        return any(name == "accept" and _EVENT_STREAM in value for name, _, value in self.headers)

    @property
    def is_for_streams(self) -> bool:
        """Whether it is a route for streams alone."""
        says_so = any(
            name == STREAM and (kind, value) != ("exact", "false")
            for name, kind, value in self.headers
        )
        return says_so or self.accepts_stream

    @property
    def retries(self) -> Mapping[str, Any] | None:
        """What it says of retries; None where it says nothing."""
        said = self.said.get("retries")
        return mapping(said) if isinstance(said, Mapping) else None

    @property
    def sends(self) -> bool:
        """Whether it sends requests anywhere, rather than answer them or leave it to others."""
        return bool(self.destinations)

    def _destination(self, path: str, said: Mapping[str, Any]) -> Destination:
        to = mapping(said.get("destination"))
        host = to.get("host")
        port = mapping(to.get("port")).get("number")
        full = qualified(host, self.manifest.namespace) if isinstance(host, str) and host else ""
        is_port = isinstance(port, int) and not isinstance(port, bool)
        return Destination(path, full, str(to.get("subset") or ""), port if is_port else None)


def routes_of(manifest: Manifest) -> Iterator[Route]:
    """The HTTP routes of a VirtualService."""
    for at, said in enumerate(sequence(manifest.spec.get("http"))):
        yield Route(manifest, f"spec.http[{at}]", mapping(said))


def is_about_llm(*texts: str) -> bool:
    """Whether a name tells that this is about LLMs."""
    return any(_ABOUT_LLM.search(text.lower()) for text in texts)


def gateways_of(manifest: Manifest) -> frozenset[str]:
    """The gateways of a VirtualService; `mesh` where it names none."""
    return frozenset(map(str, sequence(manifest.spec.get("gateways")))) or frozenset((MESH,))


def word(value: object) -> str:
    """The value if it is text, else an empty one: for looking it up among words."""
    return value if isinstance(value, str) else ""


def matches(pattern: str, text: str) -> bool | None:
    """Whether a regular expression takes all of a text; None where that is not tried.

    Envoy's expressions need linear time, Python's may need for ever: such are not tried.
    """
    if len(pattern) > PATTERN_LENGTH_MAX or _NESTED.search(pattern):
        return None
    if sum(map(pattern.count, "*+{")) > REPETITIONS_MAX:
        return None
    try:
        return re.fullmatch(pattern, text) is not None
    except (re.error, RecursionError, OverflowError):
        return None


def milliseconds(value: object) -> float | None:
    """A duration such as `1m30s`; None where it is none."""
    if value == "0":
        return 0
    if not isinstance(value, str) or not 0 < len(value) <= _DURATION_CHARS_MAX:
        return None
    total, at = 0.0, 0
    while at < len(value):
        part = _DURATION_PART.match(value, at)
        if part is None:
            return None
        total += float(part[1]) * _MILLISECONDS[part[2]]
        at = part.end()
    return total


def _string_match(said: object) -> Iterator[tuple[str, str]]:
    found = [(str(kind), str(value)) for kind, value in mapping(said).items()]
    yield from found or [("", "")]


def _takes_everything(match: Mapping[str, Any]) -> bool:
    asked = {key for key, value in match.items() if value and key not in {"name", "gateways"}}
    if asked - {"uri"}:
        return False
    uri = mapping(match.get("uri"))
    return not uri or uri.get("prefix") == "/" or word(uri.get("regex")) in {".*", "/.*"}
