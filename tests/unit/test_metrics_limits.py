"""extproc/telemetry/metrics.py: what comes from outside can neither fill it nor break it."""

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extproc.exchange.outcome import Place
from extproc.exchange.settling import Bill
from extproc.llm.usage import Usage
from extproc.telemetry import metric_names as names
from extproc.telemetry.collectors import BudgetState, Learnt, State
from extproc.telemetry.labels import OTHER, VALUES_MAX
from extproc.telemetry.metric_names import BORN, BUCKETS, LABELS
from extproc.telemetry.metric_state import SettingsState
from extproc.telemetry.metric_store import Counts, LabelSets
from extproc.telemetry.metrics import GEN_AI_SETS_MAX, TENANT_SETS_MAX, Metrics
from tests.unit.test_metrics import NOTHING, figures, finished, metrics, moved

OPERATIONS_MANUAL = Path(__file__).parents[2] / "docs" / "operations.md"
NAMES = 100_000


class Everything:
    """Settings that know every name."""

    def __contains__(self, name: object) -> bool:
        return True


def series(fed: Metrics) -> list[str]:
    return [line for line in fed.expose()[0].decode().splitlines() if not line.startswith("#")]


def of(name: str, lines: list[str]) -> int:
    return sum(line.startswith(name + "{") for line in lines)


def open_to_all() -> Metrics:
    everything = Everything()
    return Metrics(
        version="1",
        tenants=lambda: everything,
        models=lambda: everything,
        tiers=lambda: everything,
        state=lambda: NOTHING,
    )


def hostile(number: int) -> Any:
    """A request in which each text that a stranger may have written is a new one."""
    name = f"stranger-{number}"
    return finished(
        place=Place(name, name, name, name, 1),
        bill=Bill("usage", name, Usage(1, 2), 1),
        status=number,
        flags=name,
        tenant=name,
        identity=name,
        plan=name,
        model=name,
        tier=name,
        downgraded_from=name,
        requested_model=name,
        meter_error=name,
        reason=name,
    )


def test_a_hundred_thousand_names_that_nobody_knows_are_one() -> None:
    fed = metrics()
    summary = hostile(0)
    fed.observe(summary)
    fed.observe(hostile(1))
    before = len(series(fed))

    for number in range(NAMES):
        name = f"stranger-{number}"
        fed.decided(name, name, 0.1)
        fed.record(name, 0.1)
        fed.observed(name)
        noted: Any = {"tenant": name, "tier": name, "model": name, "requested_model": name}
        if number % 20 == 0:  # each of these takes a while to make
            bill = Bill("usage", name, Usage(1, 2), 1)
            fed.observe(finished(bill=bill, meter_error=name, downgraded_from=name, **noted))
    lines = series(fed)

    # Classes of statuses: 5xx, and the cluster that the table knows.
    assert len(lines) <= before + 100
    named = [line for line in lines if "stranger" in line]
    assert all('cluster="stranger-0"' in line or 'cluster="stranger-1"' in line for line in named)


def test_names_that_the_settings_have_are_capped_too() -> None:
    fed = open_to_all()
    for number in range(VALUES_MAX + 1):
        fed.observe(hostile(number))
    lines = series(fed)

    assert of("gen_ai_server_time_to_first_token_seconds_count", lines) == 2 * GEN_AI_SETS_MAX + 1
    assert of("llm_extproc_hop_duration_seconds_count", lines) == VALUES_MAX + 1
    assert of("llm_extproc_tokens_per_second_count", lines) == VALUES_MAX + 1


def test_what_few_names_make_together_is_capped() -> None:
    fed = open_to_all()
    for number in range(TENANT_SETS_MAX + 100):
        tenant, tier, model = f"t{number % 20}", f"r{number // 20 % 20}", f"m{number // 400}"
        bill = Bill("usage", model, Usage(1, 2), 1)
        fed.observe(finished(bill=bill, tenant=tenant, tier=tier, downgraded_from=model))
    lines = series(fed)

    # What is beyond lies in five tiers of one model, and in those its tenants are one.
    assert of("llm_extproc_cost_usd_total", lines) == TENANT_SETS_MAX + 5
    assert of("llm_extproc_calls_total", lines) == TENANT_SETS_MAX + 5
    assert of("llm_extproc_tokens_total", lines) == 5 * (TENANT_SETS_MAX + 5)
    assert of("llm_extproc_downgrades_total", lines) == TENANT_SETS_MAX + 5


