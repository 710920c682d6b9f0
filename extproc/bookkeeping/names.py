"""Which model of ours an invoice means."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

_VERSION: Final = re.compile(r"(?:[-@:]v?[0-9]+|-latest|-preview)+")
"""What providers add to a name: dates and versions. `gpt-4-turbo` is no version of `gpt-4`."""


def match(invoiced: str, ours: Iterable[str], named: Mapping[str, str]) -> str | None:
    """Our name for what an invoice calls `invoiced`; None if we have none.

    `named` decides where it says something. Else it is the same name, or the longest of ours that
    becomes the invoice's by a version; or the only one that the invoice's becomes: `Claude Haiku
    4.5` is `claude-haiku-4-5-20251001`. Letters' case, spaces and points do not matter.
    """
    if invoiced in named:
        return named[invoiced]
    wanted = _simple(invoiced)
    by_name = {_simple(name): name for name in sorted(ours)}
    if wanted in by_name:
        return by_name[wanted]
    beginnings = [name for name in by_name if _is_version_of(wanted, name)]
    if beginnings:
        return by_name[max(beginnings, key=len)]
    versions = [name for name in by_name if _is_version_of(name, wanted)]
    return by_name[versions[0]] if len(versions) == 1 else None


def _is_version_of(name: str, base: str) -> bool:
    return name.startswith(base) and _VERSION.fullmatch(name, len(base)) is not None


def _simple(name: str) -> str:
    return name.strip().lower().replace(" ", "-").replace(".", "-").replace("_", "-")
