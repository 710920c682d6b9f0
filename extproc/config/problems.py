"""What is wrong with the settings, where, and what would be right. No problem tells a secret."""

import difflib
import json
import re
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

Steps = tuple[str | int, ...]
"""The way to a setting from the top of the file: keys, and numbers of list items."""

UNKNOWN_KEY: Final = "?"
"""Stands in `Finding.needs` for: no key here that we don't know, whatever it was meant to be."""

SHOWN_CHARS_MAX: Final = 80
SHOWN_CHARS_OF_SECRET: Final = 8
NAMES_LISTED_MAX: Final = 10
NAMES_COMPARED_MAX: Final = 200
"""A hint must not make a file of thousands of mistakes slow to refuse."""

_HASH = re.compile("[0-9A-Fa-f]{40}")
_PLAIN_KEY = re.compile("[A-Za-z_][A-Za-z0-9_-]*")


class Problem(NamedTuple):
    """One mistake. Prints as the line an operator reads."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigError(Exception):
    """The settings are refused; `problems` is all that is wrong with them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Finding(NamedTuple):
    """A problem with the setting `at`, concluded from what stands there and at `needs`.

    It counts only where those could be read: what follows from a mistake is not another.
    """

    at: Steps
    message: str
    needs: tuple[Steps, ...] = ()

    def as_problem(self) -> Problem:
        """Write the way to the setting as `$.path`."""
        return Problem(path_text(self.at), self.message)


def path_text(steps: Steps) -> str:
    """Write `steps` as `$.tenants.acme.budgets[0]`; keys that are no plain words in quotes."""
    return "$" + "".join(_step_text(step) for step in steps)


def _step_text(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return (
        f".{step}" if _PLAIN_KEY.fullmatch(step) and not _is_hidden(step) else f"[{quoted(step)}]"
    )


def quoted(text: str) -> str:
    """Quote `text` from the file, or only its beginning where it may be a secret."""
    scheme, has_scheme, _ = text.partition("://")
    if has_scheme:  # May hold a password.
        text = f"{scheme[:SHOWN_CHARS_OF_SECRET]}://…"
    elif _is_hidden(text):
        text = f"{text[:SHOWN_CHARS_OF_SECRET]}…"
    return "".join(_visible(one) for one in json.dumps(text, ensure_ascii=False))


def _visible(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def _is_hidden(text: str) -> bool:
    return len(text) > SHOWN_CHARS_MAX or _HASH.search(text) is not None


def meant(name: str, known: Iterable[str]) -> str:
    """Say which of the `known` names was meant, or which there are."""
    names = list(islice(known, NAMES_COMPARED_MAX))
    near = did_you_mean(name, names)
    if near:
        return f"did you mean {quoted(near)}?"
    if not names:
        return "there is none"
    more = ", …" if len(names) > NAMES_LISTED_MAX else ""
    return f"there is {listed(names[:NAMES_LISTED_MAX])}{more}"


def did_you_mean(name: str, names: list[str]) -> str | None:
    """Return the one of `names` that looks most like `name`, if any does."""
    near = difflib.get_close_matches(name[:SHOWN_CHARS_MAX], names, n=1)
    return near[0] if near else None


def listed(names: Iterable[str]) -> str:
    """Quote each name and put commas between."""
    return ", ".join(quoted(name) for name in names)
