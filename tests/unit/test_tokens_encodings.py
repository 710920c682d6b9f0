"""extproc/tokens/encodings.py and normal.py"""

# ruff: noqa: RUF001, SLF001
# Texts of many languages look like others; what is remembered must be forgotten between tests.

import base64
import hashlib
import importlib
import importlib.util
import os
import socket
import unicodedata
from pathlib import Path
from typing import Any, get_args

import pytest

from extproc.policy.models import Encoding
from extproc.tokens import encodings, normal
from extproc.tokens.encodings import PATTERNS, SHA256, EncodingUnavailableError, load, vocabulary
from extproc.tokens.estimate import TOKEN_BYTES_MAX
from extproc.tokens.normal import MARKS_SEEN, MARKS_STRIDE, bounded_runs, nfc, utf8, well_formed

ENCODINGS = get_args(Encoding)

TEXTS = {
    "english": "The quick brown fox doesn't jump; it's 3.14159 o'clock, they'll say. I'D'VE!",
    "german": "Fünf Ärzte übten größtenteils süße Späße – „maßlos“, hieß es.",
    "french": "L'élève n'a-t-il pas reçu l'œuvre où ça coûte 1\u202f234,56\u00a0€\u00a0?",
    "spanish": "¿Qué pasó, niño? ¡Ándale!",
    "russian": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "turkish": "Pijamalı hasta yağız şoföre çabucak güvendi. İIıi",
    "arabic": "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت",
    "hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "hindi": "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले",
    "thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "chinese": "我能吞下玻璃而不伤身体。視野無限廣,窗外有藍天",
    "japanese": "いろはにほへと ちりぬるを 色は匂へど散りぬるを カタカナ",
    "korean": "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "vietnamese": "Tôi có thể ăn thủy tinh mà không hại gì",
    "decomposed": unicodedata.normalize("NFD", "Việt Nam, été, ñandú, 한국어, Å"),
    "expanding": "\U0001d160\ufb2c\u0958\u0344",
    "emoji": "👩‍👩‍👧‍👦 🇩🇪 ☃️ 👍🏽 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "python": "def f(x: int) -> None:\n\tif x:\n\t\treturn  # done\n\n\nclass A_b2(C):\n    pass\n",
    "c": '#include <stdio.h>\nint main(void) {\r\n  printf("%d\\n", 0x1F);\r\n  return 0;\r\n}\r\n',
    "json": '{"a":[1,2.50,-3e10,null],"b":{"c":"\\u00e9\\n"}}',
    "html": '<div class="x-1"><!-- &nbsp; --></div>\n' * 3,
    "digits": "1 22 333 4444 55555 0123456789012345678901234567890",
    "spaces": "a  b   c \t d\n\n\n  e\r\n \r f" + " " * 200 + "g" + "\n" * 90 + "\t" * 40,
    "punctuation": "!!!???---===...///\\\\\\((([[[{{{}}}]]])))'''\"\"\"```~~~",
    "special": "<|endoftext|><|im_start|>user<|im_end|><|fim_prefix|><|begin_of_text|><|call|>",
    "one letter": "a" * 3000,
    "two letters": "ab" * 1500,
    "zeros": "\0" * 300,
    "controls": "".join(map(chr, range(256))),
    "base64": base64.b64encode(hashlib.sha512(b"x").digest() * 20).decode(),
    "nothing": "",
    "lone surrogates": "a\ud800b\udfff\udfffc\ud800",
    "last characters": "\uffff\U0010ffff\ufeff\u2028\u0085",
    "marks": "a" + "\u0301\u0323" * 40 + "b" + "\u0323" * 100,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_both_engines_count_the_same(encoding: str, text: str) -> None:
    assert load(encoding, "quicktok").count(text) == load(encoding, "tiktoken").count(text)


@pytest.mark.parametrize("encoding", SHA256)
def test_the_vocabulary_is_the_original(encoding: str) -> None:
    """Written out as OpenAI publishes it, it has the hash that tiktoken expects."""
    lines = (
        base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(vocabulary(encoding))
    )

    assert hashlib.sha256(b"".join(lines)).hexdigest() == SHA256[encoding]


def test_the_hashes_are_those_that_tiktoken_expects() -> None:
    source = Path(_tiktoken_ext(), "openai_public.py").read_text()

    for expected in SHA256.values():
        assert expected in source


@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base", "o200k_harmony"])
def test_text_is_cut_as_tiktoken_cuts_it(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    openai_public = importlib.import_module("tiktoken_ext.openai_public")
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: {})

    assert getattr(openai_public, encoding)()["pat_str"] == PATTERNS[encoding]


def test_every_encoding_that_settings_may_name_can_be_loaded() -> None:
    assert set(ENCODINGS) == set(PATTERNS)
    assert [load(encoding).engine for encoding in ENCODINGS] == ["quicktok"] * len(ENCODINGS)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_token_is_longer_than_estimates_take_it_to_be(encoding: str) -> None:
    assert max(map(len, vocabulary(encoding))) == TOKEN_BYTES_MAX


@pytest.mark.parametrize("engine", get_args(encodings.Engine))
def test_special_tokens_are_plain_text(engine: encodings.Engine) -> None:
    assert load("cl100k_base", engine).count("<|endoftext|>") == 7


def test_an_encoding_is_loaded_once() -> None:
    assert load("cl100k_base", "tiktoken") is load("cl100k_base", "tiktoken")
    assert encodings._tokenizer("cl100k_base") is encodings._tokenizer("cl100k_base")


# --- where an engine is missing ---------------------------------------------------------------


@pytest.fixture
def without_quicktok(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take quicktok away, and what is remembered of it."""
    monkeypatch.setattr(encodings, "_quicktok_package", None)
    encodings._tokenizer.cache_clear()
    encodings._by_tiktoken.cache_clear()


@pytest.mark.usefixtures("without_quicktok")
def test_without_quicktok_tiktoken_counts_from_its_own_vocabulary() -> None:
    encoder = load("cl100k_base", "quicktok")

    assert encoder.engine == "tiktoken"
    assert encoder.count("hello <|endoftext|> world") == 8


@pytest.mark.usefixtures("without_quicktok")
def test_without_any_vocabulary_the_error_says_what_was_tried() -> None:
    with pytest.raises(EncodingUnavailableError) as refused:
        load("o200k_base")

    assert str(refused.value) == (
        "o200k_base can't be loaded (quicktok: quicktok is not installed; "
        "tiktoken: no installed package has the vocabulary of o200k_base)"
    )


@pytest.mark.usefixtures("without_quicktok")
def test_a_vocabulary_that_was_changed_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = Path(_tiktoken_ext(), "data", "cl100k_base.tiktoken").read_bytes()
    changed = tmp_path / "cl100k_base.tiktoken"
    changed.write_bytes(original.replace(b"IQ== 0\n", b"IQ== 1\n", 1))
    monkeypatch.setattr(encodings, "_files", lambda _: [changed])

    with pytest.raises(EncodingUnavailableError, match="is not the original vocabulary"):
        load("cl100k_base")


def test_a_broken_quicktok_gives_way_to_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def Tokenizer(self, *_: object) -> None:  # noqa: N802  # quicktok's name
            msg = "corrupt vocabulary"
            raise RuntimeError(msg)

    monkeypatch.setattr(encodings, "_quicktok_package", Broken())
    monkeypatch.setattr(encodings, "vocabulary", encodings._from_file)
    encodings._tokenizer.cache_clear()
    encodings._by_tiktoken.cache_clear()

    assert load("cl100k_base").engine == "tiktoken"


@pytest.mark.parametrize("name", ["", "gpt2", "p50k_base", "../../etc/passwd", "CL100K_BASE"])
def test_an_unknown_encoding_is_refused(name: str) -> None:
    with pytest.raises(EncodingUnavailableError, match="no encoding named"):
        load(name)


def test_loading_neither_writes_nor_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: Any, **_: Any) -> None:
        raise AssertionError(arguments)

    for module, name in ((socket, "socket"), (os, "mkdir"), (os, "rename"), (os, "replace")):
        monkeypatch.setattr(module, name, forbidden)
    for remembered in (encodings._tokenizer, encodings._by_tiktoken):
        remembered.cache_clear()

    assert load("cl100k_base", "quicktok").count("a b") == 2
    assert load("cl100k_base", "tiktoken").count("a b") == 2


# --- normal forms -----------------------------------------------------------------------------

RUN = MARKS_STRIDE * MARKS_SEEN
MARKS = {
    "alternating": "\u0301\u0323",
    "in reverse order": "\u0301\u0328\u0323\u0316\u0334",
    "two in one": "\u0344\u0323",
    "two in one that sort as none": "\u0f73\u0f72\u0f71",
    "of one kind": "\u0301",
    "composing": "\u0323\u0302",
}


@pytest.mark.parametrize("marks", MARKS.values(), ids=MARKS.keys())
@pytest.mark.parametrize("before", ["", "a", "o ", "é" * 7, "\u1100\u1161"])
@pytest.mark.parametrize("length", [1, RUN - 1, RUN, RUN + 1, 3 * RUN])
def test_sorting_runs_of_marks_changes_no_text(marks: str, before: str, length: int) -> None:
    text = (before + (marks * length)[:length] + "z") * 3

    assert unicodedata.normalize("NFC", bounded_runs(text)) == unicodedata.normalize("NFC", text)
    assert nfc(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("marks", MARKS.values(), ids=MARKS.keys())
@pytest.mark.parametrize("offset", range(MARKS_STRIDE))
def test_no_long_run_is_left_to_be_sorted(marks: str, offset: int) -> None:
    """Insertion sort, which encoders do, takes as many steps as there are pairs out of order."""
    text = "é" * offset + (marks * RUN)[:RUN] + "é"

    sorted_text = bounded_runs(text)

    classes = [unicodedata.combining(mark) for mark in sorted_text]
    assert classes[offset:-1] == sorted(classes[offset:-1])


def test_an_encoder_that_normalises_is_given_nothing_to_sort(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Recording:
        def __init__(self) -> None:
            self.given: list[str] = []

        def count(self, text: str) -> int:
            self.given.append(text)
            return 1

    recording = Recording()
    monkeypatch.setattr(encodings, "_tokenizer", lambda _: recording)

    for encoding in ("qwen3", "cl100k_base"):
        load(encoding).count("a" + "\u0301\u0323" * RUN)

    assert recording.given == ["a" + "\u0323" * RUN + "\u0301" * RUN, "a" + "\u0301\u0323" * RUN]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_usual_text_is_left_alone(text: str) -> None:
    if "\u0323\u0323" not in text:
        assert bounded_runs(text) is text


def test_only_samples_of_usual_text_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []
    marks = normal._marks()

    class Recording:
        def search(self, text: str) -> None:
            searched.append(text)

    monkeypatch.setattr(normal, "_marks", lambda: marks._replace(sampled=Recording()))  # type: ignore[arg-type]
    text = TEXTS["hindi"] * 50

    bounded_runs(text)

    assert sum(map(len, searched)) <= len(text) // MARKS_STRIDE + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("a\u00e9\U0001f600", "a\u00e9\U0001f600"),
        ("a\ud800b", "a\ufffdb"),
        ("\udfff\ud800", "\ufffd\ufffd"),
    ],
)
def test_lone_surrogates_are_replaced_one_by_one(text: str, expected: str) -> None:
    assert well_formed(text) == expected
    assert utf8(text) == expected.encode()


def _tiktoken_ext() -> str:
    found = importlib.util.find_spec("tiktoken_ext")
    assert found is not None
    assert found.submodule_search_locations is not None
    return next(iter(found.submodule_search_locations))
