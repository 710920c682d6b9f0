"""extproc/server/meeting.py: records and sightings find each other, or don't."""

from collections import Counter

import pytest

from extproc.exchange.outcome import Outcome
from extproc.exchange.sightings import Sighting, merged
from extproc.ledger.port import NOTES_MAX
from extproc.llm.sse import Seen
from extproc.server import meeting
from extproc.server.meeting import (
    PARK_SECONDS,
    PARKED,
    PARKED_MAX,
    SIGHTED,
    SIGHTING_SECONDS,
    SIGHTINGS_KEPT_MAX,
    Meeting,
    Sorted,
)
from tests.ledger_books import NOON, Clock
from tests.unit.test_desk import record
from tests.unit.test_sightings import SEEN, call, seen_in


class World:
    """A meeting, and the notes of a ledger that commits whatever it is told."""

    def __init__(self, notes: dict[str, str] | None = None) -> None:
        self.clock = Clock()
        self.cases: Counter[str] = Counter()
        self.meeting = Meeting(self.clock, self._count)
        self.notes = dict(notes or {})
        self.meeting.restore(self.notes)

    def _count(self, case: str) -> None:
        self.cases[case] += 1

    def take(self, *outcomes: Outcome) -> Sorted:
        """Sort, and commit."""
        return self.commit(self.meeting.sort(outcomes))

    def due(self) -> Sorted:
        return self.commit(self.meeting.due())

    def commit(self, found: Sorted) -> Sorted:
        for name, text in found.notes.items():
            if text is None:
                self.notes.pop(name, None)
            else:
                self.notes[name] = text
        self.meeting.settle(found)
        return found

    def see(self, name: str = "r1", seen: Seen = SEEN, *, is_whole: bool = True) -> None:
        self.meeting.see(Sighting(name, seen, is_whole))


def test_what_waits_for_nothing_passes_as_it_is() -> None:
    world = World()
    outcomes = (call(meter=""), record("x", outcome="refused"), record("y"))

    assert world.take(*outcomes) == Sorted(outcomes, (), (), {})
    assert world.cases == {}


# --- In whichever order


def test_a_record_that_comes_second_is_settled_at_once() -> None:
    world = World()
    world.see()

    found = world.take(call())

    assert [seen_in(outcome) for outcome in found.ready] == [SEEN]
    assert (found.waiting, world.notes, world.meeting.size) == ((), {}, (0, 0))
    assert world.cases == {"met": 1}


def test_a_record_that_comes_first_is_noted_down_until_its_sighting_comes() -> None:
    world = World()
    outcome = call()

    assert world.take(outcome)[:3] == ((), (outcome,), ())
    assert (list(world.notes), world.meeting.size) == ([PARKED + "r1"], (1, 0))
    assert world.due().ready == ()

    world.see()

    assert world.due() == Sorted(
        (merged(outcome, Sighting("r1", SEEN, is_whole=True)),), (), (), {"parked/r1": None}
    )
    assert (world.notes, world.meeting.size, world.cases) == ({}, (0, 0), {"met": 1})


def test_a_sighting_that_comes_while_its_record_is_written_down_meets_it() -> None:
    world = World()
    found = world.meeting.sort([call()])
    world.see()

    world.commit(found)

    assert world.meeting.size == (1, 0)
    assert [seen_in(outcome) for outcome in world.due().ready] == [SEEN]


def test_nothing_changes_before_it_is_committed() -> None:
    world = World()
    world.see("r1")

    first = world.meeting.sort([call("r1"), call("r2")])
    assert world.meeting.sort([call("r1"), call("r2")]) == first

    world.commit(first)
    world.see("r2")
    assert world.meeting.due() == world.meeting.due()
    assert world.due().ready == (merged(call("r2"), Sighting("r2", SEEN, is_whole=True)),)


# --- What does not meet


def test_a_record_waits_for_its_deadline_and_not_longer() -> None:
    world = World()
    world.take(call())

    world.clock.now += PARK_SECONDS - 0.1
    assert world.due().ready == ()
    world.clock.now += 0.1
    assert [seen_in(outcome).error for outcome in world.due().ready] == ["unobserved"]
    assert (world.cases, world.notes) == ({"unobserved": 1}, {})


