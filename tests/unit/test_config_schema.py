"""extproc/config/schema.py, meanings.py and reference.py: editors and manual know what we know"""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from msgspec import inspect

from extproc.config.document import read_document
from extproc.config.meanings import MEANINGS
from extproc.config.reference import renewed
from extproc.config.schema import schema, schema_text
from extproc.config.settings import Settings
from extproc.config.shape import shape_of
from tests.unit.config_good import GONE, GOOD, spoiled, text_of

ROOT = Path(__file__).parents[2]
RENEW = "run: python -m extproc.config.reference"
VALIDATOR = Draft202012Validator(schema())


def as_json(value: Any) -> Any:  # a plain tree
    """What an editor reads where we read exact numbers."""
    match value:
        case Decimal():
            whole = value.is_finite() and abs(value.adjusted()) < 400 and value == int(value)
            return int(value) if whole else float(value)
        case list():
            return [as_json(one) for one in value]
        case dict():
            return {name: as_json(one) for name, one in value.items()}
        case _:
            return value


def is_sound_to_editors(text: str) -> bool:
    return VALIDATOR.is_valid(as_json(read_document(text).tree))


def has_types_of_settings(text: str) -> bool:
    return not shape_of(Settings, read_document(text).tree).findings


def paths_in(value: Any, path: str = "") -> Iterator[str]:  # a plain tree
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for step, child in children:
        yield f"{path}{step}"
        yield from paths_in(child, f"{path}{step}/")


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_the_committed_schema_is_fresh() -> None:
    committed = (ROOT / "docs" / "settings.schema.json").read_text()

    assert committed == schema_text() + "\n", RENEW


def test_the_tables_of_the_manual_are_fresh() -> None:
    manual = (ROOT / "docs" / "settings.md").read_text()

    assert manual == renewed(manual), RENEW


def test_every_setting_has_its_meaning_in_manual_and_schema() -> None:
    manual = (ROOT / "docs" / "settings.md").read_text()
    described = schema()["$defs"]
    sections = set(sections_of(inspect.type_info(Settings)))
    fields = {(section, field) for section in sections for field in section.__struct_fields__}

    assert {f"{section.__name__}.{field}" for section, field in fields} == set(MEANINGS)
    for section, field in fields:
        meaning = MEANINGS[f"{section.__name__}.{field}"]
        assert f"| `{field}` | " in manual
        assert f" | {meaning} |" in manual
        assert described[section.__name__]["properties"][field]["description"] == meaning


def sections_of(kind: inspect.Type) -> Iterator[Any]:
    match kind:
        case inspect.StructType(cls=cls, fields=fields):
            yield cls
            for field in fields:
                yield from sections_of(field.type)
        case inspect.DictType(value_type=inner) | inspect.VarTupleType(item_type=inner):
            yield from sections_of(inner)
        case inspect.UnionType(types=types):
            for inner in types:
                yield from sections_of(inner)
        case _:
            return


@pytest.mark.parametrize(
    "text",
    [
        pytest.param((ROOT / "examples" / "policy.yaml").read_text(), id="the shipped example"),
        pytest.param(text_of(GOOD), id="a file with everything"),
        pytest.param(
            text_of(spoiled({"telemetry/spans": None})), id="null where a setting may be left out"
        ),
        pytest.param(text_of(spoiled({"tenants/acme/budgets": GONE})), id="what may be left out"),
        pytest.param(text_of(GOOD).replace("50051", "5.0e+2"), id="a whole number with a point"),
    ],
)
def test_a_sound_file_is_sound_to_editors(text: str) -> None:
    assert has_types_of_settings(text)
    assert [
        error.message for error in VALIDATOR.iter_errors(as_json(read_document(text).tree))
    ] == []


WRONG: Any = (
    GONE,
    None,
    "",
    "yes",
    "X y",
    -1,
    0,
    0.5,
    1.0,
    11,
    10**16,
    True,
    [],
    [1],
    {},
    {"x": 1},
)
"""To be put in the place of each setting in turn: some are right in some places."""


@pytest.mark.parametrize("path", list(paths_in(GOOD)))
def test_editors_and_loader_agree_about_types(path: str) -> None:
    for value in WRONG:
        text = text_of(spoiled({path: value}))
        assert is_sound_to_editors(text) == has_types_of_settings(text), value


@pytest.mark.parametrize("path", [path for path in paths_in(GOOD) if not path[-1].isdigit()])
def test_editors_and_loader_agree_about_keys(path: str) -> None:
    for key in ("x", "Weight", "model s"):
        beside = f"{path.rpartition('/')[0]}/{key}".lstrip("/")
        text = text_of(spoiled({beside: "x"}))
        assert is_sound_to_editors(text) == has_types_of_settings(text), beside