def test_nothing_is_lost_where_names_are() -> None:
    fed = open_to_all()
    for number in range(3 * TENANT_SETS_MAX):
        fed.observe(hostile(number))

    for name, each in (("tokens_total", 3), ("downgrades_total", 1), ("calls_total", 1)):
        total = sum(
            value
            for line, value in figures(fed).items()
            if line.startswith(f"llm_extproc_{name}{{")
        )
        assert total == 3 * TENANT_SETS_MAX * each


def test_the_first_label_gives_way_first() -> None:
    sets = LabelSets(2)

    counted = [sets((f"t{number}", "gpt-4")) for number in (1, 2, 3, 1, 4)]
    assert [tenant for tenant, _ in counted] == ["t1", "t2", OTHER, "t1", OTHER]
    assert [sets(("t5", model)) for model in ("a", "b", "c", "gpt-4")] == [
        (OTHER, "a"),
        (OTHER, OTHER),
        (OTHER, OTHER),
        (OTHER, "gpt-4"),
    ]


@pytest.mark.parametrize(
    ("status", "flags", "code", "error"),
    [
        pytest.param(200, "-", "2xx", "", id="well"),
        pytest.param(404, "-", "4xx", "4xx", id="a client's fault"),
        pytest.param(429, "-", "4xx", "429", id="a quota that is used up"),
        pytest.param(599, "-", "5xx", "5xx", id="the last that is one"),
        pytest.param(600, "-", "none", "none", id="none that there is"),
        pytest.param(99, "-", "none", "none", id="none either"),
        pytest.param(10**15, "-", "none", "none", id="a number of somebody's own"),
        pytest.param(0, "DC", "none", "aborted", id="the client left"),
        pytest.param(200, "UC", "2xx", "aborted", id="the upstream left"),
    ],
)
def test_a_status_is_one_of_few(status: int, flags: str, code: str, error: str) -> None:
    fed = metrics()

    fed.observe(finished(status=status, flags=flags))

    changed = " ".join(figures(fed))
    assert set(re.findall(r'code="(\w+)"', changed)) == {code}
    assert set(re.findall(r'error_type="(\w*)"', changed)) == {error}


def test_what_nobody_has_a_word_for_is_counted_all_the_same() -> None:
    fed = metrics()
    before = figures(fed)

    fed.decided("refused", "whim", 0.1)
    fed.record("strange", None)
    fed.observed("strange")
    fed.observe(finished(settled="repeated", place=Place()))

    changed = moved(fed, before)
    assert changed[f'llm_extproc_decisions_total{{outcome="{OTHER}",reason="{OTHER}"}}'] == 1
    assert changed['llm_extproc_records_total{kind="failed"}'] == 1
    assert changed[f'llm_extproc_observed_total{{case="{OTHER}"}}'] == 1
    assert changed[f'llm_extproc_settlements_total{{settled="{OTHER}",source="usage"}}'] == 1


def test_what_can_be_counted_is_there_before_it_happens() -> None:
    lines = series(metrics())

    for name, sets in BORN.items():
        assert of(name + "_total", lines) == len(sets)
        for values in sets:
            about = ",".join(
                f'{label}="{value}"'
                for label, value in sorted(zip(LABELS[name], values, strict=True))
            )
            assert f"{name}_total{{{about}}} 0.0" in lines
    for name in BUCKETS:
        assert bool(LABELS[name]) != (f"{name}_count 0.0" in lines)


def test_every_case_of_an_observed_answer_is_known() -> None:
    manual = OPERATIONS_MANUAL.read_text().partition("`llm_extproc_observed_total` by `case`")[2]
    rows = re.findall(r"^\| (`[^|]*) \|", manual.partition("\n## ")[0], re.MULTILINE)
    cases = {case for row in rows for case in re.findall(r"`(\w+)`", row)}

    assert cases | {OTHER} == {case for (case,) in BORN[names.OBSERVED]}


