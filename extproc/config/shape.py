"""Whether each setting has the type that the model gives it: all mistakes, not the first.

Where something is wrong a harmless stand-in takes its place, so that the rest can be looked
at as a whole: what `shape_of` returns always converts to the model.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, NamedTuple, TypeGuard

from msgspec import inspect

from extproc.config.document import Tree
from extproc.config.expected import Kind, expected, found, kind_of
from extproc.config.problems import UNKNOWN_KEY, Finding, Steps, did_you_mean, listed, quoted

DIGITS_MAX: Final = 25
"""Fewer than Decimal calculates with, so that nothing is ever rounded."""
EXPONENT_MAX: Final = 25


class Shape(NamedTuple):
    """The settings with stand-ins for what is wrong, and where that is."""

    tree: Tree
    findings: tuple[Finding, ...]
    broken: frozenset[Steps]
    """Where stand-ins are; what is concluded from them is no finding."""


def shape_of(model: type, raw: object) -> Shape:
    """Look at all of `raw`, a tree of plain values, as a `model`."""
    walk = _Walk()
    tree = walk.value(inspect.type_info(model), raw, ())
    return Shape(tree, tuple(walk.findings), frozenset(walk.broken))


class _Known(NamedTuple):
    """What is asked of a declared type for each of 100,000 tenants."""

    kind: Kind
    fields: Mapping[str, inspect.Field]
    """Of a section, by their names in a file."""


class _Walk:
    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.broken: set[Steps] = set()
        self._known: dict[int, tuple[inspect.Type, _Known]] = {}
        """By what is no other's as long as the type lives, which it does here."""

    def known(self, declared: inspect.Type) -> _Known:
        found = self._known.get(id(declared))
        if found is None:
            kind = kind_of(declared)
            fields = kind.type.fields if isinstance(kind.type, inspect.StructType) else ()
            known = _Known(kind, {field.encode_name: field for field in fields})
            found = self._known[id(declared)] = (declared, known)
        return found[1]

    def value(self, declared: inspect.Type, raw: object, at: Steps) -> Tree:
        kind, fields = self.known(declared)
        if raw is None and kind.is_optional:
            return None
        match kind.type:
            case inspect.StructType() if isinstance(raw, dict):
                return self._section(fields, raw, at)
            case inspect.DictType() as mapping if isinstance(raw, dict):
                return self._mapping(mapping, raw, at)
            case inspect.VarTupleType(item_type=item) if isinstance(raw, list):
                return [self.value(item, one, (*at, number)) for number, one in enumerate(raw)]
            case _:
                return self._scalar(kind, raw, at)

    def _wrong(self, at: Steps, message: str) -> None:
        self.findings.append(Finding(at, message))
        self.broken.add(at)

    def _scalar(self, kind: Kind, raw: object, at: Steps) -> Tree:
        taken = _take(kind, raw)
        if taken is not None:
            return taken
        what = found(raw)
        if isinstance(raw, str) and isinstance(kind.type, _SECTIONS):
            what = "text"  # Unquoted: a key or a password may have been put in its place.
        self._wrong(at, f"expected {expected(kind)}, got {what}{_hint(kind, raw)}")
        return _stand_in(kind.type)

    def _mapping(self, kind: inspect.DictType, raw: dict[str, Tree], at: Steps) -> dict[str, Tree]:
        tree = {}
        keys = self.known(kind.key_type).kind
        for name, one in raw.items():
            value = self.value(kind.value_type, one, (*at, name))
            if _take(keys, name) is None:
                message = f"as a key, expected {expected(keys)}"
                self.findings.append(Finding((*at, name), message))
                self.broken.add(at)  # One of its names is missing now.
            else:
                tree[name] = value
        return tree

    def _section(
        self, fields: Mapping[str, inspect.Field], raw: dict[str, Tree], at: Steps
    ) -> dict[str, Tree]:
        absent = [name for name in fields if name not in raw]
        tree = {}
        for name, one in raw.items():
            if name in fields:
                tree[name] = self.value(fields[name].type, one, (*at, name))
            else:
                self._unknown(name, absent, list(fields), at)
        for name in absent:
            if fields[name].required:
                missing = kind_of(fields[name].type)
                if (*at, name) not in self.broken:
                    self._wrong((*at, name), f"missing; expected {expected(missing)}")
                tree[name] = _stand_in(missing.type)
        return tree

    def _unknown(self, name: str, absent: list[str], fields: list[str], at: Steps) -> None:
        """A key that is no setting. One that is nearly the name of a setting stands for it."""
        near = did_you_mean(name, absent)
        self.broken.add((*at, near or UNKNOWN_KEY))
        hint = f"did you mean {quoted(near)}?" if near else "there is " + listed(fields)
        self._wrong((*at, name), f"unknown key; {hint}")


