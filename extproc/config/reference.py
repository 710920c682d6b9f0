"""The manual's tables of settings: made from the model, so that none is missing or wrong.

`python -m extproc.config.reference` writes them, and the schema, into `docs/`.
"""

import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

from msgspec import NODEFAULT, Struct, inspect

from extproc.config.expected import expected, kind_of
from extproc.config.meanings import MEANINGS, first_line
from extproc.config.schema import schema_text
from extproc.config.settings import Settings

BEGIN: Final = "<!-- Made by `python -m extproc.config.reference`: edit the model instead. -->\n"
END: Final = "<!-- End of what is made. -->\n"


def renewed(manual: str) -> str:
    """Return `manual` with the tables between its marks made anew."""
    before, _, rest = manual.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(_lines())
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def _lines() -> Iterator[str]:
    seen: set[type] = set()
    for path, section in _sections("", inspect.type_info(Settings)):
        if section.cls in seen:
            continue
        seen.add(section.cls)
        yield f"### {f'`{path}`' if path else 'The file'}\n"
        yield f"{first_line(section.cls.__doc__)}\n"
        yield "| Setting | Value | Left out | Meaning |"
        yield "|---|---|---|---|"
        for field in section.fields:
            value = expected(kind_of(field.type))
            meaning = MEANINGS[f"{section.cls.__name__}.{field.name}"]
            yield f"| `{field.encode_name}` | {value} | {_default(field)} | {meaning} |"
        yield ""


def _sections(path: str, declared: inspect.Type) -> Iterator[tuple[str, inspect.StructType]]:
    match kind_of(declared).type:
        case inspect.StructType() as section:
            yield path, section
            for field in section.fields:
                dot = "." if path else ""
                yield from _sections(f"{path}{dot}{field.encode_name}", field.type)
        case inspect.DictType(value_type=value):
            yield from _sections(f"{path}.NAME", value)
        case inspect.VarTupleType(item_type=item):
            yield from _sections(f"{path}[]", item)
        case _:
            return


def _default(field: inspect.Field) -> str:
    if field.required:
        return "refused"
    default = field.default if field.default is not NODEFAULT else field.default_factory()
    match default:
        case None:
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case Struct():
            return "see below"
        case str() | tuple() if not default:
            return "empty"
        case int() | float() | Decimal():
            return f"{default:.16g}"
        case _:
            return f"`{default}`"


if __name__ == "__main__":
    docs = Path(sys.argv[1]) if sys.argv[1:] else Path("docs")
    manual = docs / "settings.md"
    manual.write_text(renewed(manual.read_text()))
    (docs / "settings.schema.json").write_text(schema_text() + "\n")
