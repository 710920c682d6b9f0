"""Files and folders in, findings out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from extproc.config.settings import Settings
from extproc.mesh.lint.finding import Finding
from extproc.mesh.lint.lines import line_of
from extproc.mesh.lint.rules import RULES
from extproc.mesh.lint.scene import Scene
from extproc.mesh.lint.settings_rules import settings_in
from extproc.mesh.lint.worlds import worlds
from extproc.mesh.manifests import Manifest, MeshError

NODES_MAX: Final = 200_000
"""Values in one manifest, with those that aliases repeat."""
DEPTH_MAX: Final = 64
TEXT_CHARS_MAX: Final = 600
"""Of a part of a finding."""


def lint_paths(paths: Iterable[Path], settings: Settings | None = None) -> tuple[Finding, ...]:
    """What is wrong with what lies there; `settings` go before those of a ConfigMap.

    Raises:
        MeshError: something can't be read.
    """
    found: dict[Finding, None] = {}
    for manifests in worlds(paths):
        found |= dict.fromkeys(lint(manifests, settings))
    return tuple(sorted(found))


def lint(manifests: Sequence[Manifest], settings: Settings | None = None) -> tuple[Finding, ...]:
    """What is wrong with these manifests, taken as those of one cluster.

    Raises:
        MeshError: a manifest is larger than any real one.
    """
    for manifest in manifests:
        _check_size(manifest)
    said = (each.settings for each in settings_in(manifests) if each.settings is not None)
    scene = Scene(manifests, settings or next(said, None))
    return tuple(dict.fromkeys(_findings(scene)))


def _findings(scene: Scene) -> Iterator[Finding]:
    for rule in RULES:
        for hit in rule.find(scene):
            at = hit.manifest
            line = line_of(at, hit.path)
            fix = hit.fix or rule.fix
            texts = at.title, hit.path, rule.name, hit.what, rule.why, fix
            yield Finding(at.file, line, *map(_shown, texts))


def _shown(text: str) -> str:
    """The text on one line of no great length: names in it are whatever a manifest says."""
    if len(text) > TEXT_CHARS_MAX:
        text = f"{text[:TEXT_CHARS_MAX]}…"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _check_size(manifest: Manifest) -> None:
    """Refuse what aliases have made deep or large: all rules walk the whole tree."""
    nodes = 0
    level: list[Any] = [manifest.document]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                below += value.values()
            elif isinstance(value, list):
                below += value
            nodes += 1
            if nodes + len(below) > NODES_MAX:
                manifest.fail("", f"more than {NODES_MAX} values")
        if not below:
            return
        level = below
    manifest.fail("", f"deeper than {DEPTH_MAX}")


__all__ = ["MeshError", "lint", "lint_paths"]