def test_no_series_is_told_twice() -> None:
    """A budget whose window was just changed has two that last now."""
    old, new = (BudgetState("acme", "month", "usd", 100, committed, 1) for committed in (70, 20))
    learnt = [Learnt("gpt-4", 1.0, 2.0), Learnt("gone-1", 1.0, 2.0), Learnt("gone-2", 1.0, 2.0)]

    for budgets in ([old, new], [new, old]):
        lines = series(metrics(State(budgets=budgets, learnt=learnt)))

        assert len({line.rpartition(" ")[0] for line in lines}) == len(lines)
        assert 'llm_extproc_budget_committed{budget="month",tenant="acme",unit="usd"} 70.0' in lines
        assert not any("gone" in line for line in lines)


def test_two_budgets_of_one_name_stay_two() -> None:
    budgets = [BudgetState(tenant, "month", "usd", 100, 1, 1) for tenant in ("acme", "initech")]

    assert of("llm_extproc_budget_limit", series(metrics(State(budgets=budgets)))) == 2


def test_settings_tell_how_their_reload_went_where_there_is_one() -> None:
    assert not any("settings_ok" in line for line in series(metrics()))

    told = figures(
        metrics(settings=SettingsState(is_ok=True, loaded=1789041600.5, needing_restart=2))
    )
    assert told["llm_extproc_settings_needing_restart"] == 2
    assert told["llm_extproc_settings_ok"] == 1
    assert told["llm_extproc_settings_loaded_timestamp_seconds"] == 1789041600.5

    refused = series(metrics(settings=SettingsState(is_ok=False, loaded=1.0)))
    assert "llm_extproc_settings_ok 0.0" in refused


def test_labels_are_as_they_are_named() -> None:
    fed = metrics(
        State(budgets=[BudgetState("acme", "b", "usd", 1, 1, 1)], learnt=[Learnt("gpt-4", 1, 1)]),
        SettingsState(is_ok=True, loaded=1.0),
    )
    fed.observe(finished(downgraded_from="premium"))
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(fed.expose()[0].decode()):
        labels = found.setdefault(re.sub(r"_info$", "", family.name), set())
        for sample in family.samples:
            labels |= set(sample.labels) - {"le"}

    assert found == {name: set(labels) for name, labels in LABELS.items()}


def test_the_state_is_that_of_the_question_not_of_the_writing() -> None:
    held = count(1)
    fed = Metrics(
        version="1",
        tenants=Everything,
        models=Everything,
        tiers=Everything,
        state=lambda: State(reservations=next(held)),
    )

    first, second = fed.exposition(), fed.exposition()

    assert b"llm_extproc_reservations 2.0" in second()[0]
    assert b"llm_extproc_reservations 1.0" in first()[0]


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that take turns at nearly every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_it_can_be_written_down_while_it_is_fed() -> None:
    """Every text is whole, and no counter in it is below what an earlier one said."""
    fed = open_to_all()

    def texts() -> Iterator[dict[str, float]]:
        for _ in range(4):
            yield figures(fed)

    with ThreadPoolExecutor(2) as threads:
        reading = [threads.submit(lambda: list(texts())) for _ in range(2)]
        number = 1
        fed.decided("routed", "", 0.001)
        while not all(read.done() for read in reading):
            number += 1
            fed.decided("routed", "", 0.001)
            fed.record("call", 0.1)
            fed.observe(hostile(number))
        for read in reading:
            before: dict[str, float] = {}
            for text in read.result():
                assert all(text.get(name, 0) >= value for name, value in before.items())
                before = text

    assert figures(fed)['llm_extproc_decisions_total{outcome="routed",reason=""}'] == number


def test_a_counter_takes_what_is_there_from_the_start() -> None:
    counts = Counts(names.RECORDS, "", [("call",), ("failed",)])

    for kind in ("call", "call", "strange"):
        counts.add_one_of((kind,), ("failed",))

    (family,) = counts.collect()
    assert {sample.labels["kind"]: sample.value for sample in family.samples} == {
        "call": 2,
        "failed": 1,
    }
