"""House rules that no linter knows."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = "_pb2"
SOURCES = sorted(path for path in (ROOT / "extproc").rglob("*.py") if GENERATED not in path.name)
LINES_PER_MODULE_MAX = 320
LINES_PER_FUNCTION_MAX = 60


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_small_enough_to_read(path: Path) -> None:
    text = path.read_text()

    assert text.count("\n") <= LINES_PER_MODULE_MAX, "split the module by subject"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= LINES_PER_FUNCTION_MAX, f"{node.name}: {lines} lines"


def test_every_document_that_is_linked_exists() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in page.read_text().split("](")[1:]:
            name = target.partition(")")[0].partition("#")[0]
            if name and "://" not in name:
                assert (page.parent / name).exists(), f"{page.name}: {name}"
