"""chaos/__main__.py: a run fails for each thing that is not well, and for nothing else."""

import pytest

from chaos.__main__ import problems
from chaos.cases import KILLS

WELL: dict[str, int | str] = {
    "requests": 2000,
    "lost": 0,
    "charged_twice": 0,
    "differences": 0,
    "logs_dropped": 0,
    "still_held": 0,
    "expired": 3,
    "unacknowledged_kills": KILLS,
    "unacknowledged_charged_twice": 0,
    "cut_off_dropped": 0,
    "forgotten_charged_right": 1,
    "drained_lost": 0,
    "envoy_killed_expired": 9,
    "envoy_killed_expired_and_charged": 9,
    "envoy_killed_lost": 0,
    "old_way_lost": 100,
    "overshoot": 0,
    "beyond_while_away": 3,
    "phantom_refusals": 0,
    "replicated_cut": "not cut: not root",
    "replicated_lost": 0,
    "replicated_expired": 3,
    "replicated_replicas_unasked": 0,
    "replicated_replays_failed": 0,
    "replicated_kills_mid_stream": 2,
    "replicated_still_leased": 0,
    "replicated_never_charged_again": 0,
}


def test_a_run_in_which_only_the_old_way_loses_is_well() -> None:
    assert problems(WELL) == []


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("lost", 1),
        ("charged_twice", 1),
        ("differences", 1),
        ("logs_dropped", 1),
        ("still_held", 1),
        ("unacknowledged_kills", KILLS - 1),
        ("unacknowledged_charged_twice", 1),
        ("cut_off_dropped", 1),
        ("forgotten_charged_right", 0),
        ("drained_lost", 1),
        ("envoy_killed_expired_and_charged", 8),
        ("envoy_killed_lost", 1),
        ("overshoot", 1),
        ("phantom_refusals", 1),
        ("replicated_lost", 1),
        ("replicated_replicas_unasked", 1),
        ("replicated_replays_failed", 1),
        ("replicated_kills_mid_stream", 0),
        ("replicated_still_leased", 1),
        ("replicated_never_charged_again", 1),
        pytest.param("old_way_lost", 0, id="a harness that can't see losses proves nothing"),
    ],
)
def test_anything_else_is_not(name: str, number: int) -> None:
    assert problems(WELL | {name: number}) == [name]
