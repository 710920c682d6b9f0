"""extproc/server/desk.py: finished requests are settled, and told once."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from extproc import app
from extproc.config.loader import load_file
from extproc.exchange.holds import holds_text
from extproc.exchange.outcome import Noted, Outcome, Place, Timing, Trace
from extproc.exchange.settling import Summary
from extproc.ledger.memory import MemoryLedger
from extproc.ledger.port import NO_NOTES
from extproc.llm.dialects import Dialect
from extproc.policy.budgets import Claim, Reserve, Reserved, Settled, Settlement, Window
from extproc.policy.experience import ANSWERS_MIN
from extproc.server.desk import LEARNT, SLICE, Desk, experiences
from extproc.server.rulebook import Rulebook
from tests.ledger_books import NOON, Clock

SETTINGS = Path(__file__).parents[1] / "scenarios" / "policy.yaml"
MINUTE = Window(seconds=60)
CLAIM = Claim("minute", "tokens", 1000, MINUTE, 500, 400)


class Ears:
    """Hears of summaries and counts records."""

    def __init__(self) -> None:
        self.told: list[Summary] = []
        self.counted: Counter[str] = Counter()
        self.lags: list[float | None] = []

    def observe(self, summary: Summary) -> None:
        self.told.append(summary)

    def record(self, kind: str, lag_seconds: float | None) -> None:
        self.counted[kind] += 1
        self.lags.append(lag_seconds)


class Bad(Ears):
    def observe(self, summary: Summary) -> None:
        super().observe(summary)
        msg = "a secret prompt"
        raise ValueError(msg)


class Down(MemoryLedger):
    """A ledger whose disk is gone until somebody says it is back."""

    is_back = False

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        if not self.is_back:
            return tuple("unavailable" for _ in settlements)
        return await super().settle(settlements, notes)


class World:
    def __init__(self, ledger: MemoryLedger | None = None, first: Ears | None = None) -> None:
        self.clock = Clock()
        self.ledger = ledger or MemoryLedger(self.clock, reservation_seconds=100)
        self.ears, self.audit = Ears(), Ears()
        self.rulebook = Rulebook(load_file(SETTINGS))
        self.desk = Desk(
            self.rulebook,
            self.ledger,
            self.clock,
            observers=(*([first] if first else ()), self.ears),
            audit=self.audit,
            tally=self.ears,
        )

    def admit(self, name: str = "r1", claim: Claim = CLAIM) -> str:
        """Reserve; return what the filter would note."""
        answer = asyncio.run(self.ledger.reserve(Reserve(name, "acme", (claim,))))
        assert isinstance(answer, Reserved)
        return holds_text((claim,), answer.window_starts)

    def take(self, *outcomes: Outcome) -> bool:
        return asyncio.run(self.desk.take(outcomes))

    def sums(self) -> tuple[int, int]:
        (standing,) = asyncio.run(self.ledger.standing("acme", (CLAIM,), at=NOON))
        return standing.committed, standing.reserved


def call(reserved: str, name: str = "r1", **noted: Any) -> Outcome:
    known: dict[str, Any] = {
        "outcome": "routed",
        "tenant": "acme",
        "dialect": Dialect.OPENAI_CHAT,
        "requested_model": "gpt-4",
        "model": "gpt-4",
        "prompt_tokens": 90,
        "reservation": name,
        "reserved": reserved,
        "usage": '{"prompt_tokens": 100, "completion_tokens": 20}',
    }
    return record(**(known | noted))


def record(stream_id: str = "s1", status: int = 200, **noted: Any) -> Outcome:
    return Outcome(
        stream_id=stream_id,
        started=NOON - 3,
        method="POST",
        path="/",
        status=status,
        flags="-",
        details="",
        bytes_received=1,
        bytes_sent=1,
        noted=Noted(**noted),
        place=Place("premium", "gpt4-adapter", "10.0.0.1:80", "", 1),
        timing=Timing(1, 2, 3, 4, 1_000_000),
        trace=Trace(),
    )


def test_a_call_is_charged_and_told_after_the_commit() -> None:
    world = World()

    assert world.take(call(world.admit()))

    assert world.sums() == (120, 0)
    (summary,) = world.ears.told
    assert (summary.kind, summary.settled) == ("call", "settled")
    assert summary.bill is not None
    assert summary.bill.usage.total == 120
    assert world.audit.told == [summary]
    assert world.ears.counted == {"call": 1}
    assert world.ears.lags == [pytest.approx(2.0)]


def test_what_comes_again_is_charged_once_and_only_the_audit_hears_of_it() -> None:
    world = World()
    outcome = call(world.admit())

    assert world.take(outcome)
    assert world.take(outcome, outcome)

    assert world.sums() == (120, 0)
    assert len(world.ears.told) == 1
    assert [summary.settled for summary in world.audit.told] == ["settled", "repeated", "repeated"]
    assert world.ears.counted == {"call": 1, "repeated": 2}


def test_a_reservation_that_nobody_remembers_is_charged_to_its_window() -> None:
    world = World()

    assert world.take(call(holds_text((CLAIM,), (NOON,))))

    assert world.sums() == (120, 0)
    assert world.ears.told[0].settled == "unknown"


def test_a_call_without_budgets_is_known_all_the_same() -> None:
    world = World()

    assert world.take(call(""))
    assert world.take(call(""))

    assert [summary.settled for summary in world.ears.told] == ["settled"]
    assert world.ears.counted == {"call": 1, "repeated": 1}


def test_what_the_ledger_cannot_commit_is_not_taken_and_nobody_hears_of_it() -> None:
    ledger = Down(Clock(), reservation_seconds=100)
    world = World(ledger)
    outcome = call(world.admit())

    assert not world.take(outcome, record(outcome="refused"))
    assert (world.ears.told, world.audit.told, world.ears.counted) == ([], [], {})

    ledger.is_back = True
    assert world.take(outcome, record(outcome="refused"))
    assert world.ears.counted == {"call": 1, "refused": 1}


def test_other_records_are_told_and_cost_nothing() -> None:
    world = World()

    assert world.take(
        record("a", outcome="refused", tenant="acme", reason="rate_limited"),
        record("b"),
        record("c", unattributed=True, usage='{"prompt_tokens": 5}'),
    )

    assert [summary.kind for summary in world.ears.told] == ["refused", "other", "unattributed"]
    assert [summary.kind for summary in world.audit.told] == ["refused", "unattributed"]
    assert world.ears.told[2].bill is not None
    assert world.ears.told[2].bill.usage.prompt == 5


def test_other_records_that_come_again_are_told_once() -> None:
    world = World()

    assert world.take(record("a"), record("a", outcome="refused"), record("b"), record("a"))

    assert world.ears.counted == {"other": 2, "repeated": 2}
    assert len(world.ears.told) == 2


@pytest.mark.parametrize("noted", [{"reserved": "what?"}, {"reservation": ""}])
def test_a_call_that_cannot_be_settled_is_counted_and_taken(noted: dict[str, str]) -> None:
    world = World()
    world.admit()

    assert world.take(call(**({"reserved": ""} | noted)))

    assert world.ears.counted == {"unsettleable": 1}
    assert world.sums() == (0, 500)


def test_an_observer_that_fails_keeps_nobody_from_hearing_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(first=Bad())

    assert world.take(call(world.admit("r1"), "r1"), call(world.admit("r2"), "r2"))

    assert world.sums() == (240, 0)
    assert "observer.failed ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_a_bug_in_one_record_does_not_hold_up_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    broken = call("")._replace(noted=None)  # type: ignore[arg-type]

    assert world.take(broken, call(world.admit()))

    assert world.sums() == (120, 0)
    assert world.ears.counted == {"failed": 1, "call": 1}
    assert "record.failed AttributeError" in caplog.text


def test_a_batch_of_any_length_is_settled_in_order() -> None:
    world = World()
    claim = CLAIM._replace(amount=1, expected=1)
    names = [f"r{number}" for number in range(SLICE * 2 + 5)]
    outcomes = [call(world.admit(name, claim), name) for name in names]

    assert world.take(*outcomes)

    assert [summary.outcome.noted.reservation for summary in world.ears.told] == names
    assert world.take()


def test_what_is_learnt_is_written_with_the_next_batch_and_read_again() -> None:
    world = World()
    for number in range(ANSWERS_MIN):
        world.take(call("", f"r{number}", model="claude-sonnet", requested_model="claude-sonnet"))
    assert world.take(record("x"))

    known = experiences(world.ledger.notes(LEARNT))

    assert known == world.desk.known
    assert known["claude-sonnet"].answers == ANSWERS_MIN
    world.rulebook.learn(known)
    scale = world.rulebook.rules.policy.models["claude-sonnet"].scale
    assert scale == pytest.approx(1.25 * 100 / 90)
    assert world.rulebook.correction("claude-sonnet") == pytest.approx(100 / 90)


def test_a_correction_in_force_is_not_learnt_again() -> None:
    world = World()
    about = {"model": "claude-sonnet", "requested_model": "claude-sonnet"}
    for number in range(400):
        estimate = round(90 * world.rulebook.correction("claude-sonnet"))
        world.take(call("", f"r{number}", prompt_tokens=estimate, **about))
        world.rulebook.learn(world.desk.known)

    assert world.rulebook.correction("claude-sonnet") == pytest.approx(100 / 90, rel=0.02)


@pytest.mark.parametrize(
    "noted",
    [
        pytest.param({"usage": ""}, id="an estimate teaches nothing"),
        pytest.param({"model": "somebody's"}, id="nor a model we don't know"),
    ],
)
def test_not_everything_teaches(noted: dict[str, str]) -> None:
    world = World()

    assert world.take(call(world.admit(), **noted))

    assert world.desk.known == {}


def test_notes_that_cannot_be_read_are_learnt_anew() -> None:
    assert experiences({"learnt/a": "{", "learnt/b": '{"answers": 3}'}).keys() == {"b"}


def test_the_rulebook_of_an_unknown_model_corrects_nothing() -> None:
    assert Rulebook(load_file(SETTINGS)).correction("nobody") == 1.0
    assert app.LEARN_SECONDS > 0


def test_what_no_ledger_can_keep_does_not_hold_up_the_rest() -> None:
    class Picky(MemoryLedger):
        async def settle(
            self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
        ) -> tuple[Settled, ...]:
            if any(settlement.reservation == "odd" for settlement in settlements):
                raise ValueError
            return await super().settle(settlements, notes)

    world = World(Picky(Clock(), reservation_seconds=100))

    assert world.take(call("", "odd"), call(world.admit()))

    assert world.sums() == (120, 0)
    assert world.ears.counted == {"unsettleable": 1, "call": 1}
