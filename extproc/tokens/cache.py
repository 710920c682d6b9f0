"""Counts of texts that were counted before, so that a chat's next turn costs what is new in it.

Texts are never kept: a count is found by a keyed hash, which tells nothing without the key.
"""

import hashlib
import os
from collections.abc import Callable, Hashable
from typing import Final

from extproc.tokens.normal import utf8

CACHE_ENTRIES_MAX: Final = 65_536
"""Per encoding; about 10 MB when full."""

CACHED_CHARS_MIN: Final = 128
"""Shorter texts are counted about as fast as they are hashed."""

DIGEST_BYTES: Final = 16

KeyedHash = Callable[[str], Hashable]


def keyed_hash(key: bytes) -> KeyedHash:
    """Python's own hash of texts: SipHash-1-3, whose key this process drew when it started.

    It is made for keeping strangers from finding two texts with one hash, and takes a twentieth
    of what BLAKE2 takes, which stands in for it where somebody set the key (PYTHONHASHSEED).
    """
    if os.environ.get("PYTHONHASHSEED", "random") == "random":
        return hash
    keyed = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES)

    def digest(text: str) -> bytes:
        found = keyed.copy()
        found.update(utf8(text))
        return found.digest()

    return digest


class CountCache:
    """Remembers counts by keyed hash: the newest, and those asked for since they were new."""

    def __init__(
        self,
        count: Callable[[str], int],
        *,
        keyed: KeyedHash,
        entries_max: int = CACHE_ENTRIES_MAX,
    ) -> None:
        self._count = count
        self._hash = keyed
        # Two generations instead of an order of use: a hit costs one look-up, nothing is moved.
        self._generation_max = max(entries_max // 2, 1)
        self._young: dict[Hashable, int] = {}
        self._old: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, text: str) -> bool:
        """Whether `count` would find it."""
        if len(text) < CACHED_CHARS_MIN:
            return False
        hashed = self._hash(text)
        return hashed in self._young or hashed in self._old

    def count(self, text: str) -> int:
        """Return the tokens of `text`, counted now or before."""
        if len(text) < CACHED_CHARS_MIN:
            return self._count(text)
        hashed = self._hash(text)
        tokens = self._young.get(hashed)
        if tokens is None:
            tokens = self._old.pop(hashed, None)
            if tokens is None:
                tokens = self._count(text)
            self._keep(hashed, tokens)
        return tokens

    def _keep(self, hashed: Hashable, tokens: int) -> None:
        if len(self._young) >= self._generation_max:
            self._old = self._young
            self._young = {}
        self._young[hashed] = tokens
