"""What a setting must look like, in an operator's words: one wording for errors and documents."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from msgspec import inspect

from extproc.config.problems import listed, quoted

NUMBER_CHARS_MAX: Final = 32


class Kind(NamedTuple):
    """The type of a setting, with what `Meta` says beside it. `is_optional`: null is taken."""

    type: inspect.Type
    extra: Mapping[str, Any]
    is_optional: bool


def kind_of(declared: inspect.Type) -> Kind:
    """Look through `T | None` and the wrapping of `Meta`."""
    if isinstance(declared, inspect.UnionType):
        (inner,) = (one for one in declared.types if not isinstance(one, inspect.NoneType))
        return kind_of(inner)._replace(is_optional=True)
    if isinstance(declared, inspect.Metadata):
        return Kind(declared.type, declared.extra_json_schema or {}, is_optional=False)
    return Kind(declared, {}, is_optional=False)


def expected(kind: Kind) -> str:
    """Say what a value of that kind is: "a whole number from 1 to 10"."""
    match kind.type:
        case inspect.StructType() | inspect.DictType():
            return "a mapping"
        case inspect.VarTupleType():
            return "a list"
        case inspect.StrType() as text:
            return str(kind.extra.get("description", _text(text)))
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=(only,)):
            return str(only)
        case inspect.LiteralType(values=values):
            return "one of " + listed(str(value) for value in values)
        case _:
            return _number(kind)


def found(raw: object) -> str:
    """Say what stands in the file. Text is quoted only as far as it can't be a secret."""
    match raw:
        case None:
            return "nothing"
        case bool():
            return str(raw).lower()
        case Decimal():
            text = str(raw)
            return text if len(text) <= NUMBER_CHARS_MAX else f"{text[:NUMBER_CHARS_MAX]}…"
        case str():
            return f"the text {quoted(raw)}"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _text(text: inspect.StrType) -> str:
    if text.min_length and text.max_length:
        return f"text of {text.min_length} to {text.max_length} characters"
    return "text"


def _number(kind: Kind) -> str:
    match kind.type:
        case inspect.IntType(ge=least, le=most):
            return "a whole number" + _range(least, most)
        case inspect.FloatType(gt=None, ge=least, le=most):
            return "a number" + _range(least, most)
        case inspect.FloatType(gt=above, lt=None, le=most):
            return f"a number above {above:.16g}, up to {most:.16g}"
        case inspect.FloatType(gt=above, lt=below):
            return f"a number between {above:.16g} and {below:.16g}, neither of them"
        case inspect.DecimalType():
            return "a number" + _range(kind.extra["minimum"], kind.extra["maximum"])
        case other:
            msg = f"settings have no {other!r} so far: teach `expected` and `shape` about it"
            raise TypeError(msg)


def _range(least: float | None, most: float | None) -> str:
    lower = f" from {least:.16g}" if least is not None else ""
    return lower + (f" to {most:.16g}" if most is not None else "")
