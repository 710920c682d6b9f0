"""Where two configurations differ, by path."""

from collections.abc import Iterator
from typing import Any

_MISSING = "(nothing)"


def difference(expected: Any, actual: Any) -> list[str]:
    """The paths whose values differ, with both; lists of named things are compared by name."""
    return list(_difference(expected, actual, ""))


def _difference(expected: Any, actual: Any, path: str) -> Iterator[str]:
    expected, actual = _keyed(expected), _keyed(actual)
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted({*expected, *actual}, key=str):
            yield from _difference(
                expected.get(key, _MISSING), actual.get(key, _MISSING), f"{path}.{key}"
            )
    elif expected != actual or isinstance(expected, bool) != isinstance(actual, bool):
        yield f"{path}: expected {expected!r}, found {actual!r}"


def _keyed(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    names = [
        each.get("name") or each.get("cluster_name") if isinstance(each, dict) else None
        for each in value
    ]
    if value and all(names) and len(set(names)) == len(names):
        return dict(zip(names, value, strict=True)) | {"(order)": tuple(names)}
    return dict(enumerate(value))
