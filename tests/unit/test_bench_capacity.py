"""The formula of docs/capacity.md."""

import pytest

from bench.capacity import Cost, fitted


def test_points_on_a_line_are_told_as_they_are() -> None:
    found = fitted([(tokens, 400 + 0.2 * tokens) for tokens in (10, 500, 40_000)])

    assert found == pytest.approx(Cost(400, 0.2))


def test_small_requests_count_as_much_as_large_ones() -> None:
    # By absolute errors the last point alone would say how dear a request is: less than nothing.
    points = [(10.0, 400.0), (20.0, 402.0), (40_000.0, 20_000.0)]

    assert fitted(points).of(10) == pytest.approx(400, rel=0.01)
