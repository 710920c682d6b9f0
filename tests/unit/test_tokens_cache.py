"""extproc/tokens/cache.py"""

import gc

import pytest

from extproc.tokens.cache import CACHED_CHARS_MIN, CountCache, keyed_hash

KEY = b"k" * 32


class Recording:
    """Counts words, and keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def count(self, text: str) -> int:
        self.given.append(text)
        return len(text.split())


def long(word: str) -> str:
    return f"{word} " * CACHED_CHARS_MIN


def test_a_text_is_counted_once() -> None:
    recording = Recording()
    cache = CountCache(recording.count, keyed=hash)

    found = [cache.count(long("a")), cache.count(long("b")), cache.count(long("a"))]

    assert found == [CACHED_CHARS_MIN] * 3
    assert recording.given == [long("a"), long("b")]


def test_a_chat_s_next_turn_costs_what_is_new_in_it() -> None:
    recording = Recording()
    cache = CountCache(recording.count, keyed=hash)
    turns = [long(f"turn{number}") for number in range(20)]

    for number in range(1, 21):
        for text in turns[:number]:
            cache.count(text)

    assert recording.given == turns


def test_tiny_texts_are_counted_again() -> None:
    recording = Recording()
    cache = CountCache(recording.count, keyed=hash)
    tiny = "x" * (CACHED_CHARS_MIN - 1)

    cache.count(tiny)
    cache.count(tiny)

    assert recording.given == [tiny, tiny]
    assert len(cache) == 0


@pytest.mark.parametrize("entries_max", [1, 2, 3, 10, 100])
def test_entries_are_bounded(entries_max: int) -> None:
    cache = CountCache(Recording().count, keyed=hash, entries_max=entries_max)

    for number in range(500):
        cache.count(long(str(number)))
        assert len(cache) <= max(entries_max, 2)


def test_what_is_asked_for_stays_and_the_rest_is_forgotten() -> None:
    recording = Recording()
    cache = CountCache(recording.count, keyed=hash, entries_max=10)

    for number in range(50):
        cache.count(long(str(number)))
        cache.count(long("kept"))

    assert recording.given.count(long("kept")) == 1
    cache.count(long("0"))
    assert recording.given.count(long("0")) == 2


def test_texts_are_not_kept() -> None:
    cache = CountCache(lambda _: 1, keyed=hash)
    cache.count(long("secret"))

    kept: list[object] = [cache]
    for thing in kept:
        kept.extend(
            inner
            for inner in gc.get_referents(thing)
            if isinstance(inner, dict | bytes | str | int | tuple) and inner not in kept
        )

    assert not any("secret" in str(thing) for thing in kept[1:])
    assert hash(long("secret")) in kept


def test_texts_that_are_no_utf8_are_kept_apart_from_none() -> None:
    recording = Recording()
    cache = CountCache(recording.count, keyed=hash)

    for text in ("\ud800" * 200, "\0" * 200, "é" * 200):
        cache.count(text)
        cache.count(text)

    assert len(recording.given) == 3


def test_a_hash_whose_key_somebody_set_is_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    assert keyed_hash(KEY) is hash

    monkeypatch.setenv("PYTHONHASHSEED", "0")
    one, other = keyed_hash(KEY), keyed_hash(b"o" * 32)

    assert one("text") == keyed_hash(KEY)("text")
    assert len({one("text"), other("text"), one("text "), hash("text")}) == 4
    assert one("\ud800") is not None
