"""What is made from templates is as they would make it now, and files say what they are for."""

from pathlib import Path

import pytest

from tests.manifests.generate import ISTIO, rendered

MADE = rendered()
OURS = sorted(
    path for path in (*ISTIO.rglob("*.yaml"), *ISTIO.rglob("*.template")) if path.is_file()
)


@pytest.mark.parametrize("path", MADE, ids=str)
def test_a_copy_is_fresh(path: Path) -> None:
    assert (ISTIO / path).read_text() == MADE[path], "python -m tests.manifests.generate"


def test_every_file_that_says_it_is_made_is_made() -> None:
    claimed = {path.relative_to(ISTIO) for path in OURS if "# Made by" in path.read_text()}

    assert claimed == set(MADE)


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ISTIO)))
def test_a_file_begins_with_why_it_exists_and_how_to_take_it_out(path: Path) -> None:
    comment = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        comment.append(line)
    text = "\n".join(comment)

    assert "Why:" in text or path.name == "rules.yaml"  # which says it in other words
    assert "To take it out again" in text or "@OUT" in text
