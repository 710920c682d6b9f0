"""The `TextCounter` of the running service: exact while what is new is small, bounded always."""

import os
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from extproc.llm.ranges import Range, exactly
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
    """Counts exactly up to `prompt_exact_bytes` of new UTF-8 per call; estimates beyond.

    Of more than that, texts that were counted before are still exact, and the first of the others
    are counted, up to half of it: so a growing chat is counted in full once it was seen a few
    times, however long it is.

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
            return exactly(sum(map(cache.count, texts)))
        counted, rest, sample_bytes = self._divided(texts, cache)
        tokens = exactly(sum(map(cache.count, counted)))
        if not rest:
            return tokens
        return tokens.plus(estimate(rest, encoder, sample_bytes_max=sample_bytes, seed=self._key))

    def _divided(
        self, texts: Sequence[str], cache: CountCache
    ) -> tuple[Sequence[str], Sequence[str], int]:
        """Tell which to count, which to estimate, and how many bytes of these may be counted."""
        new = [text for text in texts if text not in cache]
        if self._is_counted(new):
            return texts, (), 0
        counted = [text for text in texts if text in cache]
        rest: list[str] = []
        left = self._exact_bytes
        for text in new:
            after = left - len(utf8(text))
            if after >= self._exact_bytes // 2:
                counted.append(text)
                left = after
            else:
                rest.append(text)
        return counted, rest, left

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
