"""extproc/telemetry/metrics.py: what moves which figure, and what does not."""

import re
from pathlib import Path
from typing import Any

import pytest

from extproc.exchange.outcome import Noted, Outcome, Place, Timing, Trace
from extproc.exchange.settling import Bill, Summary
from extproc.llm.dialects import Dialect
from extproc.llm.usage import Usage
from extproc.telemetry import metric_names
from extproc.telemetry.collectors import BudgetState, Learnt, State
from extproc.telemetry.labels import OTHER, VALUES_MAX, Capped
from extproc.telemetry.metric_state import SettingsState
from extproc.telemetry.metrics import METER_ERRORS, Metrics

MANUAL = Path(__file__).parents[2] / "docs" / "metrics.md"
GPT4 = 'model="gpt-4",tenant="acme",tier="premium"'
CHAT = (
    'gen_ai_operation_name="chat",gen_ai_provider_name="openai",'
    'gen_ai_request_model="gpt-3.5-turbo",gen_ai_response_model="gpt-4"'
)


NOTHING = State()


def metrics(state: State = NOTHING, settings: SettingsState | None = None) -> Metrics:
    return Metrics(
        version="1.2.3",
        tenants=lambda: {"acme"},
        models=lambda: {"gpt-4", "gpt-3.5-turbo"},
        tiers=lambda: {"premium", "standard"},
        state=lambda: state,
        settings=lambda: settings,
    )


def figures(fed: Metrics) -> dict[str, float]:
    """Each series with its value, without those of buckets and of those that are zero."""
    text, content_type = fed.expose("")
    assert content_type.startswith("text/plain")
    found = {}
    for line in text.decode().splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            if float(value) and "_bucket{" not in series:
                found[series] = float(value)
    return found


def moved(fed: Metrics, before: dict[str, float]) -> dict[str, float]:
    return {
        series: value - before.get(series, 0)
        for series, value in figures(fed).items()
        if value != before.get(series)
    }


BILL = Bill("usage", "gpt-4", Usage(100, 21, 40, 5, 7), 4200)
FOUR_SECONDS = Timing(0, 1_000_000, 2_000_000, 4_000_000, 4_000_000)
GPT4_PLACE = Place("premium", "gpt4-adapter", "10.0.0.1:80", "", 2)


def finished(  # noqa: PLR0913  # each is a part of a record
    *,
    kind: Any = "call",
    bill: Bill | None = BILL,
    settled: Any = "settled",
    status: int = 200,
    flags: str = "-",
    place: Place = GPT4_PLACE,
    timing: Timing = FOUR_SECONDS,
    **noted: Any,
) -> Summary:
    known: dict[str, Any] = {
        "tenant": "acme",
        "tier": "premium",
        "model": "gpt-4",
        "requested_model": "gpt-3.5-turbo",
        "prompt_tokens": 80,
        "dialect": Dialect.OPENAI_CHAT,
        "stream": True,
    }
    outcome = Outcome(
        stream_id="s",
        started=1.0,
        method="POST",
        path="/",
        status=status,
        flags=flags,
        details="",
        bytes_received=1,
        bytes_sent=1,
        noted=Noted(**(known | noted)),
        place=place,
        timing=timing,
        trace=Trace(),
    )
    return Summary(outcome, kind, bill, settled)


HOP = {
    'llm_extproc_hop_duration_seconds_count{cluster="gpt4-adapter"}': 1,
    'llm_extproc_hop_duration_seconds_sum{cluster="gpt4-adapter"}': 3,
    'llm_extproc_hop_attempts_total{cluster="gpt4-adapter",code="2xx"}': 2,
}


def call(
    ended: str = "answered", source: str = "usage", settled: str = "settled", error: str = ""
) -> dict[str, float]:
    about = f'error_type="{error}",{CHAT}'
    return {
        f"gen_ai_server_request_duration_seconds_count{{{about}}}": 1,
        f"gen_ai_server_request_duration_seconds_sum{{{about}}}": 4,
        f'llm_extproc_calls_total{{ended="{ended}",{GPT4}}}': 1,
        f'llm_extproc_settlements_total{{settled="{settled}",source="{source}"}}': 1,
    }


