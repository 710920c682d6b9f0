"""What the settings can say and this version can't do: refused in those words, never ignored.

Whoever builds a part takes its line away here, and nothing else.
"""

from collections.abc import Iterator
from typing import Any, Final

from extproc.config.problems import Finding, Steps, quoted
from extproc.config.settings import Settings

UNBUILT: Final[tuple[tuple[Steps, tuple[str, ...], str], ...]] = (
    # The setting, those of its values that are not built (none: all), what is said of them.
    (
        ("ledger", "kind"),
        ("valkey",),
        '{value} is not built yet; this version has "sqlite" and "memory"',
    ),
    (("ledger", "url"), (), "not built yet; this version's ledger calls no server"),
    (
        ("ledger", "when_unavailable"),
        ("local_share",),
        '{value} is not built yet; this version has "allow" and "deny"',
    ),
)


def check_unbuilt(settings: Settings) -> Iterator[Finding]:
    """Find settings whose part is not built yet."""
    for at, values, words in UNBUILT:
        value: Any = settings
        for step in at:
            value = getattr(value, str(step))
        if value is not None and (not values or value in values):
            yield Finding(at, words.format(value=quoted(str(value))))
