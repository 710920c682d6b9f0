"""extproc/config, whatever it is given: problems or settings, never a traceback, never a secret"""

import copy
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.config.document import read_document
from extproc.config.loader import ConfigError, Loaded
from extproc.config.settings import Settings
from extproc.config.shape import shape_of
from tests.unit.config_good import FILES, GOOD, HASH, problems_in, read, text_of

SECRETS: Final = (HASH, "valkey://me:hunter2@host:6379/0")

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["gold", "large", "default", "memory", "sqlite", "Asia", "(", "x-llm-tier"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(raw: Any) -> Iterator[tuple[Any, Any]]:  # a plain tree
    """Every container in `raw` with each of its keys or numbers."""
    if isinstance(raw, dict | list):
        for step in raw if isinstance(raw, dict) else range(len(raw)):
            yield raw, step
            yield from places(raw[step])


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """GOOD after a few deletions, replacements and new names."""
    raw = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        found = list(places(raw))
        if not found:
            break
        place, step = draw(st.sampled_from(found))
        change = draw(st.sampled_from(["delete", "replace", "rename", "copy"]))
        if change == "replace":
            place[step] = draw(anything)
        elif change == "copy":
            other, there = draw(st.sampled_from(found))
            place[step] = copy.deepcopy(other[there])
        else:
            value = place.pop(step)
            if change == "rename" and isinstance(place, dict):
                place[draw(st.text(max_size=6) | st.sampled_from(sorted(GOOD)))] = value
    return raw


def with_whole_numbers(tree: Any) -> Any:  # a plain tree
    match tree:
        case Decimal():
            return int(tree) if tree == int(tree) else tree
        case list():
            return [with_whole_numbers(one) for one in tree]
        case dict():
            return {name: with_whole_numbers(one) for name, one in tree.items()}
        case _:
            return tree


def outcome_of(text: str) -> Loaded | ConfigError:
    try:
        return read(text)
    except ConfigError as error:
        return error


@settings(deadline=None, max_examples=300)
@given(mutated())
def test_a_mutated_file_is_loaded_or_refused_in_words(raw: dict[str, Any]) -> None:
    outcome = outcome_of(text_of(raw))

    if isinstance(outcome, ConfigError):
        assert outcome.problems
        assert all(str(problem).startswith(("$", "keys.yaml")) for problem in outcome.problems)
        assert all(line.isprintable() for line in str(outcome).split("\n"))


@settings(deadline=None, max_examples=300)
@given(mutated())
def test_what_our_walk_takes_msgspec_takes_for_the_same(raw: dict[str, Any]) -> None:
    tree = read_document(text_of(raw)).tree
    shape = shape_of(Settings, tree)
    converted = msgspec.convert(shape.tree, Settings)

    assert bool(shape.findings) == bool(shape.broken)
    if not shape.findings:
        assert converted == msgspec.convert(with_whole_numbers(tree), Settings)


@settings(deadline=None, max_examples=300)
@given(st.text() | st.text(alphabet="{}[]:,-&*!|>'\"#%@ \n\tab1~?<.\x00", max_size=40))
def test_any_text_is_loaded_or_refused_in_words(text: str) -> None:
    assert isinstance(outcome_of(text), ConfigError)


@settings(deadline=None)
@given(st.integers(0, len(text_of(GOOD))), st.integers(0, 30), st.text(max_size=3))
def test_a_file_with_a_piece_torn_out_is_loaded_or_refused_in_words(
    start: int, length: int, instead: str
) -> None:
    text = text_of(GOOD)

    outcome_of(text[:start] + instead + text[start + length :])


@settings(deadline=None)
@given(st.text(max_size=60) | st.dictionaries(st.text(max_size=70), anything).map(text_of))
def test_any_file_of_keys_is_read_or_refused_in_words(keys: str) -> None:
    for problem in problems_in(text_of(GOOD), {"keys.yaml": keys}):
        assert problem.startswith("keys.yaml")


@pytest.mark.parametrize("secret", SECRETS)
def test_no_problem_tells_a_secret_that_stands_in_a_wrong_place(secret: str) -> None:
    for number, (_, step) in enumerate(places(GOOD)):
        for is_key in (False, True):
            raw = copy.deepcopy(GOOD)
            place, _ = list(places(raw))[number]
            if not is_key:
                place[step] = secret
            elif isinstance(place, dict):
                place[secret] = place.pop(step)
            told = "\n".join(problems_in(text_of(raw)))
            assert secret not in told
            assert "hunter2" not in told


@pytest.mark.parametrize(
    "keys",
    [
        "sk-live-secret: acme",
        "acme: sk-live-secret",
        "sk-live-secret: acme\nsk-live-secret: acme",
        "? [sk-live-secret]\n: acme",
        "!sk-live-secret x: acme",
        "*sk-live-secret : acme",
        "sk-live-secret: [",
        "[sk-live-secret]",
        "&sk-live-secret a: sk-live-secret\nb: *c",
    ],
)
def test_no_problem_tells_a_key(keys: str) -> None:
    problems = problems_in(text_of(GOOD), {"keys.yaml": keys})

    assert problems
    assert "sk-live" not in "\n".join(problems)
    assert FILES["keys.yaml"] not in "\n".join(problems)
