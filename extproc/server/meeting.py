"""Where the record of a request and what was seen of its answer meet (`meter: observe`).

They come by two ways and in any order; a reservation names both. No I/O here, and the clock is
an argument: `parking.py` commits what is decided here.

1.  Whoever comes first waits: a record in the ledger's notes, so that it outlives the process; a
    sighting in memory, and in the notes only when the process ends in peace.
2.  A record waits until its deadline, then it is settled unobserved.
3.  Nothing has changed until it is committed: `sort` and `due` only look, `settle` and `park`
    write down what became true.
4.  Both waits are bounded. Beyond it a record is settled at once, and the oldest sighting goes.

They must meet in one process, so the settings refuse this with a ledger that several share.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple

import msgspec

from extproc.exchange.names import OBSERVE
from extproc.exchange.outcome import Outcome
from extproc.exchange.sightings import UNOBSERVED, Sighting, merged, needs_sighting
from extproc.ledger.port import NOTE_CHARS_MAX

PARK_SECONDS: Final = 10.0
"""How long a record waits. Of a client that left, Envoy tells us when `deferred_close_timeout`
(5 s) is over."""

SIGHTING_SECONDS: Final = 60.0
"""How long a sighting waits: records may be held up by an outage of ours."""

PARKED_MAX: Final = 5_000
"""Records that wait, in half of the notes that a ledger keeps."""

SIGHTINGS_MAX: Final = 10_000
"""Sightings that wait; 8 KiB each at worst."""

SIGHTINGS_KEPT_MAX: Final = 2_500
"""Of these, so many are kept over a restart."""

OVER_MAX: Final = 100_000
"""Settled reservations that are remembered, so that what comes once more is known as such."""

PARKED: Final = "parked/"
"""Prefix of the ledger's notes that hold records."""

SIGHTED: Final = "seen/"
"""Prefix of those that hold sightings."""

Case = Literal[
    "watched",
    "cut_off",
    "failed",
    "malformed",
    "not_wanted",
    "unnamed",
    "too_many",
    "met",
    "unobserved",
    "no_room",
    "unreadable",
    "sighting_late",
    "sighting_repeated",
    "sighting_unmet",
    "sighting_forgotten",
]
"""What becomes of observed streams, of records that need them, and of sightings."""

Count = Callable[[Case], None]


class Sorted(NamedTuple):
    """A batch of records: what can be settled, what has to wait, and what was there before.

    `notes` belong into the ledger together with the settlements of what is ready.
    """

    ready: tuple[Outcome, ...]
    waiting: tuple[Outcome, ...]
    repeated: tuple[Outcome, ...]
    notes: Mapping[str, str | None]


class _Parked(NamedTuple):
    until: float
    outcome: Outcome
    sighting: Sighting | None = None


class _Kept(NamedTuple):
    until: float
    sighting: Sighting


_PARKED: Final = msgspec.json.Decoder(_Parked)
_KEPT: Final = msgspec.json.Decoder(_Kept)


