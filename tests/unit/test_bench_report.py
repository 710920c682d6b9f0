"""What benches write down."""

import json
from pathlib import Path

import pytest

from bench.report import Spread, fill_in, ratios, save, spread, table


def test_a_spread_is_the_median_and_what_lies_farthest_from_it() -> None:
    assert spread([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)


def test_ratios_are_of_the_same_round() -> None:
    # Twice as much in each round, though the machine took ten times as long in one.
    assert ratios([2.0, 20.0], [1.0, 10.0]) == Spread(2.0, 2.0, 2.0)


def test_rounds_without_their_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratios([1.0, 2.0], [1.0])


def test_a_spread_is_told_with_so_many_digits() -> None:
    assert Spread(1.26, 1.0, 2.0).text(1) == "1.3 (1.0..2.0)"


def test_a_table_is_put_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n\n<!-- it -->\nold\n<!-- /it -->\nafter\n<!-- other -->\n")

    for _ in range(2):
        fill_in("it", table(["a", "b"], [["1", "2"]]), page=page)

    assert page.read_text() == (
        "before\n\n<!-- it -->\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n<!-- /it -->\nafter\n"
        "<!-- other -->\n"
    )


def test_a_page_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- it -->\nno end\n")

    with pytest.raises(ValueError, match=r"page\.md has no marks for it"):
        fill_in("it", "text", page=page)

    assert page.read_text() == "<!-- it -->\nno end\n"


def test_a_result_can_be_read_again(tmp_path: Path) -> None:
    path = save("peers", {"loads": [1.5, None]}, results=tmp_path / "results")

    assert path == tmp_path / "results" / "peers.json"
    assert json.loads(path.read_text()) == {"loads": [1.5, None]}