_SECTIONS: Final = (inspect.StructType, inspect.DictType, inspect.VarTupleType)

_NUMBERS: Final = (inspect.IntType, inspect.FloatType, inspect.DecimalType)


def _take(kind: Kind, raw: object) -> Tree:
    """Return `raw` as a value of that scalar type, or None."""
    match kind.type:
        case inspect.StrType() as text if isinstance(raw, str):
            return raw if _is_text(text, raw) else None
        case inspect.BoolType() if isinstance(raw, bool):
            return raw
        case inspect.LiteralType(values=values) if not isinstance(raw, bool):
            return next((value for value in values if value == raw), None)
        case inspect.IntType(ge=least, le=most) if _is_number(raw):
            is_whole = raw == raw.to_integral_value()
            return int(raw) if is_whole and _is_within(raw, least, most) else None
        case inspect.FloatType(gt=above, ge=least, lt=below, le=most) if _is_number(raw):
            is_open = (above is None or raw > above) and (below is None or raw < below)
            return float(raw) if is_open and _is_within(raw, least, most) else None
        case inspect.DecimalType() if _is_number(raw):
            within = _is_within(raw, kind.extra["minimum"], kind.extra["maximum"])
            return raw if within else None
        case _:
            return None


def _is_text(kind: inspect.StrType, raw: str) -> bool:
    return (
        (kind.min_length or 0) <= len(raw)
        and (kind.max_length is None or len(raw) <= kind.max_length)
        and (kind.pattern is None or re.search(kind.pattern, raw) is not None)
        and raw.isprintable()
    )


def _is_number(raw: object) -> TypeGuard[Decimal]:
    """Whether `raw` is a number that can be calculated with, soon and without rounding."""
    if not isinstance(raw, Decimal) or not raw.is_finite():
        return False
    _, digits, exponent = raw.as_tuple()
    return len(digits) <= DIGITS_MAX and abs(int(exponent)) <= EXPONENT_MAX


def _is_within(raw: Decimal, least: float | None, most: float | None) -> bool:
    return (least is None or raw >= least) and (most is None or raw <= most)


def _hint(kind: Kind, raw: object) -> str:
    if isinstance(kind.type, inspect.StrType):
        if isinstance(raw, bool | Decimal):
            return "; put it in quotes"
        if isinstance(raw, str) and not raw.isprintable():
            return "; line ends, tabs and other invisible characters are not taken"
    if isinstance(kind.type, inspect.LiteralType) and isinstance(raw, str):
        near = did_you_mean(raw, [str(value) for value in kind.type.values])
        return f"; did you mean {quoted(near)}?" if near else ""
    if isinstance(raw, str) and isinstance(kind.type, _NUMBERS):
        return "; write plain digits, without quotes"
    return ""


def _stand_in(kind: inspect.Type) -> Tree:
    """Return a value of that type, never looked at."""
    match kind:
        case inspect.StrType():
            return "x"
        case inspect.BoolType():
            return False
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.IntType(ge=least):
            return least or 0
        case inspect.FloatType(ge=least, le=most):
            return least if least is not None else most if most is not None else 0.5
        case inspect.DecimalType():
            return Decimal(0)
        case inspect.VarTupleType():
            return []
        case inspect.StructType(fields=fields):
            needed = [field for field in fields if field.required]
            return {one.encode_name: _stand_in(kind_of(one.type).type) for one in needed}
        case _:
            return {}
