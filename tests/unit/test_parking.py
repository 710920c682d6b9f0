"""extproc/server/parking.py: what waits is committed before that is said, and settled once."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from extproc.config.loader import load_file
from extproc.exchange.holds import holds_text
from extproc.exchange.outcome import Outcome
from extproc.exchange.sightings import Sighting
from extproc.ledger.memory import MemoryLedger
from extproc.ledger.port import NO_NOTES
from extproc.llm.sse import Seen
from extproc.policy.budgets import Settled, Settlement
from extproc.server.desk import Desk
from extproc.server.meeting import PARK_SECONDS, PARKED, Meeting
from extproc.server.parking import Parking
from extproc.server.rulebook import Rulebook
from tests.ledger_books import NOON, Clock
from tests.unit.test_desk import CLAIM, Ears, record
from tests.unit.test_desk import World as DeskWorld
from tests.unit.test_sightings import SEEN, call

SETTINGS = Path(__file__).parents[1] / "scenarios" / "policy.yaml"


class Fickle(MemoryLedger):
    """A ledger that fails as it is told to."""

    fault: ValueError | OSError | None = None
    is_full = False
    odd = ""

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        if self.fault is not None:
            raise self.fault
        if self.is_full:
            return tuple("unavailable" for _ in settlements)
        if any(settlement.reservation == self.odd for settlement in settlements):
            raise ValueError
        return await super().settle(settlements, notes)


class World:
    def __init__(self, ledger: Fickle | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.ledger = ledger or Fickle(self.clock, reservation_seconds=100)
        self.ears, self.audit = Ears(), Ears()
        self.cases: Counter[str] = Counter()
        rulebook = Rulebook(load_file(SETTINGS))
        desk = Desk(
            rulebook,
            self.ledger,
            self.clock,
            observers=(self.ears,),
            audit=self.audit,
            tally=self.ears,
        )
        self.meeting = Meeting(self.clock, lambda case: self.cases.update([case]))
        self.parking = Parking(desk, self.ledger, self.meeting, self.ears)

    def take(self, *outcomes: Outcome) -> bool:
        return asyncio.run(self.parking.take(outcomes))

    def settle_due(self) -> None:
        asyncio.run(self.parking.settle_due())

    def see(self, name: str = "r1", seen: Seen = SEEN) -> None:
        self.meeting.see(Sighting(name, seen, is_whole=True))

    def parked(self) -> list[str]:
        return list(self.ledger.notes(PARKED))

    def sums(self) -> tuple[int, int]:
        (standing,) = asyncio.run(self.ledger.standing("acme", (CLAIM,), at=NOON))
        return standing.committed, standing.reserved


def held(world: World, name: str = "r1") -> Outcome:
    """An observed call whose budget is held."""
    desk = DeskWorld(world.ledger)
    reserved = desk.admit(name)
    return call(name, tenant="acme", model="gpt-4", prompt_tokens=90, reserved=reserved)


def test_a_record_without_a_sighting_is_committed_as_a_note_and_told_later() -> None:
    world = World()

    assert world.take(held(world), record("x"))

    assert (world.parked(), world.sums()) == (["parked/r1"], (0, 500))
    assert [summary.kind for summary in world.ears.told] == ["other"]

    world.see()
    world.settle_due()

    assert (world.parked(), world.sums()) == ([], (120, 0))
    assert world.ears.counted == {"other": 1, "call": 1}
    assert [summary.outcome.noted.usage for summary in world.audit.told] == [SEEN.usage]


def test_a_record_whose_sighting_is_there_is_settled_with_its_batch() -> None:
    world = World()
    world.see()

    assert world.take(held(world))

    assert (world.parked(), world.sums(), world.cases) == ([], (120, 0), {"met": 1})


def test_a_record_whose_sighting_does_not_come_is_estimated_by_its_length() -> None:
    world = World()
    assert world.take(held(world)._replace(bytes_sent=1_280))

    world.clock.now += PARK_SECONDS
    world.settle_due()

    (summary,) = world.ears.told
    assert summary.bill is not None
    assert (summary.bill.source, summary.bill.usage.total) == ("estimated", 100)
    assert (world.sums(), world.cases) == ((100, 0), {"unobserved": 1})


def test_what_comes_again_is_counted_and_not_told() -> None:
    world = World()
    outcome = held(world)
    world.take(outcome)
    assert world.take(outcome)
    world.see()
    world.settle_due()
    world.settle_due()
    assert world.take(outcome)

    assert world.ears.counted == {"call": 1, "repeated": 2}
    assert len(world.audit.told) == 1
    assert world.sums() == (120, 0)


@pytest.mark.parametrize("also", [(), (call("r2", meter=""),)], ids=["alone", "with others"])
def test_what_the_ledger_does_not_keep_is_to_come_again(also: tuple[Outcome, ...]) -> None:
    world = World()
    outcome = held(world)
    world.ledger.is_full = True

    assert not world.take(outcome, *also)
    assert (world.meeting.size, world.ears.counted, world.cases) == ((0, 0), {}, {})

    world.ledger.is_full = False
    assert world.take(outcome, *also)
    assert (world.parked(), world.meeting.size) == (["parked/r1"], (1, 0))


def test_a_sighting_survives_a_ledger_that_does_not_keep_the_settlement() -> None:
    world = World()
    outcome = held(world)
    world.see()
    world.ledger.is_full = True
    assert not world.take(outcome)

    world.ledger.is_full = False
    assert world.take(outcome)

    assert (world.sums(), world.cases) == ((120, 0), {"met": 1})


def test_what_cannot_be_settled_now_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.take(held(world))
    world.see()

    world.ledger.is_full = True
    world.settle_due()
    world.ledger.is_full, world.ledger.fault = False, OSError(5, "a secret")
    world.settle_due()
    assert (world.parked(), world.meeting.size, world.cases) == (["parked/r1"], (1, 0), {})

    world.ledger.fault = None
    world.settle_due()
    assert (world.parked(), world.sums(), world.cases) == ([], (120, 0), {"met": 1})
    assert "parking.failed OSError" in caplog.text
    assert "secret" not in caplog.text


def test_what_no_ledger_can_keep_keeps_no_note_from_being_written() -> None:
    world = World()
    world.ledger.odd = "odd"

    assert world.take(held(world), call("odd", meter=""))

    assert world.parked() == ["parked/r1"]


def test_what_waited_before_a_restart_is_settled_after_it() -> None:
    before = World()
    assert before.take(held(before), held(before, "r2"))
    before.see("r2")
    before.see("r3")
    asyncio.run(before.parking.leave())
    assert before.sums() == (120, 500)

    after = World(before.ledger, before.clock)
    reserved = holds_text((CLAIM,), (NOON,))
    assert after.take(call("r3", tenant="acme", model="gpt-4", reserved=reserved))
    after.clock.now += PARK_SECONDS
    after.settle_due()
    after.settle_due()

    assert after.cases == {"met": 1, "unobserved": 1}
    assert after.sums() == (120 + 120 + 90 + 1_000 // 128, 0)
    assert after.ledger.notes(PARKED) == after.ledger.notes("seen/") == {}


def test_what_was_left_is_a_note_no_longer_once_it_is_read() -> None:
    before = World()
    before.see()
    asyncio.run(before.parking.leave())
    assert list(before.ledger.notes("seen/")) == ["seen/r1"]

    after = World(before.ledger, before.clock)
    after.settle_due()

    assert (after.ledger.notes("seen/"), after.meeting.size) == ({}, (0, 1))


def test_what_is_being_settled_is_told_though_nobody_waits_for_it_any_more() -> None:
    class Slow(Fickle):
        gate = asyncio.Event()

        async def settle(
            self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
        ) -> tuple[Settled, ...]:
            settled = await super().settle(settlements, notes)
            await self.gate.wait()
            return settled

    clock = Clock()
    ledger = Slow(clock, reservation_seconds=100)
    ledger.gate.set()
    world = World(ledger, clock)
    world.take(held(world))
    world.see()

    async def run() -> None:
        ledger.gate.clear()
        settling = asyncio.ensure_future(world.parking.settle_due())
        await asyncio.sleep(0)
        leaving = asyncio.ensure_future(world.parking.leave())
        await asyncio.sleep(0)
        settling.cancel()
        await asyncio.wait([settling])
        assert world.ears.told == []
        ledger.gate.set()
        await leaving

    asyncio.run(run())

    assert [summary.settled for summary in world.audit.told] == ["settled"]
    assert world.cases == {"met": 1}


def test_nothing_is_asked_of_the_ledger_while_nothing_is_due(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.take(held(world))
    world.ledger.fault = OSError(5)

    world.settle_due()

    assert (world.meeting.size, caplog.text) == ((1, 0), "")
