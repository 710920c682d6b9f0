"""extproc/mesh/lint: each rule finds its bad example, and nothing in its good one."""

from pathlib import Path

import pytest

from extproc.mesh.lint.lint import lint_paths
from extproc.mesh.lint.rules import RULES

EXAMPLES = Path(__file__).parents[1] / "mesh_lint"
NAMES = [rule.name for rule in RULES]


def found_in(path: Path) -> set[str]:
    return {finding.rule for finding in lint_paths([path])}


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_example_breaks_its_rule_and_no_other(name: str) -> None:
    assert found_in(EXAMPLES / name / "bad.yaml") == {name}


@pytest.mark.parametrize("name", NAMES)
def test_a_good_example_is_clean(name: str) -> None:
    assert found_in(EXAMPLES / name / "good.yaml") == set()


def test_every_example_is_of_a_rule() -> None:
    assert {folder.name for folder in EXAMPLES.iterdir() if folder.is_dir()} == set(NAMES)
    assert len(NAMES) == len(set(NAMES))