USED = {
    f'llm_extproc_tokens_total{{kind="prompt",{GPT4}}}': 100,
    f'llm_extproc_tokens_total{{kind="completion",{GPT4}}}': 21,
    f'llm_extproc_tokens_total{{kind="cached",{GPT4}}}': 40,
    f'llm_extproc_tokens_total{{kind="cache_write",{GPT4}}}': 5,
    f'llm_extproc_tokens_total{{kind="reasoning",{GPT4}}}': 7,
    f"llm_extproc_cost_usd_total{{{GPT4}}}": pytest.approx(0.0042),
    f'gen_ai_client_token_usage_count{{{CHAT},gen_ai_token_type="input"}}': 1,
    f'gen_ai_client_token_usage_sum{{{CHAT},gen_ai_token_type="input"}}': 100,
    f'gen_ai_client_token_usage_count{{{CHAT},gen_ai_token_type="output"}}': 1,
    f'gen_ai_client_token_usage_sum{{{CHAT},gen_ai_token_type="output"}}': 21,
}
ESTIMATED = {
    'llm_extproc_prompt_estimate_ratio_count{model="gpt-4"}': 1,
    'llm_extproc_prompt_estimate_ratio_sum{model="gpt-4"}': 1.25,
}
STREAMED = {
    f"gen_ai_server_time_to_first_token_seconds_count{{{CHAT}}}": 1,
    f"gen_ai_server_time_to_first_token_seconds_sum{{{CHAT}}}": 2,
    f"gen_ai_server_time_per_output_token_seconds_count{{{CHAT}}}": 1,
    f"gen_ai_server_time_per_output_token_seconds_sum{{{CHAT}}}": 0.1,
    'llm_extproc_tokens_per_second_count{model="gpt-4"}': 1,
    'llm_extproc_tokens_per_second_sum{model="gpt-4"}': 10.5,
}
ZERO = Bill("zero", "gpt-4", Usage(), 0)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        pytest.param(finished(), HOP | call() | USED | ESTIMATED | STREAMED, id="a stream"),
        pytest.param(finished(stream=False), HOP | call() | USED | ESTIMATED, id="a whole answer"),
        pytest.param(
            finished(flags="DC", settled="late"),
            HOP | call("aborted", settled="late", error="aborted") | USED | ESTIMATED | STREAMED,
            id="one that was cut off",
        ),
        pytest.param(
            finished(bill=ZERO, status=503),
            call("failed", "zero", error="5xx")
            | {
                **dict(list(HOP.items())[:2]),
                'llm_extproc_hop_attempts_total{cluster="gpt4-adapter",code="5xx"}': 2,
            },
            id="a failure",
        ),
        pytest.param(
            finished(settled=None),
            HOP | call(settled="unsettleable") | USED | ESTIMATED | STREAMED,
            id="one that can't be settled",
        ),
        pytest.param(
            finished(downgraded_from="premium", stream=False, tier="standard"),
            {
                series.replace('tier="premium"', 'tier="standard"'): value
                for series, value in (HOP | call() | USED | ESTIMATED).items()
            }
            | {
                'llm_extproc_downgrades_total{tenant="acme",tier="standard",tier_from="premium"}': 1
            },
            id="a downgrade",
        ),
        pytest.param(
            finished(stream=False, meter_error="encoded"),
            HOP
            | call()
            | USED
            | ESTIMATED
            | {'llm_extproc_meter_errors_total{reason="encoded"}': 1},
            id="one the meter gave up on",
        ),
        pytest.param(
            finished(stream=False, bill=BILL._replace(source="estimated")),
            HOP | call(source="estimated") | USED,
            id="an estimate proves no estimate",
        ),
        pytest.param(
            finished(stream=False, model="gpt-3.5-turbo"),
            HOP | call() | USED,
            id="nor does an answer of another model",
        ),
        pytest.param(
            finished(stream=False, prompt_tokens=0),
            HOP | call() | USED,
            id="nor one whose prompt was not counted",
        ),
        pytest.param(
            finished(stream=False, dialect=Dialect.ANTHROPIC_MESSAGES),
            {
                series.replace('"openai"', '"anthropic"'): value
                for series, value in (HOP | call() | USED | ESTIMATED).items()
            },
            id="one that spoke Anthropic's language",
        ),
        pytest.param(
            finished(timing=FOUR_SECONDS._replace(first_byte=4_000_000)),
            HOP
            | call()
            | USED
            | ESTIMATED
            | {
                f"gen_ai_server_time_to_first_token_seconds_count{{{CHAT}}}": 1,
                f"gen_ai_server_time_to_first_token_seconds_sum{{{CHAT}}}": 4,
            },
            id="a stream that came all at once",
        ),
        pytest.param(
            finished(stream=False, timing=FOUR_SECONDS._replace(answer_received=1_500_000)),
            HOP
            | call()
            | USED
            | ESTIMATED
            | {'llm_extproc_hop_duration_seconds_sum{cluster="gpt4-adapter"}': 0.5},
            id="a slow client is no slow upstream",
        ),
        pytest.param(
            finished(kind="other", bill=None, settled=None, place=Place("", "", "h", "", 1)),
            {},
            id="one that went to no cluster",
        ),
        pytest.param(finished(kind="other", bill=None, settled=None), HOP, id="another hop"),
        pytest.param(
            finished(kind="refused", bill=None, settled=None, place=Place("", "a", "", "", 0)),
            {},
            id="a refusal went nowhere",
        ),
        pytest.param(
            finished(kind="unattributed", settled=None),
            HOP
            | {
                f'llm_extproc_unattributed_tokens_total{{kind="{kind}"}}': count
                for kind, count in Usage(100, 21, 40, 5, 7)._asdict().items()
            },
            id="one that passed a filter which failed open",
        ),
    ],
)
def test_a_finished_request_moves_what_it_should_and_nothing_else(
    summary: Summary, expected: dict[str, float]
) -> None:
    fed = metrics()
    before = figures(fed)

    fed.observe(summary)

    assert moved(fed, before) == expected


