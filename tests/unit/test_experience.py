"""extproc/policy/experience.py."""

import msgspec
import pytest

from extproc.policy.experience import (
    ANSWERS_MIN,
    RATIO_MAX,
    RATIO_MIN,
    Experience,
    after,
    corrected,
    scale_correction,
)
from extproc.policy.models import Model

EXACT = Model(encoding="cl100k_base", context_tokens=8192, output_tokens_max=4096)
SCALED = msgspec.structs.replace(EXACT, scale=1.25, output_tokens_expected=300)


def taught(times: int, *, estimated: int, actual: int, output: int | None = None) -> Experience:
    known = Experience()
    for _ in range(times):
        known = after(known, estimated=estimated, actual=actual, output_tokens=output)
    return known


def test_the_ratio_is_the_average_of_what_was_seen() -> None:
    known = after(Experience(), estimated=100, actual=110, output_tokens=None)
    known = after(known, estimated=100, actual=130, output_tokens=None)

    assert known.prompt_ratio == pytest.approx(1.2)
    assert known.answers == 2


def test_old_answers_fade() -> None:
    known = taught(500, estimated=100, actual=100)
    for _ in range(200):
        known = after(known, estimated=100, actual=150, output_tokens=None)

    assert known.prompt_ratio == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize(("actual", "bound"), [(1_000_000, RATIO_MAX), (1, RATIO_MIN)])
def test_no_answer_moves_it_out_of_bounds(actual: int, bound: float) -> None:
    assert taught(50, estimated=1000, actual=actual).prompt_ratio == bound


def test_a_prompt_without_tokens_teaches_nothing() -> None:
    assert taught(50, estimated=0, actual=7).answers == 0
    assert taught(50, estimated=7, actual=0).answers == 0


def test_a_model_with_a_scale_is_corrected_once_enough_is_known() -> None:
    few = taught(ANSWERS_MIN - 1, estimated=100, actual=120)
    enough = taught(ANSWERS_MIN, estimated=100, actual=120)

    assert corrected({"m": SCALED}, {"m": few})["m"].scale == 1.25
    assert corrected({"m": SCALED}, {"m": enough})["m"].scale == pytest.approx(1.5)
    assert scale_correction(SCALED, enough) == pytest.approx(1.2)


def test_a_model_that_is_counted_exactly_stays_so() -> None:
    known = taught(100, estimated=100, actual=250)

    assert corrected({"m": EXACT}, {"m": known})["m"] == EXACT


def test_the_expected_answer_is_as_long_as_answers_were() -> None:
    few = taught(ANSWERS_MIN - 1, estimated=1, actual=1, output=900)
    enough = taught(ANSWERS_MIN, estimated=1, actual=1, output=900)

    assert corrected({"m": SCALED}, {"m": few})["m"].output_expected() == 300
    assert corrected({"m": SCALED}, {"m": enough})["m"].output_expected() == 900


def test_it_stays_within_the_models_maximum_and_above_nothing() -> None:
    long = taught(50, estimated=1, actual=1, output=10**6)
    short = taught(50, estimated=1, actual=1, output=0)

    assert corrected({"m": SCALED}, {"m": long})["m"].output_expected() == 4096
    assert corrected({"m": SCALED}, {"m": short})["m"].output_expected() == 1


def test_answers_whose_length_was_named_do_not_teach_it() -> None:
    assert taught(50, estimated=1, actual=1).outputs == 0


def test_models_nobody_has_answered_for_stay_as_they_are() -> None:
    assert corrected({"m": SCALED}, {"other": Experience()}) == {"m": SCALED}


def test_it_survives_being_written_down() -> None:
    known = taught(30, estimated=100, actual=120, output=5)

    assert msgspec.json.decode(msgspec.json.encode(known), type=Experience) == known
