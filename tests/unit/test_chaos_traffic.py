"""chaos/traffic.py and chaos/disruptions.py: a seed draws the same again, and all there is."""

import json
import random
from collections import Counter
from itertools import islice

from chaos.disruptions import Disruption, drawn
from chaos.traffic import FICKLE, LEAVES_AT_ONCE, STAYS, STEADY, TENANTS, calls


def test_a_seed_draws_the_same_calls_again() -> None:
    first, second = (list(islice(calls(7), 200)) for _ in range(2))

    assert first == second
    assert first != list(islice(calls(8), 200))
    assert len({call.step for call in first}) == 200


def test_two_thousand_calls_are_of_every_kind() -> None:
    drawn_calls = list(islice(calls(1), 2000))

    assert {call.tenant for call in drawn_calls} == set(TENANTS)
    assert len(Counter(call.path for call in drawn_calls)) == 7
    errors = Counter(call.headers.get("x-adapter-status") for call in drawn_calls)
    assert errors.keys() == {None, "429", "500", "503"}
    left = [call.leaves_after for call in drawn_calls if call.leaves_after != STAYS]
    assert LEAVES_AT_ONCE in left
    assert max(left) > 20
    streamed = [b'"stream": true' in call.body for call in drawn_calls]
    assert 0.3 < sum(streamed) / len(streamed) < 0.7


def test_steady_clients_stay_and_are_told_what_they_owe() -> None:
    for call in islice(calls(1, tenants=STEADY), 1000):
        assert call.leaves_after == STAYS
        assert call.headers.get("x-adapter-usage") != "missing"
        assert call.headers.get("x-adapter-reset", "start") == "start"


def test_whoever_may_leave_is_told_no_details() -> None:
    """Else nobody could say what the tokens that they saw cost."""
    for call in islice(calls(1, tenants=FICKLE), 1000):
        assert call.leaves_after == STAYS or "x-adapter-usage" not in call.headers


def test_bodies_are_json_but_for_a_few() -> None:
    broken = 0
    for call in islice(calls(1), 1000):
        try:
            json.loads(call.body)
        except ValueError:
            broken += 1

    assert 0 < broken < 30


def test_disruptions_come_as_often_as_wanted_in_an_order_of_the_seed() -> None:
    wanted: dict[Disruption, int] = {"killed": 3, "stopped": 2, "terminated": 1}

    dice = [random.Random(seed) for seed in (1, 1, 2)]  # noqa: S311  # nothing is kept secret
    orders = [drawn(one, wanted) for one in dice]

    assert Counter(orders[0]) == wanted
    assert orders[0] == orders[1] != orders[2]
