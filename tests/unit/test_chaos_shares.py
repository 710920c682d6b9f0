"""chaos/shares.py: an answer too many and a refusal too many are seen."""

import pytest

from chaos.shares import admitted_of, beyond_of, overshoot_of, phantoms_of
from chaos.traffic import CHAT
from extproc.demo.books import Answer


def answer(tenant: str, status: int) -> Answer:
    return Answer(
        step="s", adapter="a", path=CHAT, tenant=tenant, model="m", estimate=1, status=status
    )


def test_what_models_answered_counts_and_errors_do_not() -> None:
    answers = [answer("acme", 200), answer("acme", 200), answer("acme", 503), answer("umbra", 0)]

    assert admitted_of(answers) == {"acme": 2}


@pytest.mark.parametrize(("admitted", "beyond"), [(0, 0), (9, 0), (10, 0), (11, 1), (25, 15)])
def test_where_all_had_their_store_overshoot_is_what_is_beyond_the_limit(
    admitted: int, beyond: int
) -> None:
    assert beyond_of(admitted, 10) == beyond
    assert overshoot_of(admitted, 10, replicas=3, without_store=0) == beyond


@pytest.mark.parametrize(("admitted", "beyond"), [(16, 0), (17, 1)])
def test_each_that_was_without_may_let_in_its_share(admitted: int, beyond: int) -> None:
    assert overshoot_of(admitted, 10, replicas=3, without_store=2) == beyond


@pytest.mark.parametrize(("charged", "refused"), [(10, 0), (9, 1), (0, 10), (11, 0)])
def test_a_phantom_is_room_that_nobody_could_have(charged: int, refused: int) -> None:
    assert phantoms_of(charged, 10) == refused