def test_a_clock_that_is_set_back_holds_no_record_up() -> None:
    world = World()
    world.take(call())
    world.see("r2")

    world.clock.now -= 3_600

    assert len(world.due().ready) == 1
    assert world.meeting.size == (0, 0)


def test_a_sighting_without_a_record_is_forgotten_after_a_while() -> None:
    world = World()
    world.see("r1")
    world.clock.now += SIGHTING_SECONDS - 0.1
    world.see("r2")
    assert world.meeting.size == (0, 2)

    world.clock.now += 0.1
    world.due()

    assert (world.meeting.size, world.cases) == ((0, 1), {"sighting_unmet": 1})


def test_a_sighting_that_comes_after_the_deadline_is_late() -> None:
    world = World()
    world.take(call())
    world.clock.now += PARK_SECONDS
    world.due()

    world.see()

    assert world.cases == {"unobserved": 1, "sighting_late": 1}
    assert world.meeting.size == (0, 0)


def test_a_sighting_that_comes_while_its_record_is_settled_without_it_is_late() -> None:
    world = World()
    world.take(call())
    world.clock.now += PARK_SECONDS
    found = world.meeting.due()
    world.see()

    world.commit(found)

    assert world.cases == {"unobserved": 1, "sighting_late": 1}
    assert (world.meeting.size, world.due().ready) == ((0, 0), ())


# --- What comes again


def test_a_record_that_comes_again_is_neither_settled_nor_parked_again() -> None:
    world = World()
    outcome = call()
    world.take(outcome)
    assert world.take(outcome, outcome)[:3] == ((), (), (outcome, outcome))

    world.see()
    world.due()

    assert world.take(outcome)[:3] == ((), (), (outcome,))
    assert (world.notes, world.meeting.size) == ({}, (0, 0))


def test_a_record_that_comes_twice_in_a_batch_is_parked_once() -> None:
    world = World()

    found = world.take(call(), call())

    assert (len(found.waiting), len(found.repeated), world.meeting.size) == (1, 1, (1, 0))


def test_two_batches_with_one_record_leave_nothing_behind() -> None:
    world = World()
    first, second = (world.meeting.sort([call()]) for _ in range(2))
    world.commit(first)
    world.see()
    world.due()

    world.commit(second)  # writes the note that was just deleted
    world.due()

    assert (world.notes, world.meeting.size) == ({}, (0, 0))
    assert world.cases == {"met": 1}
    assert world.due() == Sorted((), (), (), {})


def test_a_record_that_is_parked_keeps_its_sighting_when_its_twin_is_written_down() -> None:
    world = World()
    first, second = (world.meeting.sort([call()]) for _ in range(2))
    world.commit(first)
    world.see()

    world.commit(second)

    assert [seen_in(outcome) for outcome in world.due().ready] == [SEEN]


def test_what_was_metered_in_envoy_is_not_remembered_here() -> None:
    world = World()
    world.take(call(meter=""))

    world.see()

    assert (world.meeting.size, world.cases) == ((0, 1), {})


@pytest.mark.parametrize("is_parked", [False, True])
def test_the_first_sighting_counts(*, is_parked: bool) -> None:
    world = World()
    if is_parked:
        world.take(call())
    world.see()
    world.see(seen=Seen("", "", 1, 1))

    found = world.due() if is_parked else world.take(call())

    assert [seen_in(outcome) for outcome in found.ready] == [SEEN]
    assert world.cases == {"sighting_repeated": 1, "met": 1}


def test_a_sighting_of_what_was_settled_without_one_is_late_at_once() -> None:
    world = World()
    world.take(call()._replace(status=503))

    world.see()

    assert (world.meeting.size, world.cases) == ((0, 0), {"sighting_late": 1})


# --- Bounds


