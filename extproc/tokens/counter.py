"""The `TextCounter` of the running service: exact while texts are small, bounded always."""

import os
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from extproc.llm.ranges import Range
from extproc.tokens.cache import CountCache, keyed_hash
from extproc.tokens.encodings import Encoder, Engine, load
from extproc.tokens.estimate import estimate
from extproc.tokens.normal import utf8

KEY_BYTES: Final = 32
CHARACTER_BYTES_MAX: Final = 4


class _Loaded(NamedTuple):
    encoder: Encoder
    cache: CountCache


class Counter:
    """Counts texts exactly up to `prompt_exact_bytes` of UTF-8 per call; estimates beyond.

    `key` hides what texts were counted from whoever reads the memory, and what is looked at in
    large ones from whoever writes them: random, one per process, unless a test wants the same
    answers again.
    """

    def __init__(
        self, *, prompt_exact_bytes: int, engine: Engine = "quicktok", key: bytes | None = None
    ) -> None:
        self._exact_bytes = prompt_exact_bytes
        self._engine = engine
        self._key = key if key is not None else os.urandom(KEY_BYTES)
        self._loaded: dict[str, _Loaded] = {}

    def warm(self, encodings: Iterable[str]) -> None:
        """Load `encodings` now, so that no request waits for it.

        Raises:
            EncodingUnavailableError: no installed engine has one of them.
        """
        for encoding in encodings:
            self._of(encoding).encoder.count("warm")

    @property
    def engines(self) -> dict[str, Engine]:
        """Which engine counts in each encoding that is loaded."""
        return {name: loaded.encoder.engine for name, loaded in self._loaded.items()}

    def count(self, encoding: str, texts: Sequence[str]) -> Range:
        """Count the tokens of `texts`, each for itself, special tokens as plain text.

        Raises:
            EncodingUnavailableError: never for an encoding that `warm` has loaded.
        """
        encoder, cache = self._of(encoding)
        if self._is_counted(texts):
            tokens = sum(map(cache.count, texts))
            return Range(tokens, tokens, tokens)
        return estimate(texts, encoder, sample_bytes_max=self._exact_bytes, seed=self._key)

    def _of(self, encoding: str) -> _Loaded:
        loaded = self._loaded.get(encoding)
        if loaded is None:
            encoder = load(encoding, self._engine)
            loaded = _Loaded(encoder, CountCache(encoder.count, keyed=keyed_hash(self._key)))
            self._loaded[encoding] = loaded
        return loaded

    def _is_counted(self, texts: Sequence[str]) -> bool:
        """Whether `texts` are small enough. Most are by far, which is known without encoding."""
        characters = sum(map(len, texts))
        if characters * CHARACTER_BYTES_MAX <= self._exact_bytes:
            return True
        if characters > self._exact_bytes:
            return False
        return sum(len(utf8(text)) for text in texts) <= self._exact_bytes
