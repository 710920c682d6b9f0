"""Counts of texts that were counted before, so that a chat's next turn costs what is new in it.

Texts are never kept: a count is found by a keyed hash, which tells nothing without the key.
"""

import hashlib
from collections.abc import Callable
from typing import Final

from extproc.tokens.normal import utf8

CACHE_ENTRIES_MAX: Final = 65_536
"""Per encoding; about 10 MB when full."""

CACHED_CHARS_MIN: Final = 128
"""Shorter texts are counted about as fast as they are hashed."""

DIGEST_BYTES: Final = 16


class CountCache:
    """Remembers counts by keyed hash: the newest, and those asked for since they were new."""

    def __init__(
        self, count: Callable[[str], int], *, key: bytes, entries_max: int = CACHE_ENTRIES_MAX
    ) -> None:
        self._count = count
        self._hash = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES)
        # Two generations instead of an order of use: a hit costs one look-up, nothing is moved.
        self._generation_max = max(entries_max // 2, 1)
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def count(self, text: str) -> int:
        """Return the tokens of `text`, counted now or before."""
        if len(text) < CACHED_CHARS_MIN:
            return self._count(text)
        digest = self._digest(text)
        tokens = self._young.get(digest)
        if tokens is None:
            tokens = self._old.pop(digest, None)
            self._keep(digest, self._count(text) if tokens is None else tokens)
            tokens = self._young[digest]
        return tokens

    def _digest(self, text: str) -> bytes:
        keyed = self._hash.copy()
        keyed.update(utf8(text))
        return keyed.digest()

    def _keep(self, digest: bytes, tokens: int) -> None:
        if len(self._young) >= self._generation_max:
            self._old = self._young
            self._young = {}
        self._young[digest] = tokens
