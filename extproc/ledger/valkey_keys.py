"""The names of keys. All of one tenant's lie in one slot of a cluster."""

from typing import Final
from urllib.parse import quote

PREFIX: Final = "llm-extproc"
NOTES_KEYS: Final = (f"{PREFIX}:{{notes}}:texts", f"{PREFIX}:{{notes}}:version")
REPLICAS_KEY: Final = f"{PREFIX}:replicas"
BEATS_KEY: Final = f"{PREFIX}:beats"
"""A number that only grows, as long as the store forgets nothing."""

_KINDS: Final = ("accounts", "forget", "held", "due", "over", "leases", "lapse", "mark")
"""In the order in which the scripts take them."""


def keys_of(tenant: str) -> tuple[str, ...]:
    """The keys of a tenant's books.

    A slot is that of what stands between the first `{` and the first `}` after it. An empty name
    and one with a brace in it must not change which that is.
    """
    tag = f"{{t.{quote(tenant, safe='')}}}"
    return tuple([f"{PREFIX}:{tag}:{kind}" for kind in _KINDS])
