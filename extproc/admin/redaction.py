"""The settings as they may be shown: complete, but for what lets somebody in."""

import re
from decimal import Decimal
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from extproc.admin.overview import reload_shown
from extproc.admin.views import InForce

TENANTS_SHOWN_MAX: Final = 200
"""Those whose name contains what was asked for, in the order of the file."""

HIDDEN: Final = "…"

_SECRET_NAME: Final = re.compile("password|secret|credential|private|authorization$")
_HASH: Final = re.compile("[0-9A-Fa-f]{40,}")
_PLAIN: Final = frozenset({"identity", "plans"})
"""Sections that hold patterns, which may look like URLs; none of them holds a secret."""


class SettingsInForce(msgspec.Struct, frozen=True, kw_only=True):
    """What decides now. `tenants` of the settings are those that were asked for, up to a limit."""

    in_force_since: float
    last_reload: dict[str, Any] | None
    needs_restart: tuple[str, ...]
    tenants_total: int
    tenants_left_out: int
    settings: dict[str, Any]


def settings_shown(in_force: InForce, *, tenant: str = "") -> SettingsInForce:
    """Show the settings, without passwords, hashes, and what is behind a URL's `?`."""
    settings = in_force.settings
    text = tenant.casefold()
    matching = [name for name in settings.tenants if text in name.casefold()]
    shown = {name: settings.tenants[name] for name in islice(matching, TENANTS_SHOWN_MAX)}
    tree: dict[str, Any] = msgspec.to_builtins(
        msgspec.structs.replace(settings, tenants=shown), builtin_types=(Decimal,)
    )
    return SettingsInForce(
        in_force_since=in_force.since,
        last_reload=reload_shown(in_force.last_reload),
        needs_restart=in_force.needs_restart,
        tenants_total=len(settings.tenants),
        tenants_left_out=len(settings.tenants) - len(shown),
        settings={
            name: section if name in _PLAIN else redacted(section) for name, section in tree.items()
        },
    )


def redacted(value: Any) -> Any:  # noqa: ANN401  # whatever a file may hold
    """The same, with `…` for what is secret: by its name, as a hash, or within a URL."""
    if isinstance(value, dict):
        return {
            _without_secrets(name): HIDDEN
            if isinstance(inner, str) and _SECRET_NAME.search(name)
            else redacted(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    return _without_secrets(value) if isinstance(value, str) else value


def _without_secrets(text: str) -> str:
    if "://" in text:
        text = _without_password(text)
    return _HASH.sub(HIDDEN, text)


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    _, has_user, host = parts.netloc.rpartition("@")
    place = f"{HIDDEN}@{host}" if has_user else host
    query = HIDDEN if parts.query else ""
    return urlunsplit((parts.scheme, place, parts.path, query, ""))
