"""Load the settings: a file's text into the frozen tree, or every problem in it at once.

First the text (`document`), then each setting's type (`shape`), then how settings go
together (`names`, `amounts`, `rules`, `ledger_rules`). A mistake does
not keep the later steps from running: they look past it.
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from extproc.config.amounts import check_amounts
from extproc.config.document import SETTINGS_BYTES_MAX, read_document
from extproc.config.keys import read_keys
from extproc.config.ledger_rules import check_ledger
from extproc.config.names import check_names
from extproc.config.problems import ConfigError, Finding, Problem, Steps
from extproc.config.rules import check_rules
from extproc.config.settings import Settings
from extproc.config.shape import Shape, shape_of

__all__ = ["ConfigError", "Loaded", "Problem", "load", "load_file", "read_text"]


class Loaded(NamedTuple):
    """Sound settings, and the API keys they name: SHA-256 in lower-case hex to tenant."""

    settings: Settings
    keys: Mapping[str, str]


def load(text: str, *, read_file: Callable[[str], str]) -> Loaded:
    """Load the settings in `text`; `read_file` reads the files that it names.

    `read_file` raises OSError or UnicodeDecodeError for a file that it can't read.

    Raises:
        ConfigError: the settings are wrong; it holds every problem.
    """
    document = read_document(text)
    shape = shape_of(Settings, document.tree)
    settings = msgspec.convert(shape.tree, Settings)
    told = {finding.at for finding in document.findings}
    findings = [
        *document.findings,
        *(finding for finding in shape.findings if finding.at not in told),
        *(finding for finding in _conclusions(settings) if _stands(finding, shape.broken)),
    ]
    keys: dict[str, str] = {}
    problems = [finding.as_problem() for finding in findings]
    problems += _read_key_files(settings, shape, read_file, keys)
    if problems:
        raise ConfigError(problems)
    return Loaded(settings, keys)


def read_text(path: Path) -> str:
    """Read a file whole.

    Raises:
        OSError: it can't be read, or is too large.
        UnicodeDecodeError: it is no UTF-8.
    """
    with path.open("rb") as file:
        data = file.read(SETTINGS_BYTES_MAX + 1)
    if len(data) > SETTINGS_BYTES_MAX:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data.decode()


def load_file(path: Path, *, read: Callable[[Path], str] = read_text) -> Loaded:
    """Load the settings file at `path`; the files it names are found from its directory.

    Raises:
        ConfigError: the settings are wrong, or can't be read; it holds every problem.
    """
    try:
        text = read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), _unreadable(error))]) from None
    return load(text, read_file=lambda name: read(path.parent / name))


def _conclusions(settings: Settings) -> Iterator[Finding]:
    return chain(
        check_names(settings),
        check_amounts(settings),
        check_rules(settings),
        check_ledger(settings),
    )


def _stands(finding: Finding, broken: frozenset[Steps]) -> bool:
    """Whether nothing that the finding was concluded from is a stand-in."""
    return not broken or not any(
        steps[:length] in broken
        for steps in (finding.at, *finding.needs)
        for length in range(len(steps) + 1)
    )


def _read_key_files(
    settings: Settings, shape: Shape, read_file: Callable[[str], str], keys: dict[str, str]
) -> Iterator[Problem]:
    """Read each file of API keys into `keys`; yield what is wrong with it."""
    names: set[str] = set()
    are_tenants_known = _stands(Finding(("tenants",), ""), shape.broken)
    for number, source in enumerate(settings.identity):
        at = ("identity", number, "api_key", "file")
        if source.api_key is None or not _stands(Finding(at, ""), shape.broken):
            continue
        name = source.api_key.file
        if name in names:
            continue
        names.add(name)
        try:
            text = read_file(name)
        except (OSError, UnicodeDecodeError) as error:
            yield Finding(at, _unreadable(error)).as_problem()
            continue
        read = read_keys(text, name=name, tenants=settings.tenants if are_tenants_known else None)
        yield from read.problems
        if any(keys.get(key, tenant) != tenant for key, tenant in read.tenants.items()):
            yield Problem(name, "gives a key that another file gives, to another tenant")
        keys.update(read.tenants)


def _unreadable(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        line = error.object[: error.start].count(b"\n") + 1
        return f"line {line}: not UTF-8"
    return f"can't be read: {error.strerror or type(error).__name__}"
