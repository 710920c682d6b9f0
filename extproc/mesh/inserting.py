"""Where a patch puts its value in a list, and what it takes out of one."""

from collections.abc import Callable
from typing import Any

from extproc.mesh.envoy_filters import Patch

Items = Any
"""A repeated field of a protobuf message."""


Meant = Callable[[Any], bool]


def named(name: str | None) -> Meant | None:
    """Whoever has this name is meant; nobody in particular where there is none."""
    return None if name is None else lambda item: bool(item.name == name)


def inserted(items: Items, patch: Patch, is_meant: Meant | None) -> bool:
    """Carry out all but a merge on a list; False where nothing was found to do it at.

    Where no item is meant in particular, what is inserted before or after goes to the front or
    the end, and nothing is replaced or removed.
    """
    match patch.operation:
        case "ADD":
            items.append(patch.value)
        case "INSERT_FIRST":
            _insert(items, 0, patch)
        case "INSERT_AFTER" if is_meant is None:
            items.append(patch.value)
        case "INSERT_BEFORE" if is_meant is None:
            _insert(items, 0, patch)
        case "INSERT_AFTER" | "INSERT_BEFORE" | "REPLACE" | "REMOVE" if is_meant is not None:
            return _at_a_named(items, patch, is_meant)
        case _:
            return False
    return True


def _at_a_named(items: Items, patch: Patch, is_meant: Meant) -> bool:
    found = [at for at, item in enumerate(items) if is_meant(item)]
    if not found:
        return False
    match patch.operation:
        case "INSERT_AFTER":
            _insert(items, found[0] + 1, patch)
        case "INSERT_BEFORE":
            _insert(items, found[0], patch)
        case "REPLACE":
            items[found[0]].CopyFrom(patch.value)
        case _:
            for at in reversed(found):
                del items[at]
    return True


def _insert(items: Items, at: int, patch: Patch) -> None:
    """Repeated fields can't insert messages: append, and move the rest back."""
    items.append(patch.value)
    for place in range(len(items) - 1, at, -1):
        items[place].CopyFrom(items[place - 1])
    items[at].CopyFrom(patch.value)
