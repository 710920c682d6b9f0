"""extproc/workers: what several counted, as if one had; and what each of them is told it is."""

import argparse
from pathlib import Path

import msgspec
import pytest
from prometheus_client.registry import Collector

from extproc.cli_workers import WORKERS_MAX, cpus, workers
from extproc.config.loader import load_file
from extproc.telemetry.collectors import BudgetState, Learnt, State
from extproc.telemetry.metric_state import SettingsState
from extproc.telemetry.metrics import Metrics
from extproc.workers.channel import Answer, Begin, Message
from extproc.workers.figures import Figures, Together, figures_of
from extproc.workers.worker import as_one_of
from tests.scenarios.table import SETTINGS


class Nothing(Collector):
    def collect(self) -> list[object]:  # type: ignore[override]  # none at all
        return []


def counted(  # noqa: PLR0913  # each is a part of the example
    decisions: int,
    *,
    used: int = 0,
    expired: int = 0,
    is_well: bool = True,
    loaded: float = 1.0,
    is_whole: bool = True,
) -> Figures:
    """What a worker answers that has decided so much, as it comes over the channel."""
    metrics = Metrics(
        version="1",
        tenants=frozenset,
        models=lambda: {"gpt-4"},
        tiers=frozenset,
        state=lambda: State(
            budgets=[BudgetState("acme", "day", "tokens", 100, used, 1)],
            learnt=[Learnt("gpt-4", 1.5, 9.0), Learnt("gone", 1.0, 1.0)],
            is_ledger_well=is_well,
            reservations=2,
            expired=expired,
        ),
        settings=lambda: SettingsState(is_ok=True, loaded=loaded),
    )
    for _ in range(decisions):
        metrics.decided("routed", "", 0.001)
    answer = Answer(1, figures=figures_of(metrics, "", is_whole=is_whole))
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Message)
    assert isinstance(told, Answer)
    assert told.figures is not None
    return told.figures


def shown(together: Together) -> dict[str, str]:
    text = together.expose("")[0].decode()
    lines = [line for line in text.splitlines() if line[0] != "#"]
    assert len({line.rpartition(" ")[0] for line in lines}) == len(lines)
    return {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in lines}


ROUTED = 'llm_extproc_decisions_total{outcome="routed",reason=""}'
COMMITTED = 'llm_extproc_budget_committed{budget="day",tenant="acme",unit="tokens"}'


def test_counters_add_up_and_the_fullest_of_a_budget_counts() -> None:
    together = Together("1", Nothing())
    together.take(0, counted(3, used=40, expired=1, loaded=7.0))
    together.take(1, counted(4, used=50, expired=2, is_well=False, loaded=5.0))

    found = shown(together)

    assert found[ROUTED] == "7.0"
    assert found["llm_extproc_decision_duration_seconds_count"] == "7.0"
    assert found[COMMITTED] == "50.0"
    assert found["llm_extproc_reservations"] == "4.0"
    assert found["llm_extproc_reservations_expired_total"] == "3.0"
    assert found["llm_extproc_ledger_up"] == "0.0"
    assert found["llm_extproc_settings_loaded_timestamp_seconds"] == "5.0"
    assert found['llm_extproc_prompt_tokens_ratio{model="gpt-4"}'] == "1.5"
    assert 'llm_extproc_prompt_tokens_ratio{model="gone"}' not in found
    assert together.decisions() == {0: 3, 1: 4}


def test_what_the_dead_had_counted_stays_and_what_they_held_goes() -> None:
    together = Together("1", Nothing())
    together.take(0, counted(3, expired=1))
    together.take(1, counted(4, expired=2))
    together.died(0)
    together.died(0)

    meanwhile = shown(together)
    together.take(0, counted(5, expired=4))
    after = shown(together)

    assert meanwhile[ROUTED] == "7.0"
    assert meanwhile["llm_extproc_reservations"] == "2.0"
    assert meanwhile["llm_extproc_reservations_expired_total"] == "3.0"
    assert after[ROUTED] == "12.0"
    assert after["llm_extproc_reservations_expired_total"] == "7.0"
    assert together.decisions() == {0: 8, 1: 4}


def test_who_only_counts_stands_as_before() -> None:
    together = Together("1", Nothing())
    together.take(0, counted(3, used=40, expired=1))
    together.take(0, counted(6, is_whole=False))

    found = shown(together)

    assert found[ROUTED] == "6.0"
    assert found[COMMITTED] == "40.0"
    assert found["llm_extproc_reservations_expired_total"] == "1.0"


def test_to_the_ledger_each_worker_is_a_replica() -> None:
    settings = load_file(SETTINGS).settings
    ledger = msgspec.structs.replace(settings.ledger, kind="valkey", replicas=3)
    settings = msgspec.structs.replace(settings, ledger=ledger)
    begin = Begin(1, 4, 50051, None, 9, 0.0, settings)

    told = as_one_of(settings, begin)

    assert told.ledger.replicas == 12
    assert told.listen.port == 50051
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(begin), type=Message) == begin


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "²", str(WORKERS_MAX + 1)])
def test_no_number_of_workers(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        workers(text)


def test_a_number_of_workers() -> None:
    assert (workers("1"), workers(str(WORKERS_MAX)), workers("auto")) == (1, WORKERS_MAX, cpus())


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("", 8)],
)
def test_as_many_as_there_is_time_for(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cpu.max").write_text(quota)

    assert cpus(tmp_path / "cpu.max") == expected
    assert cpus(tmp_path / "none") == 8
