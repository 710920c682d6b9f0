"""extproc/telemetry/recent.py: the last minutes, in bounds, and by the clock that is given."""

import asyncio
import itertools
import random
from typing import Any

import pytest

from extproc.exchange.outcome import Noted, Outcome, Place, Timing, Trace
from extproc.exchange.settling import Bill, Kind, Source, Summary
from extproc.llm.usage import Usage
from extproc.policy.budgets import Settled
from extproc.telemetry.recent import (
    BURNS_MAX,
    CLUSTERS_MAX,
    MODELS_MAX,
    NEWS_MAX,
    REASON_CHARS_MAX,
    Burn,
    Recent,
    TierUse,
)
from extproc.telemetry.recent_parts import encoded, together
from extproc.telemetry.recent_slots import OTHER, Amounts, Kept, Spread
from tests.ledger_books import NOON, Clock

HELD = "minute tokens 1234 600 1789041600;month usd 9000 8000 1788220800"


def call(  # noqa: PLR0913  # each of them is an example
    *,
    model: str = "gpt-4",
    usage: Usage = Usage(80, 100),  # noqa: B008  # a value
    source: Source = "usage",
    settled: Settled | None = "settled",
    first_seconds: float | None = 0.5,
    seconds: float = 2.5,
    status: int = 200,
    cluster: str = "gpt4-adapter",
    **noted: Any,
) -> Summary:
    known = {"tenant": "acme", "tier": "premium", "stream": True, "reservation": "r1"}
    about = Noted(**{"outcome": "routed", "reserved": HELD, **known, **noted})
    outcome = ended(about, first_seconds, seconds, status, cluster)
    return Summary(outcome, "call", Bill(source, model, usage, 7000), settled)


def ended(
    noted: Noted, first_seconds: float | None, seconds: float, status: int, cluster: str
) -> Outcome:
    first = None if first_seconds is None else round(first_seconds * 1e6)
    return Outcome(
        stream_id="s",
        started=NOON - seconds,
        method="POST",
        path="/",
        status=status,
        flags="-",
        details="",
        bytes_received=1,
        bytes_sent=1,
        noted=noted,
        place=Place("route", cluster, "10.0.0.1:80", "", 1) if cluster else Place(),
        timing=Timing(0, 0, first, None, round(seconds * 1e6)),
        trace=Trace(),
    )


