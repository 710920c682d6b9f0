"""Fields of an Istio resource, held to what is known of them: a field that isn't known is an error.

A `Field` takes a manifest, the path of a value in it, and the value; it returns the value as it is
used here, or raises a MeshError that names the path.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from extproc.mesh.manifests import Manifest, Tree

Field = Callable[[Manifest, str, Tree], Tree]

UINT32_MAX: Final = (1 << 32) - 1
INT32_MAX: Final = (1 << 31) - 1
NANOSECONDS_MAX: Final = (1 << 63) - 1
"""Go's longest duration."""
MILLISECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": MILLISECOND,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
_PART: Final = re.compile(r"(\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(ns|us|µs|ms|s|m|h)", re.ASCII)


def message(
    known: Mapping[str, Field], *one_of: frozenset[str], required: Sequence[str] = ()
) -> Field:
    """A mapping of these fields; of each set in `one_of` it may have one."""

    def read(manifest: Manifest, path: str, value: Tree) -> Tree:
        if not isinstance(value, dict):
            manifest.fail(path, "must be a mapping")
        found = {}
        for name, item in value.items():
            field = known.get(name)
            if field is None:
                manifest.fail(f"{path}.{name}", "is no field that is translated")
            if item is not None:
                found[name] = field(manifest, f"{path}.{name}", item)
        for key in required:
            if key not in found:
                manifest.fail(f"{path}.{key}", "missing")
        for names in one_of:
            if len(names & found.keys()) > 1:
                manifest.fail(path, f"may have one of {', '.join(sorted(names))}")
        return found

    return read


def listed(field: Field) -> Field:
    """A list of such fields."""

    def read(manifest: Manifest, path: str, value: Tree) -> Tree:
        if not isinstance(value, list):
            manifest.fail(path, "must be a list")
        return [field(manifest, f"{path}[{at}]", item) for at, item in enumerate(value)]

    return read


def choice(*names: str) -> Field:
    """One of these names."""

    def read(manifest: Manifest, path: str, value: Tree) -> Tree:
        if value not in names:
            manifest.fail(path, f"must be one of {', '.join(names)}")
        return value

    return read


def integer(low: int = 0, high: int = INT32_MAX) -> Field:
    """A whole number between these, both included."""

    def read(manifest: Manifest, path: str, value: Tree) -> Tree:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            manifest.fail(path, f"must be a whole number from {low} to {high}")
        return value

    return read


def number(low: float, high: float) -> Field:
    """A number between these, both included; a whole one comes as `int`, as JSON prints it."""

    def read(manifest: Manifest, path: str, value: Tree) -> Tree:
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not low <= value <= high
        ):
            manifest.fail(path, f"must be a number from {low:g} to {high:g}")
        return int(value) if value == int(value) else value

    return read


def refused(why: str) -> Field:
    """A field that istiod knows and this does not translate."""

    def read(manifest: Manifest, path: str, _value: Tree) -> Tree:
        manifest.fail(path, why)

    return read


def text(manifest: Manifest, path: str, value: Tree) -> Tree:
    """Text, which may be empty."""
    if not isinstance(value, str):
        manifest.fail(path, "must be text")
    return value


def name(manifest: Manifest, path: str, value: Tree) -> Tree:
    """Text that is not empty."""
    if not isinstance(value, str) or not value:
        manifest.fail(path, "must be text, and not empty")
    return value


def boolean(manifest: Manifest, path: str, value: Tree) -> Tree:
    """True or false."""
    if not isinstance(value, bool):
        manifest.fail(path, "must be true or false")
    return value


def labels(manifest: Manifest, path: str, value: Tree) -> Tree:
    """Text by text."""
    if not isinstance(value, dict):
        manifest.fail(path, "must be a mapping")
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            manifest.fail(f"{path}.{key}", "must be text")
    return value


def duration(low_ns: int = MILLISECOND) -> Field:
    """A Go duration, such as `1h30m` or `250ms`, as protobuf JSON writes it."""

    def read(manifest: Manifest, path: str, value: Tree) -> Tree:
        nanoseconds = _nanoseconds(value)
        if nanoseconds is None:
            manifest.fail(path, "must be a duration, such as 30s or 250ms")
        if not low_ns <= nanoseconds <= NANOSECONDS_MAX:
            manifest.fail(path, f"must be a duration of {seconds(low_ns)} or more")
        return seconds(nanoseconds)

    return read


def seconds(nanoseconds: int) -> str:
    """Seconds as protobuf JSON writes them: with no, three, six or nine decimals."""
    whole, rest = divmod(nanoseconds, _SECOND)
    decimals = f"{rest:09d}"
    while decimals.endswith("000"):
        decimals = decimals[:-3]
    return f"{whole}.{decimals}s" if decimals else f"{whole}s"


def _nanoseconds(value: Tree) -> int | None:
    if value == "0":
        return 0
    if not isinstance(value, str) or not value:
        return None
    total, at = Decimal(0), 0
    while at < len(value):
        part = _PART.match(value, at)
        if part is None:
            return None
        total += Decimal(part[1]) * _UNITS[part[2]]
        at = part.end()
    return int(total)
