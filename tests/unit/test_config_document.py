"""extproc/config/document.py"""

import itertools
from decimal import Decimal

import pytest

from extproc.config.document import (
    ALIASED_NODES_MAX,
    DEPTH_MAX,
    SETTINGS_BYTES_MAX,
    read_document,
)
from extproc.config.problems import ConfigError


def problems_of(text: str) -> list[str]:
    try:
        document = read_document(text)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return [str(finding.as_problem()) for finding in document.findings]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param("0.1", Decimal("0.1"), id="a tenth is a tenth"),
        pytest.param("0.30000000000000004", Decimal("0.30000000000000004"), id="to the last digit"),
        pytest.param("60", Decimal(60), id="whole numbers"),
        pytest.param("-1", Decimal(-1), id="below zero"),
        pytest.param("+.5", Decimal("0.5"), id="without a zero in front"),
        pytest.param("1e3", Decimal(1000), id="with an exponent and no point"),
        pytest.param("true", True, id="true is a boolean"),
        pytest.param("False", False, id="so is False"),
        pytest.param("on", "on", id="on is text"),
        pytest.param("No", "No", id="the code of Norway is text"),
        pytest.param("y", "y", id="y is text"),
        pytest.param("010", "010", id="no octal numbers"),
        pytest.param("0x10", "0x10", id="no hexadecimal ones"),
        pytest.param("1_000", "1_000", id="no grouped digits"),
        pytest.param("12:30", "12:30", id="no sexagesimal numbers"),
        pytest.param("2026-01-01", "2026-01-01", id="no dates"),
        pytest.param("1.2.3", "1.2.3", id="no versions"),
        pytest.param('"1"', "1", id="what is quoted is text"),
        pytest.param("'true'", "true", id="in either quotes"),
        pytest.param("null", None, id="null is nothing"),
        pytest.param("~", None, id="so is a tilde"),
        pytest.param("", None, id="so is an empty place"),
    ],
)
def test_a_plain_scalar(written: str, meant: object) -> None:
    tree = read_document(f"a: {written}").tree

    assert tree == {"a": meant}
    assert type(tree["a"]) is type(meant)


def test_what_is_not_a_finite_number_is_read_as_that() -> None:
    tree = read_document("[.inf, -.INF, .nan]").tree

    assert [str(value) for value in tree] == ["Infinity", "-Infinity", "NaN"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n",
            ["$.b.c: given twice, on lines 3 and 5"],
            id="a key given twice, with its place and lines",
        ),
        pytest.param(
            "a.b: 1\n'a.b': 2",
            ['$["a.b"]: given twice, on lines 1 and 2'],
            id="in other quotes it is the same key",
        ),
        pytest.param(
            "a: {1: x}",
            ['$.a: line 1: a key must be text; quote "1"'],
            id="a number as a key",
        ),
        pytest.param(
            "true: x", ['$: line 1: a key must be text; quote "true"'], id="a boolean as a key"
        ),
        pytest.param("on: x", [], id="on is a key like others"),
        pytest.param("? ~\n: x", ['$: line 1: a key must be text; quote "~"'], id="no key"),
        pytest.param("? [a]\n: x", ["$: line 1: a key must be text"], id="a list as a key"),
        pytest.param(
            "!!str a: x", ['$: line 1: a key must be text; quote "a"'], id="a tag on a key"
        ),
        pytest.param(
            "a: &x {b: 1}\nc:\n  <<: *x",
            ["$.c: line 3: merge keys (<<) are not taken; repeat the settings"],
            id="a merge key",
        ),
        pytest.param('"<<": 1', [], id="unless it is quoted"),
        pytest.param(
            "a: !!python/object:os.system [x]",
            ["$.a: line 1: tags are not taken; leave it out"],
            id="a tag",
        ),
        pytest.param(
            "a: 1\n---\na: 2",
            ["$: line 2: a second document; settings are one"],
            id="a second document",
        ),
        pytest.param(
            "a:\n\t- b",
            ["$: line 2, column 1: found character that cannot start any token"],
            id="a tab has a line and a column",
        ),
        pytest.param(
            "a: b\nc: d: e",
            ["$: line 2, column 5: mapping values are not allowed in this context"],
            id="so has any wrong syntax",
        ),
        pytest.param(
            "a: 1\na: 2\nc: [",
            [
                "$.a: given twice, on lines 1 and 2",
                "$: line 4, column 1: did not find expected node content",
            ],
            id="what was found before wrong syntax is told too",
        ),
        pytest.param("a: \x00", ["$: control characters are not allowed"], id="a NUL"),
        pytest.param("a: \ud800", ["$: not Unicode text"], id="half a character"),
        pytest.param(
            "a: *b",
            ["$: line 1: the anchor of this alias does not stand before it"],
            id="an alias of nothing",
        ),
        pytest.param(
            "a: &a [*a]",
            ["$: line 1: the anchor of this alias does not stand before it"],
            id="an alias of what it stands in",
        ),
    ],
)
def test_it_finds(text: str, expected: list[str]) -> None:
    assert problems_of(text) == expected


def test_the_first_of_two_equal_keys_is_kept() -> None:
    assert read_document("a: 1\na: 2").tree == {"a": Decimal(1)}


def test_aliases_repeat_what_they_name() -> None:
    tree = read_document("&k a: &x [1, {b: c}]\nd: *x\ne: *k").tree

    assert tree["d"] == tree["a"] == [Decimal(1), {"b": "c"}]
    assert tree["e"] == "a"


def test_an_empty_file_says_nothing() -> None:
    assert read_document("").tree is None
    assert read_document("# nothing yet\n").tree is None


def test_aliases_of_aliases_are_stopped_before_they_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for number in range(1, 30):
        ten = ", ".join(10 * [f"*a{number - 1}"])
        lines += [f"a{number}: &a{number} [{ten}]"]

    assert problems_of("\n".join(lines)) == [
        f"$: line 5: aliases repeat more than {ALIASED_NODES_MAX} nodes"
    ]


def test_deep_nesting_is_stopped() -> None:
    assert problems_of("[" * DEPTH_MAX + "]" * DEPTH_MAX) == []
    for opened, closed in (("[", "]"), ("{a: ", "}"), ("? [", "]")):
        deep = opened * 100_000 + closed * 100_000
        assert problems_of(deep)[-1] == f"$: line 1: nested deeper than {DEPTH_MAX} levels"


def test_a_large_file_is_refused_unread() -> None:
    text = "x" * (SETTINGS_BYTES_MAX + 1)

    assert problems_of(text) == [
        f"$: {SETTINGS_BYTES_MAX + 1} bytes; a file may have up to {SETTINGS_BYTES_MAX}"
    ]


def test_keys_that_are_secret_go_by_their_line() -> None:
    document = read_document("sk-1: a\nsk-1: b\n5: c\n!t sk-2: d", are_keys_secret=True)

    assert [str(finding.as_problem()) for finding in document.findings] == [
        '$["line 2"]: given twice, on lines 1 and 2',
        "$: line 3: a key must be text; quote it",
        "$: line 4: a key must be text; quote it",
    ]
    assert document.lines == {"sk-1": 1, "5": 3, "sk-2": 4}


def test_every_way_to_write_a_number_is_exact() -> None:
    for sign, whole, part, power in itertools.product(
        ("", "-", "+"), ("0", "7", "123456789012345678"), ("", ".", ".05"), ("", "e2", "E-3")
    ):
        written = f"{sign}{whole}{part}{power}"
        assert read_document(f"- {written}").tree == [Decimal(written)]
