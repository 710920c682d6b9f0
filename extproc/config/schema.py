"""The settings' JSON Schema, for editors: made from the model that the loader uses.

It knows types, ranges and names of settings; how settings go together only the loader knows.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from extproc.config.meanings import MEANINGS, first_line
from extproc.config.settings import Settings

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the settings file."""
    made = {"$schema": DIALECT, "title": "llm-extproc settings"} | msgspec.json.schema(Settings)
    for part in _objects(made):
        if part.get("format") == "decimal":  # Written as numbers, read without rounding.
            part["type"] = "number"
            del part["format"]
            if "default" in part:
                part["default"] = float(part["default"])
    for section, described in made["$defs"].items():
        described["description"] = first_line(described["description"])
        for field, part in described["properties"].items():
            part["description"] = MEANINGS[f"{section}.{field}"]
            if not _is_plain(part.get("default")):
                del part["default"]  # The section's own defaults say it.
    return made


def schema_text() -> str:
    """Return the schema as the text that `llm-extproc schema` prints."""
    return json.dumps(schema(), indent=2)


def _objects(part: object) -> Iterator[dict[str, Any]]:
    """Yield every JSON object in `part`, itself first."""
    if isinstance(part, dict):
        yield part
    children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for child in list(children):
        yield from _objects(child)


def _is_plain(default: object) -> bool:
    return not isinstance(default, dict)
