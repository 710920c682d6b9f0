"""The shape every section of the settings file has."""

import fnmatch
import re
from functools import lru_cache

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the settings: immutable, named fields only, unknown keys refused."""


def matches_any(globs: tuple[str, ...], text: str) -> bool:
    """Whether one of the shell patterns (`gpt-*`) takes the whole of `text`, case included."""
    return any(_compiled(glob).match(text) is not None for glob in globs)


@lru_cache(maxsize=4096)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(glob))
