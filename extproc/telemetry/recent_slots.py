"""How much there was lately, and how it was spread: in slots of time, so that it stays small.

Time is seconds that only ever go forward; whoever owns these sees to that.
"""

import math
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

SLOT_SECONDS: Final = 10
"""Of what is shown of the last minutes."""

STEPS_PER_DOUBLING: Final = 8
"""Of the scale that values are sorted into: a quantile is right to within 5 %."""

_VALUE_MIN: Final = 1e-6
_VALUE_MAX: Final = 1e9

OTHER: Final = "other"
"""Stands for every name beyond a limit."""


class Amounts:
    """What was added in each of the last `count` slots of `slot_seconds`."""

    __slots__ = ("_amounts", "_slot", "_slot_seconds")

    def __init__(self, count: int, slot_seconds: int = SLOT_SECONDS) -> None:
        self._slot_seconds = slot_seconds
        self._slot = 0
        self._amounts = array("d", bytes(8 * count))

    def add(self, now: float, amount: float) -> None:
        """Count `amount` as of now."""
        self._forget(now)
        self._amounts[self._slot % len(self._amounts)] += amount

    def over(self, now: float, seconds: float) -> float:
        """What was added in the last `seconds`; of the slot they begin in, its share.

        At most one slot less than there are.
        """
        self._forget(now)
        count = len(self._amounts)
        into = now - self._slot * self._slot_seconds
        slots = min((seconds - into) / self._slot_seconds, count - 1)
        whole = math.floor(slots)
        numbers = range(self._slot - max(0, whole), self._slot + 1)
        total = math.fsum(self._amounts[number % count] for number in numbers)
        if whole < slots:
            total += (slots - whole) * self._amounts[(self._slot - whole - 1) % count]
        return total

    def slots(self) -> dict[int, float]:
        """What was added, by slots since the beginning; of those that are left, none that is 0."""
        count, last = len(self._amounts), self._slot
        numbers = range(max(0, last - count + 1), last + 1)
        found = ((number, self._amounts[number % count]) for number in numbers)
        return {number: amount for number, amount in found if amount}

    def absorb(self, slots: Mapping[int, float]) -> None:
        """Add what `slots` of another gave, that began at the same instant."""
        for number, amount in sorted(slots.items()):
            self._forget(number * self._slot_seconds)
            if number > self._slot - len(self._amounts):
                self._amounts[number % len(self._amounts)] += amount

    def _forget(self, now: float) -> None:
        """Make room for the slots that have begun since the last call."""
        slot = int(now // self._slot_seconds)
        if slot <= self._slot:
            return
        count = len(self._amounts)
        for passed in range(max(self._slot + 1, slot - count + 1), slot + 1):
            self._amounts[passed % count] = 0.0
        self._slot = slot


class Spread:
    """How values of the last `count` slots were spread, each to within a few percent."""

    __slots__ = ("_count", "_slots")

    def __init__(self, count: int) -> None:
        self._count = count
        self._slots: OrderedDict[int, dict[int, int]] = OrderedDict()

    def add(self, now: float, value: float) -> None:
        """Take a value of now into account. It is positive."""
        slot = int(now // SLOT_SECONDS)
        if slot not in self._slots:
            self._slots[slot] = {}
            self._forget(slot)
        steps = self._slots[slot]
        step = round(math.log2(min(max(value, _VALUE_MIN), _VALUE_MAX)) * STEPS_PER_DOUBLING)
        steps[step] = steps.get(step, 0) + 1

    def quantiles(self, now: float, *shares: float, slots: int) -> tuple[float | None, ...]:
        """For each share, the value that this share of the last `slots` does not exceed."""
        first = int(now // SLOT_SECONDS) - slots
        merged: dict[int, int] = {}
        for slot, steps in self._slots.items():
            if slot > first:
                for step, times in steps.items():
                    merged[step] = merged.get(step, 0) + times
        ordered = sorted(merged.items())
        return tuple(_quantile(ordered, share) for share in shares)

    def slots(self) -> dict[int, dict[int, int]]:
        """How often each step of the scale came, by slots since the beginning."""
        return {slot: steps.copy() for slot, steps in self._slots.items()}

    def absorb(self, slots: Mapping[int, Mapping[int, int]]) -> None:
        """Add what `slots` of another gave, that began at the same instant."""
        for slot, steps in slots.items():
            ours = self._slots.setdefault(slot, {})
            for step, times in steps.items():
                ours[step] = ours.get(step, 0) + times
        self._slots = OrderedDict(sorted(self._slots.items())[-self._count :])

    def _forget(self, slot: int) -> None:
        while next(iter(self._slots)) <= slot - self._count:
            self._slots.popitem(last=False)


def _quantile(ordered: list[tuple[int, int]], share: float) -> float | None:
    rank = share * sum(times for _, times in ordered)
    for step, times in ordered:
        rank -= times
        if rank <= 0:
            return math.exp2(step / STEPS_PER_DOUBLING)
    return None


class Quantiles(NamedTuple):
    """The median of the last half minute; the median and a tail of the last five."""

    now: float | None
    median: float | None
    tail: float | None


class Entry(Protocol):
    """Whatever is kept by name."""

    used: float
    """When it was last of use, in the seconds of whoever keeps it."""


T = TypeVar("T", bound=Entry)
K = TypeVar("K")


class Kept(Generic[K, T]):
    """Entries by name: at most `entries_max`, and only those used in the last `seconds`.

    What comes beyond shares the entry `other`, which is one more.
    """

    def __init__(self, new: Callable[[], T], other: K, *, entries_max: int, seconds: float) -> None:
        self._new = new
        self._other = other
        self._entries_max = entries_max
        self._seconds = seconds
        self._entries: OrderedDict[K, T] = OrderedDict()
        """Those used last come last."""

    def __len__(self) -> int:
        return len(self._entries)

    def use(self, name: K, now: float) -> T:
        """The entry of that name, or the one that stands for too many."""
        entry = self._entries.get(name)
        if entry is None:
            self._forget(now)
            if len(self._entries) >= self._entries_max:
                name = self._other
            entry = self._entries.get(name) or self._new()
            self._entries[name] = entry
        self._entries.move_to_end(name)
        entry.used = now
        return entry

    def find(self, name: K) -> T | None:
        """The entry of that name, if there is one."""
        return self._entries.get(name)

    def items(self, now: float) -> Iterator[tuple[K, T]]:
        """All that were used lately."""
        self._forget(now)
        return iter(self._entries.items())

    def _forget(self, now: float) -> None:
        while self._entries:
            name, oldest = next(iter(self._entries.items()))
            if oldest.used > now - self._seconds:
                break
            del self._entries[name]
