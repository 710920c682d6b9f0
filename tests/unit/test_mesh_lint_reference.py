"""docs/mesh-lint.md is what the table of rules and their examples make."""

from extproc.mesh.lint.reference import PAGE, page


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "python -m extproc.mesh.lint.reference"
