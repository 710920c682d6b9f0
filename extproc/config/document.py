"""YAML text into a plain tree: `dict`, `list`, `str`, `bool`, `int`, `Decimal` and None.

Stricter than YAML, since what is read otherwise than it was meant becomes a wrong limit:

1.  Plain scalars mean what YAML 1.2 says: `true` and `false` are booleans; `on`, `off`, `yes`
    and `no` are text, and so are `010`, `1_000` and `1:30`, which readers disagree about.
2.  Numbers are exact: `0.1` is Decimal("0.1") and never a binary fraction.
3.  A key stands once in its mapping, and is text.
4.  Tags and merge keys (`<<`) are refused; aliases are taken, as far as they stay small.
5.  All that grows has a named limit.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, NamedTuple, NoReturn

import yaml

from extproc.config.problems import ConfigError, Finding, Problem, Steps, quoted

Tree = Any
"""Plain values: what a file says before anybody looked at it."""
Event = Any
"""PyYAML's; they have no common type that tells their fields."""

SETTINGS_BYTES_MAX: Final = 16 << 20
DEPTH_MAX: Final = 32
ALIASED_NODES_MAX: Final = 100_000
"""How many nodes all aliases together may repeat."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True} | {
    "false": False,
    "False": False,
    "FALSE": False,
}
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]{1,9})?")
_NUMBER_BEGINS: Final = frozenset("+-.0123456789")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class Document(NamedTuple):
    """What a file says, and what can't be read in it."""

    tree: Tree
    findings: tuple[Finding, ...]
    lines: dict[str, int]
    """The line of each key at the top."""


def read_document(text: str, *, are_keys_secret: bool = False) -> Document:
    """Read the one document in `text`. With `are_keys_secret` no key is named in a finding.

    Raises:
        ConfigError: this is no YAML, or more of it than we take.
    """
    _check_size(text)
    reader = _Reader(are_keys_secret=are_keys_secret)
    try:
        tree = reader.read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reader.stop(f"{where}{error.problem or error.context}")
    except yaml.YAMLError as error:
        reader.stop(f"{getattr(error, 'reason', None) or 'not YAML'}")
    return Document(tree, tuple(reader.findings), reader.lines)


def _check_size(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigError([Problem("$", "not Unicode text")]) from None
    if size > SETTINGS_BYTES_MAX:
        message = f"{size} bytes; a file may have up to {SETTINGS_BYTES_MAX}"
        raise ConfigError([Problem("$", message)])


class _Reader:
    """Builds the tree from the parser's events; recursion is bounded by DEPTH_MAX."""

    def __init__(self, *, are_keys_secret: bool) -> None:
        self.findings: list[Finding] = []
        self.lines: dict[str, int] = {}
        self._are_keys_secret = are_keys_secret
        self._events: Iterator[Event] = iter(())
        self._anchors: dict[str, tuple[Tree, int]] = {}
        self._nodes = 0
        self._aliased_nodes = 0

    def read(self, text: str) -> Tree:
        self._events = yaml.parse(text, Loader=_LOADER)
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        tree = self._node(next(self._events), ())
        next(self._events)
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            self.stop(f"{_line(after)}: a second document; settings are one")
        return tree

    def stop(self, message: str) -> NoReturn:
        """Give up, with all that was found until here.

        Raises:
            ConfigError: always.
        """
        problems = [finding.as_problem() for finding in self.findings]
        raise ConfigError([*problems, Problem("$", message)])

    def _node(self, event: Event, at: Steps) -> Tree:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if len(at) > DEPTH_MAX:
            self.stop(f"{_line(event)}: nested deeper than {DEPTH_MAX} levels")
        before = self._nodes
        self._nodes += 1
        if event.tag is not None:
            self.findings.append(Finding(at, f"{_line(event)}: tags are not taken; leave it out"))
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(at)
        else:
            value = self._mapping(at)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._nodes - before)
        return value

    def _alias(self, event: Event) -> Tree:
        if event.anchor not in self._anchors:
            self.stop(f"{_line(event)}: the anchor of this alias does not stand before it")
        value, nodes = self._anchors[event.anchor]
        self._nodes += nodes
        self._aliased_nodes += nodes
        if self._aliased_nodes > ALIASED_NODES_MAX:
            self.stop(f"{_line(event)}: aliases repeat more than {ALIASED_NODES_MAX} nodes")
        return value

    def _sequence(self, at: Steps) -> list[Tree]:
        items: list[Tree] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*at, len(items))))
        return items

    def _mapping(self, at: Steps) -> dict[str, Tree]:
        entries: dict[str, Tree] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            key = self._key(event, at)
            step = f"line {line}" if self._are_keys_secret or key is None else key
            value = self._node(next(self._events), (*at, step))
            if key in lines:
                message = f"given twice, on lines {lines[key]} and {line}"
                self.findings.append(Finding((*at, step), message))
            elif key is not None:
                entries[key] = value
                lines[key] = line
        if not at:
            self.lines = lines
        return entries

    def _key(self, event: Event, at: Steps) -> str | None:
        """Return the key, or None for one that can't be read."""
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, (*at, "?"))
            self.findings.append(Finding(at, f"{_line(event)}: a key must be text"))
            return None
        key: str = event.value
        if key == "<<" and event.implicit[0]:
            message = f"{_line(event)}: merge keys (<<) are not taken; repeat the settings"
            self.findings.append(Finding(at, message))
            return None
        if event.tag is not None or not isinstance(_scalar(event), str):
            shown = "it" if self._are_keys_secret else quoted(key)
            message = f"{_line(event)}: a key must be text; quote {shown}"
            self.findings.append(Finding(at, message))
        if event.anchor is not None:
            self._anchors[event.anchor] = (key, 1)
        return key


def _scalar(event: Event) -> Tree:
    is_plain = event.tag is None and event.implicit[0]
    return _plain(event.value) if is_plain else event.value


def _plain(text: str) -> str | bool | Decimal | None:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text[0] not in _NUMBER_BEGINS:
        return text
    if _NOT_FINITE.fullmatch(text):
        return Decimal(text.replace(".", ""))
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    return text


def _line(event: Event) -> str:
    return f"line {event.start_mark.line + 1}"