def other(
    kind: Kind = "other", seconds: float = 1.0, status: int = 200, cluster: str = "", **noted: Any
) -> Summary:
    return Summary(ended(Noted(**noted), None, seconds, status, cluster), kind, None, None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recent(clock: Clock) -> Recent:
    return Recent(clock)


def test_a_model_has_its_pace_and_its_first_token(recent: Recent) -> None:
    for _ in range(9):
        recent.observe(call())
    recent.observe(call(first_seconds=4.0, seconds=14.0))

    (pace,) = recent.models()

    assert (pace.model, pace.requests, pace.failed) == ("gpt-4", 10, 0)
    assert pace.first_token_seconds.median == pytest.approx(0.5, rel=0.05)
    assert pace.first_token_seconds.tail == pytest.approx(4.0, rel=0.05)
    assert pace.stream_tokens_per_second.median == pytest.approx(50, rel=0.05)
    assert pace.stream_tokens_per_second.tail == pytest.approx(10, rel=0.05)


def test_what_is_now_is_the_last_half_minute(clock: Clock, recent: Recent) -> None:
    recent.observe(call(first_seconds=0.5))
    clock.now += 60
    recent.observe(call(first_seconds=4.0))

    (pace,) = recent.models()

    assert pace.first_token_seconds.now == pytest.approx(4.0, rel=0.05)
    assert pace.first_token_seconds.median == pytest.approx(0.5, rel=0.05)
    assert pace.tokens_per_second_now == pytest.approx(100 / 30)
    assert pace.tokens_per_second == pytest.approx(200 / 60)


def test_what_happened_five_minutes_ago_is_forgotten(clock: Clock, recent: Recent) -> None:
    recent.observe(call(downgraded_from="long"))
    recent.observe(other("refused", reason="rate_limited"))
    clock.now += 300

    assert (recent.models(), recent.tiers(), recent.hops(), recent.refusals()) == ((), (), (), {})


def test_an_answer_that_was_not_streamed_says_nothing_of_the_first_token(recent: Recent) -> None:
    recent.observe(call(stream=False))
    recent.observe(call(first_seconds=None))

    (pace,) = recent.models()

    assert pace.requests == 2
    assert pace.first_token_seconds == pace.stream_tokens_per_second == (None, None, None)


def test_a_failed_call_counts_as_failed_and_has_no_pace(recent: Recent) -> None:
    recent.observe(call(status=503, source="zero", usage=Usage()))

    (pace,) = recent.models()
    (hop,) = recent.hops()

    assert (pace.requests, pace.failed, hop.failed) == (1, 1, 1)
    assert pace.first_token_seconds.median is None


def test_an_answer_of_one_token_has_no_pace(recent: Recent) -> None:
    recent.observe(call(usage=Usage(5, 1)))
    recent.observe(call(first_seconds=2.0, seconds=2.0))

    (pace,) = recent.models()

    assert pace.stream_tokens_per_second.median is None
    assert pace.first_token_seconds.median is not None


def test_a_tier_knows_what_it_had_to_leave_to_another(recent: Recent) -> None:
    recent.observe(call(tier="premium"))
    recent.observe(call(tier="default", downgraded_from="premium", reason="no room"))

    assert sorted(recent.tiers()) == [TierUse("default", 1, 0), TierUse("premium", 1, 1)]


def test_the_upstream_that_takes_most_time_comes_first(recent: Recent) -> None:
    recent.observe(call(seconds=2.5))
    for _ in range(3):
        recent.observe(other(cluster="retrieval", seconds=4.0))

    slow, fast = recent.hops()

    assert (slow.cluster, slow.is_model, slow.requests) == ("retrieval", False, 3)
    assert slow.latency_seconds == pytest.approx((4.0, 4.0, 4.0), rel=0.05)
    assert slow.seconds == pytest.approx(12.0)
    assert (fast.cluster, fast.is_model) == ("gpt4-adapter", True)


def test_a_request_that_went_nowhere_took_no_upstream_s_time(recent: Recent) -> None:
    recent.observe(other("refused", reason="rate_limited", status=429))

    assert recent.hops() == ()


def test_a_budget_burns_by_the_minute(clock: Clock, recent: Recent) -> None:
    clock.now += 900
    for _ in range(3):
        recent.observe(call())
        clock.now += 60

    assert recent.burn("acme", "minute") == pytest.approx(Burn(180, 3 * 180 / 15))
    assert recent.burn("acme", "month") == pytest.approx(Burn(7000, 3 * 7000 / 15))
    assert recent.burn("acme", "calls") == recent.burn("else", "minute") == Burn(0, 0)


def test_a_service_that_is_young_divides_by_its_age(clock: Clock, recent: Recent) -> None:
    recent.observe(call())
    assert recent.burn("acme", "minute") == Burn(180, 180)

    clock.now += 120

    assert recent.burn("acme", "minute").quarter == pytest.approx(90)


def test_what_was_not_settled_burns_nothing(recent: Recent) -> None:
    recent.observe(call(settled=None))
    recent.observe(call(reserved="?"))
    recent.observe(call(source="zero", usage=Usage()))

    assert recent.burn("acme", "minute") == Burn(0, 0)


def test_refusals_are_counted_by_reason(recent: Recent) -> None:
    for reason in ("rate_limited", "rate_limited", "unknown_tenant"):
        recent.observe(other("refused", reason=reason))

    assert recent.refusals() == {"rate_limited": 2, "unknown_tenant": 1}


def test_the_latest_comes_first_and_the_same_again_counts_up(recent: Recent) -> None:
    recent.observe(other("refused", reason="rate_limited", tenant="acme", status=429))
    recent.observe(call(downgraded_from="long", reason="17 tokens too many"))
    recent.observe(call(downgraded_from="long", reason="99 tokens too many", seconds=9.0))
    recent.observe(other("unattributed"))
    recent.observe(other("refused", reason="rate_limited", tenant="acme", status=429))

    refused, passed, downgraded = recent.news()

    assert (refused.kind, refused.tenant, refused.reason) == ("refused", "acme", "rate_limited")
    assert (refused.status, refused.times) == (429, 2)
    assert passed.kind == "unattributed"
    assert (downgraded.tier, downgraded.downgraded_from) == ("premium", "long")
    assert (downgraded.reason, downgraded.times) == ("99 tokens too many", 2)
    assert refused.first == refused.last == NOON


def test_names_and_reasons_are_cut(recent: Recent) -> None:
    recent.observe(other("refused", reason="r" * 9000, tenant="t" * 9000))

    (one,) = recent.news()

    assert one.reason == "r" * REASON_CHARS_MAX
    assert len(one.tenant) == 256


def test_everything_has_a_limit(recent: Recent) -> None:
    for number in range(MODELS_MAX + 20):
        name = f"n{number}"
        recent.observe(call(model=name, cluster=name, tier=name))
        recent.observe(other("refused", reason=name))

    assert len(recent.models()) == MODELS_MAX + 1
    assert len(recent.tiers()) == len(recent.hops()) == CLUSTERS_MAX + 1
    assert {pace.model: pace.requests for pace in recent.models()}[OTHER] == 20
    assert len(recent.news()) == NEWS_MAX
    assert recent.news()[0].reason == f"n{MODELS_MAX + 19}"


def test_a_clock_that_is_put_back_makes_nothing_appear_twice(clock: Clock, recent: Recent) -> None:
    recent.observe(call())
    clock.now -= 3600
    recent.observe(call())
    clock.now += 10

    (pace,) = recent.models()

    assert pace.requests == 2
    assert recent.burn("acme", "minute").minute == 360


def test_the_share_of_a_slot_that_is_still_in_sight_counts() -> None:
    amounts = Amounts(count=4)
    amounts.add(5.0, 100)
    amounts.add(25.0, 7)

    assert amounts.over(25.0, 30) == 107
    assert amounts.over(34.0, 30) == pytest.approx(7 + 0.6 * 100)
    assert amounts.over(34.0, 20) == 7
    assert amounts.over(1e9, 30) == 0


def test_a_spread_without_values_has_no_quantiles() -> None:
    spread = Spread(3)

    assert spread.quantiles(0.0, 0.5, slots=3) == (None,)
    spread.add(0.0, 0.0)
    spread.add(0.0, 1e300)
    assert spread.quantiles(0.0, 0.0, 1.0, slots=3) == pytest.approx((1e-6, 1e9), rel=0.05)
    assert spread.quantiles(30.0, 0.5, slots=3) == (None,)


def test_what_is_not_used_makes_room() -> None:
    class Thing:
        used = 0.0

    kept = Kept(Thing, OTHER, entries_max=2, seconds=10)
    first = kept.use("a", 0)
    kept.use("b", 5)

    assert kept.use("c", 9) is kept.find(OTHER)
    assert kept.use("a", 9) is first
    assert [name for name, _ in kept.items(17)] == [OTHER, "a"]
    assert kept.use("d", 30) is kept.find("d")
    assert len(kept) == 1


def test_burns_are_kept_for_so_many_budgets_that_nobody_has_more() -> None:
    assert BURNS_MAX >= 50_000


def shown(recent: Recent) -> tuple[Any, ...]:
    """All that there is to see, in an order of its own."""
    burns = [recent.burn(tenant, budget) for tenant in "abc" for budget in ("minute", "month")]
    paces, tiers, hops = recent.models(), recent.tiers(), recent.hops()
    news = sorted(recent.news())
    return sorted(paces), sorted(tiers), sorted(hops), recent.refusals(), news, burns


def test_what_several_saw_together_is_what_one_would_have_seen() -> None:
    clock = Clock()
    one, *several = (Recent(clock, NOON) for _ in range(4))
    draw = random.Random(1)  # noqa: S311  # the same every time
    for number in range(400):
        clock.now += draw.uniform(0, 4)
        tenant, model = draw.choice("abc"), draw.choice(("gpt-4", "llama"))
        tier, status = draw.choice((("premium", 200), ("budget", 500)))
        summary = (
            other("refused", tenant=tenant, reason=draw.choice(("rate_limited", "malformed")))
            if number % 5 == 0
            else call(
                tenant=tenant,
                model=model,
                cluster=model,
                tier=tier,
                downgraded_from=draw.choice(("", "premium")),
                status=status,
                seconds=draw.choice((1.0, 2.5)),
            )
        )
        for recent in (one, draw.choice(several)):
            recent.observe(summary)
    before = [shown(recent) for recent in several]

    own, *others = several
    whole = asyncio.run(together(own, [encoded(other) for other in others], clock))

    assert shown(whole) == shown(one)
    assert [shown(recent) for recent in several] == before
    assert all(a != b for a, b in itertools.combinations([*before, shown(one)], 2))