class Meeting:
    """All that waits. `count` is told of each case, by its name."""

    def __init__(self, clock: Callable[[], float], count: Count) -> None:
        self._clock = clock
        self._count = count
        self._sightings: OrderedDict[str, _Kept] = OrderedDict()
        self._parked: dict[str, _Parked] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self._stale: set[str] = set()
        """Notes that nobody needs any more, and that are still to be deleted."""

    @property
    def size(self) -> tuple[int, int]:
        """How many records and how many sightings wait."""
        return len(self._parked), len(self._sightings)

    def see(self, sighting: Sighting) -> None:
        """Give it to its record, or let it wait for that."""
        name = sighting.reservation
        parked = self._parked.get(name)
        if parked is not None and parked.sighting is None:
            self._parked[name] = parked._replace(sighting=sighting)
        elif parked is not None or name in self._sightings:
            self._count("sighting_repeated")
        elif name in self._over:
            self._count("sighting_late")
        else:
            self._sightings[name] = _Kept(self._clock() + SIGHTING_SECONDS, sighting)
            if len(self._sightings) > SIGHTINGS_MAX:
                self._sightings.popitem(last=False)
                self._count("sighting_forgotten")

    def sort(self, outcomes: Iterable[Outcome]) -> Sorted:
        """Say what is to become of a batch of records."""
        ready: list[Outcome] = []
        repeated: list[Outcome] = []
        waiting: dict[str, Outcome] = {}
        notes: dict[str, str | None] = {}
        for outcome in outcomes:
            name = outcome.noted.reservation
            if not needs_sighting(outcome):
                ready.append(outcome)
            elif name in self._over or name in self._parked or name in waiting:
                repeated.append(outcome)
            elif name in self._sightings:
                ready.append(merged(outcome, self._sightings[name].sighting))
            else:
                note = self._note_of(outcome)
                if len(self._parked) + len(waiting) >= PARKED_MAX or len(note) > NOTE_CHARS_MAX:
                    ready.append(merged(outcome, None))
                    continue
                waiting[name] = outcome
                notes[PARKED + name] = note.decode()
        return Sorted(tuple(ready), tuple(waiting.values()), tuple(repeated), notes)

    def due(self) -> Sorted:
        """Say which records need not wait any more, as `sort` does."""
        self._forget_old()
        now = self._clock()
        ready = [
            merged(parked.outcome, parked.sighting)
            for parked in self._parked.values()
            if parked.sighting is not None or not now < parked.until <= now + PARK_SECONDS
        ]
        names = [PARKED + outcome.noted.reservation for outcome in ready]
        return Sorted(tuple(ready), (), (), dict.fromkeys([*self._stale, *names]))

    def settle(self, done: Sorted) -> None:
        """Take into account that what was ready is settled, and what waits is noted down."""
        self._stale -= {name for name, text in done.notes.items() if text is None}
        for outcome in done.ready:
            if outcome.noted.meter == OBSERVE and outcome.noted.reservation:
                self._settle(outcome)
        for outcome in done.waiting:
            self._park(outcome)

    def _settle(self, outcome: Outcome) -> None:
        name = outcome.noted.reservation
        parked = self._parked.pop(name, None)
        kept = self._sightings.pop(name, None)
        is_unobserved = outcome.noted.meter_error == UNOBSERVED
        if is_unobserved and (kept or (parked and parked.sighting)):
            self._count("sighting_late")
        if is_unobserved:
            self._count("no_room" if parked is None else "unobserved")
        elif kept or parked:
            self._count("met")
        self._over[name] = None
        if len(self._over) > OVER_MAX:
            self._over.popitem(last=False)

    def _park(self, outcome: Outcome) -> None:
        name = outcome.noted.reservation
        if name in self._over:
            self._stale.add(PARKED + name)  # its twin was settled while this one was written
        elif name not in self._parked:
            kept = self._sightings.pop(name, None)
            until = self._clock() + PARK_SECONDS
            self._parked[name] = _Parked(until, outcome, kept.sighting if kept else None)

    def restore(self, notes: Mapping[str, str]) -> None:
        """Take up what was waiting when the process before this one ended."""
        for name, text in notes.items():
            try:
                self._restore(name, text)
            except (msgspec.DecodeError, KeyError):
                self._stale.add(name)
                self._count("unreadable")

    def _restore(self, name: str, text: str) -> None:
        """Take up one note.

        Raises:
            DecodeError: it is none of ours.
            KeyError: it is about another reservation than its name says.
        """
        if name.startswith(PARKED):
            parked = _PARKED.decode(text)
            self._parked[_same(parked.outcome.noted.reservation, name, PARKED)] = parked
        else:
            kept = _KEPT.decode(text)
            self._sightings[_same(kept.sighting.reservation, name, SIGHTED)] = kept
            self._stale.add(name)

    def kept(self) -> Mapping[str, str]:
        """The latest sightings, as notes for the process after this one."""
        names = list(self._sightings)[-SIGHTINGS_KEPT_MAX:]
        return {
            SIGHTED + name: msgspec.json.encode(self._sightings[name]).decode() for name in names
        }

    def _note_of(self, outcome: Outcome) -> bytes:
        return msgspec.json.encode(_Parked(self._clock() + PARK_SECONDS, outcome))

    def _forget_old(self) -> None:
        now = self._clock()
        while self._sightings:
            name, kept = next(iter(self._sightings.items()))
            if now < kept.until <= now + SIGHTING_SECONDS:
                return
            del self._sightings[name]
            self._count("sighting_unmet")


def _same(reservation: str, name: str, prefix: str) -> str:
    if name != prefix + reservation:
        raise KeyError(name)
    return reservation