def test_an_answer_to_no_prompt_proves_no_estimate() -> None:
    fed = metrics()

    fed.observe(finished(bill=BILL._replace(usage=Usage(0, 21))))

    assert not any(series.startswith("llm_extproc_prompt_estimate") for series in figures(fed))


def test_decisions_are_counted_with_their_reason_and_time() -> None:
    fed = metrics()
    before = figures(fed)

    fed.decided("refused", "rate_limited", 0.00005)
    fed.decided("refused", "rate_limited", 0.004)
    fed.decided("routed", "", 99.0)

    assert moved(fed, before) == {
        'llm_extproc_decisions_total{outcome="refused",reason="rate_limited"}': 2,
        'llm_extproc_decisions_total{outcome="routed",reason=""}': 1,
        "llm_extproc_decision_duration_seconds_count": 3,
        "llm_extproc_decision_duration_seconds_sum": pytest.approx(99.00405),
    }
    text = fed.expose("")[0].decode()
    for bucket, count in (("5e-05", 1), ("0.002", 1), ("0.005", 2), ("0.5", 2), ("+Inf", 3)):
        assert f'llm_extproc_decision_duration_seconds_bucket{{le="{bucket}"}} {count}.0' in text


def test_records_are_counted_with_their_lag() -> None:
    fed = metrics()
    before = figures(fed)

    fed.record("call", 0.5)
    fed.record("call", 0.0)
    fed.record("unreadable", None)
    fed.loop_lag(0.25)

    assert moved(fed, before) == {
        'llm_extproc_records_total{kind="call"}': 2,
        'llm_extproc_records_total{kind="unreadable"}': 1,
        "llm_extproc_record_lag_seconds_count": 2,
        "llm_extproc_record_lag_seconds_sum": 0.5,
        "llm_extproc_event_loop_lag_seconds_count": 1,
        "llm_extproc_event_loop_lag_seconds_sum": 0.25,
    }


WHOLE = State(
    budgets=[BudgetState("acme", "month", "usd", 5_000_000, 7440, 100)],
    learnt=[Learnt("gpt-4", 1.1, 300.0)],
    is_ledger_well=False,
    without_store={"local_share": 7},
    reservations=3,
    expired=2,
    spans_dropped=4,
    audit_lost=5,
)


def test_the_state_is_read_when_somebody_asks() -> None:
    about = 'budget="month",tenant="acme",unit="usd"'

    assert figures(metrics(WHOLE)) == {
        f"llm_extproc_budget_limit{{{about}}}": 5_000_000,
        f"llm_extproc_budget_committed{{{about}}}": 7440,
        f"llm_extproc_budget_reserved{{{about}}}": 100,
        'llm_extproc_decisions_without_ledger_total{state="local_share"}': 7,
        "llm_extproc_reservations": 3,
        "llm_extproc_reservations_expired_total": 2,
        "llm_extproc_spans_dropped_total": 4,
        "llm_extproc_audit_lines_lost_total": 5,
        'llm_extproc_prompt_tokens_ratio{model="gpt-4"}': 1.1,
        'llm_extproc_output_tokens_expected{model="gpt-4"}': 300,
        'llm_extproc_build_info{version="1.2.3"}': 1,
    }
    assert figures(metrics())["llm_extproc_ledger_up"] == 1


def test_names_from_outside_do_not_fill_it() -> None:
    fed = metrics()
    for number in range(2 * VALUES_MAX):
        place = Place("r", f"cluster-{number}", "h", "", 1)
        fed.observe(
            finished(
                place=place,
                bill=Bill("usage", f"model-{number}", Usage(1, 1), 1),
                tenant=f"tenant-{number}",
                tier=f"tier-{number}",
                meter_error=f"error-{number}",
                dialect=None,
            )
        )

    text = fed.expose("")[0].decode()

    assert len(re.findall(r"^llm_extproc_hop_attempts_total", text, re.MULTILINE)) == VALUES_MAX + 1
    assert f'tenant="{OTHER}"' in text
    for outside in ("tenant-", "model-", "tier-", "error-"):
        assert outside not in text


def test_a_name_that_was_let_through_stays() -> None:
    capped = Capped(values_max=2)

    assert [capped(name) for name in ("a", "b", "c", "a", "", "b")] == [
        "a",
        "b",
        OTHER,
        "a",
        OTHER,
        "b",
    ]


def test_it_speaks_openmetrics_to_those_who_ask() -> None:
    text, content_type = metrics().expose("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_every_word_of_the_meter_is_known() -> None:
    lua = (Path(__file__).parents[2] / "istio" / "meter.lua").read_text()
    words = set(re.findall(r'give_up\([a-z]+, "([a-z_]+)"\)', lua))

    # The others are those of a meter that is not in the proxy.
    assert words | {"encoded", "unobserved", "cut_short"} == METER_ERRORS


def test_the_manual_names_each_metric_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|(?: ([^|]*) \|)", MANUAL.read_text(), re.MULTILINE)
    named = {name: tuple(re.findall(r"`([a-z_]+)`", labels)) for name, labels in rows}

    assert named == metric_names.LABELS