def test_beyond_so_many_parked_records_are_settled_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meeting, "PARKED_MAX", 3)
    world = World()
    world.take(call("r1"))

    found = world.take(call("r2"), call("r3"), call("r4"))

    assert [outcome.noted.reservation for outcome in found.waiting] == ["r2", "r3"]
    assert [seen_in(outcome).error for outcome in found.ready] == ["unobserved"]
    assert (world.meeting.size, world.cases) == ((3, 0), {"no_room": 1})


def test_a_sighting_that_comes_while_there_is_no_room_for_its_record_is_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meeting, "PARKED_MAX", 0)
    world = World()
    found = world.meeting.sort([call()])
    world.see()

    world.commit(found)

    assert world.cases == {"no_room": 1, "sighting_late": 1}
    assert world.meeting.size == (0, 0)


def test_a_record_that_fits_no_note_is_settled_at_once() -> None:
    world = World()

    found = world.take(call(reserved="x" * 8_000), call("r2", reserved="x" * 5_000))

    assert [seen_in(outcome).error for outcome in found.ready] == ["unobserved"]
    assert (len(found.waiting), world.cases) == (1, {"no_room": 1})


def test_beyond_so_many_sightings_the_oldest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meeting, "SIGHTINGS_MAX", 2)
    world = World()
    for name in ("r1", "r2", "r3"):
        world.see(name)

    assert (world.meeting.size, world.cases) == ((0, 2), {"sighting_forgotten": 1})
    assert len(world.take(call("r1"), call("r3")).waiting) == 1


def test_beyond_so_many_settled_ones_the_oldest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meeting, "OVER_MAX", 2)
    world = World()
    for name in ("r1", "r2", "r3"):
        world.see(name)
        world.take(call(name))

    assert [len(part) for part in world.take(call("r1"), call("r2"))[:3]] == [0, 1, 1]


def test_what_waits_leaves_room_for_other_notes() -> None:
    assert PARKED_MAX + SIGHTINGS_KEPT_MAX < NOTES_MAX


# --- Over a restart


def test_what_waited_before_a_restart_waits_on() -> None:
    before = World()
    before.take(call("r1"), call("r2"))
    before.see("r3")

    after = World({**before.notes, **before.meeting.kept()})

    assert after.meeting.size == (2, 1)
    after.see("r1")
    after.clock.now += PARK_SECONDS
    found = [*after.due().ready, *after.take(call("r3")).ready]
    assert [seen_in(outcome).error for outcome in found] == ["", "unobserved", ""]
    assert found[2] == merged(call("r3"), Sighting("r3", SEEN, is_whole=True))
    after.due()
    assert after.notes == {}


def test_a_sighting_that_was_kept_in_vain_leaves_nothing_behind() -> None:
    before = World()
    before.see()
    after = World(dict(before.meeting.kept()))

    after.clock.now += SIGHTING_SECONDS
    after.due()

    assert (after.notes, after.meeting.size) == ({}, (0, 0))


def test_the_latest_sightings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "SIGHTINGS_KEPT_MAX", 2)
    world = World()
    for name in ("r1", "r2", "r3"):
        world.see(name)

    assert list(world.meeting.kept()) == [SIGHTED + "r2", SIGHTED + "r3"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("parked/r1", "{", id="no JSON"),
        pytest.param("parked/r1", '[1,["x"]]', id="another version's record"),
        pytest.param("seen/r1", "[]", id="another version's sighting"),
        pytest.param("seen/r2", '[1789041660,["r1",["","",0,0,""],true]]', id="another's name"),
    ],
)
def test_a_note_that_cannot_be_read_is_counted_and_deleted(name: str, text: str) -> None:
    world = World({name: text})

    assert (world.meeting.size, world.cases) == ((0, 0), {"unreadable": 1})
    world.due()
    assert world.notes == {}


def test_a_sighting_note_is_read_as_it_was_written() -> None:
    world = World({"seen/r1": f'[{NOON + 60},["r1",["","",3,4,""],true]]'})

    assert [seen_in(outcome) for outcome in world.take(call()).ready] == [Seen("", "", 3, 4)]
