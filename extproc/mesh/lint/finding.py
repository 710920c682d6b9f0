"""What a rule is, and what it says."""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from extproc.mesh.lint.scene import Scene
from extproc.mesh.manifests import Manifest

TEXT_CHARS_MAX: Final = 120
"""Of a value that a finding quotes."""


class Hit(NamedTuple):
    """A place where a rule is broken."""

    manifest: Manifest
    path: str
    """Such as `spec.http[0].timeout`."""
    what: str
    """What stands there, in a few words."""
    fix: str = ""
    """In place of the rule's own, where this place needs another."""


class Rule(NamedTuple):
    """One thing that goes wrong."""

    name: str
    """Stable: programs may go by it."""
    what: str
    """What it looks for: one sentence."""
    why: str
    """What happens otherwise."""
    fix: str
    find: Callable[[Scene], Iterator[Hit]]


class Finding(NamedTuple):
    """What one rule says of one place."""

    file: str
    line: int
    resource: str
    path: str
    rule: str
    what: str
    why: str
    fix: str


def quoted(value: Any) -> str:  # noqa: ANN401  # whatever stands in a manifest
    """The value in quotes, not too long, on one line."""
    text = repr(value)
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}…"
