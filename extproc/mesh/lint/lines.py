"""The line on which a field stands."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from extproc.mesh.manifests import FILE_BYTES_MAX, Manifest

FILES_KEPT: Final = 64
_DIGITS_MAX: Final = 6


def line_of(manifest: Manifest, path: str) -> int:
    """The line of the field at `path`, or of what is nearest above it, from 1.

    Of a manifest that a kustomization has changed it is where the file says what was changed.
    """
    node = _documents(manifest.file).get(manifest.line)
    line = manifest.line
    while node is not None and path:
        found = _inside(node, path)
        if found is None:
            break
        line, node, path = found
    return line


def _inside(node: Any, path: str) -> tuple[int, Any, str] | None:  # noqa: ANN401  # PyYAML's nodes
    """The line and value of the first step of a path, and the rest of the path."""
    path = path.removeprefix(".")
    if isinstance(node, yaml.SequenceNode) and path.startswith("["):
        number, _, rest = path[1:].partition("]")
        if number.isdecimal() and len(number) <= _DIGITS_MAX and int(number) < len(node.value):
            item = node.value[int(number)]
            return item.start_mark.line + 1, item, rest
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value)
            rest = path.removeprefix(name)
            # Keys may have dots of their own.
            if path.startswith(name) and name and rest[:1] in {"", ".", "["}:
                return key.start_mark.line + 1, value, rest
    return None


@lru_cache(maxsize=FILES_KEPT)
def _documents(file: str) -> dict[int, Any]:
    """The documents of a file by their first line; none where it can't be read again."""
    try:
        path = Path(file)
        if path.stat().st_size > FILE_BYTES_MAX:
            return {}
        nodes = yaml.compose_all(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        return {node.start_mark.line + 1: node for node in nodes if node is not None}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError):
        return {}
