"""Budgets in the memory of one process: exact, fast, and gone with it."""

from collections.abc import Callable, Mapping, Sequence

from extproc.ledger.bounds import BOUNDS, Bounds
from extproc.ledger.holdings import Holdings, Plan
from extproc.ledger.notes import Notes, check, unavailable
from extproc.ledger.port import NO_NOTES, Size, Standing, Sum
from extproc.policy.budgets import Answer, Claim, DecidedBy, Reserve, Settled, Settlement


class MemoryLedger:
    """An `OpenLedger` that one process keeps for itself. No call ever waits."""

    def __init__(
        self,
        clock: Callable[[], float],
        reservation_seconds: float,
        bounds: Bounds = BOUNDS,
    ) -> None:
        self._notes = Notes()
        self._holdings = Holdings(clock, reservation_seconds, bounds)

    @property
    def without_store(self) -> Mapping[DecidedBy, int]:
        """Nothing: there is none that could be away."""
        return {}

    @property
    def size(self) -> Size:
        """How much is kept now."""
        return self._holdings.size

    @property
    def expired(self) -> int:
        """How many reservations have expired."""
        return self._holdings.expired

    async def reserve(self, ask: Reserve) -> Answer:
        """Hold every claim or none."""
        return self._holdings.answer(ask, is_kept=True)

    async def peek(self, ask: Reserve) -> Answer:
        """Say what `reserve` would answer, and hold nothing."""
        return self._holdings.answer(ask, is_kept=False)

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        """Charge what was used and give the rest back. Idempotent by reservation.

        Raises:
            ValueError: something in it can't be kept. Nothing changed.
        """
        check(settlements, notes)
        if not self._notes.have_room(notes):
            return unavailable(settlements)
        taken = tuple([self._settle(settlement) for settlement in settlements])
        if "unavailable" not in taken:
            self._notes.change(notes)
        return taken

    def _settle(self, settlement: Settlement) -> Settled:
        plan = self._holdings.plan(settlement)
        if not isinstance(plan, Plan):
            return plan
        self._holdings.apply(plan)
        return plan.settled

    async def release(self, reservation: str) -> None:
        """Give a reservation back whole, because its request went nowhere."""
        self._holdings.release(reservation)

    async def standing(
        self, tenant: str, claims: Sequence[Claim], *, at: float | None = None
    ) -> tuple[Standing, ...]:
        """How each claim's budget stands now, or stood at the end of the window of `at`."""
        return self._holdings.standing(tenant, claims, at=at)

    def sums(self) -> tuple[Sum, ...]:
        """All accounts of windows that last now."""
        return self._holdings.sums()

    def notes(self, prefix: str) -> Mapping[str, str]:
        """The notes whose names begin with `prefix`."""
        return self._notes.starting(prefix)

    def remembers_since(self) -> float:
        """The instant after which every settlement is still known; 0 if all are."""
        return self._holdings.remembered.forgotten_until

    def health(self) -> str:
        """Empty: memory is always there."""
        return ""
