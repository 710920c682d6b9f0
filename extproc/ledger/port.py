"""The ledger's contract. Every ledger keeps it, and one test suite holds all of them to it.

1.  Committed plus reserved never exceeds a limit through a reservation: all claims or none.
2.  A reservation is settled once; a settlement may come late, twice, or for a reservation that
    nobody knows any more, and charges the window in which the request was admitted.
3.  A reservation that nobody settles is charged what it expected when it expires; a settlement
    after that replaces the charge.
4.  A refused reservation changes nothing.
5.  A limit of 0 refuses whatever is claimed. Else a claim of nothing needs no room: a model
    without a price is there for those whose money is used up.
6.  A claim without a window is held while its request is in flight, and charges nothing.
7.  A limit is that of the claim at hand: a changed limit counts at once, and what was used
    stays used.
8.  A reservation that was settled or has expired is never held again, as long as the process
    that held it lives: whoever asks makes a new name for each.
9.  Whatever is kept has a limit. Beyond it the answer is `Unavailable`, and nothing changed.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from extproc.policy.budgets import (
    Answer,
    Balance,
    Claim,
    DecidedBy,
    Reserve,
    Settled,
    Settlement,
)

NOTES_MAX: Final = 10_000
"""Kept at a time."""

NOTE_NAME_CHARS_MAX: Final = 512
NOTE_CHARS_MAX: Final = 8192

NO_NOTES: Final[Mapping[str, str | None]] = MappingProxyType({})


class LedgerError(Exception):
    """A ledger can't be opened. Its text, one line, says what is wrong and what to do."""


class Standing(NamedTuple):
    """How one budget stands. `balance` is what a client may see, the rest is not."""

    balance: Balance
    committed: int
    reserved: int


class Sum(NamedTuple):
    """What is charged and what is held of a tenant's budget in the window that lasts now.

    Where the budget has no window, `start` is 0 and `end` infinite.
    """

    tenant: str
    budget: str
    start: float
    end: float
    committed: int
    reserved: int


class Size(NamedTuple):
    """How much is kept in memory: reservations held, those that are over, and accounts."""

    held: int
    remembered: int
    accounts: int


class Ledger(Protocol):
    """Where budgets are kept."""

    async def reserve(self, ask: Reserve) -> Answer:
        """Hold every claim or none.

        Asking again with the same claims for a reservation that is held already answers with
        how its budgets stand, and takes nothing more. With other claims, or once it was
        settled or has expired, the answer is `Unavailable`.

        May be begun outside a task (`Resumed` of `server.h2` does), and goes on within one where
        it has to wait.
        """

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        """Charge what was used and give the rest back, in the order of the settlements.

        Idempotent by reservation, within a batch too. What is not `unavailable` is committed:
        it survives whatever the ledger survives, and may be acknowledged.

        `notes` are small texts by name, which survive the same; None deletes one. They are
        committed together with the settlements, and not at all if any of these is
        `unavailable`. Where there would be more than `NOTES_MAX` the whole batch is.
        Without settlements only `notes()` tells whether they are kept.

        Raises:
            ValueError: a charge is negative or beyond `CHARGE_MAX`, a window starts at no
                instant, or a name or text is too long or can't be written as UTF-8. Nothing
                changed.
        """

    async def release(self, reservation: str) -> None:
        """Give a reservation back whole, because its request went nowhere.

        Nothing happens where it is not held any more. If the request went somewhere after all,
        its settlement is charged as that of an unknown reservation.
        """


class OpenLedger(Ledger, Protocol):
    """A ledger that lets its books be read: for people, metrics, explanations and tests."""

    async def peek(self, ask: Reserve) -> Answer:
        """Say what `reserve` would answer, and hold nothing."""

    async def standing(
        self, tenant: str, claims: Sequence[Claim], *, at: float | None = None
    ) -> tuple[Standing, ...]:
        """How each claim's budget stands now, or stood at the end of the window of `at`.

        The claims say which budget, window and limit; what they take is not looked at.
        """

    def sums(self) -> tuple[Sum, ...]:
        """All accounts of windows that last now, in no order."""

    def notes(self, prefix: str) -> Mapping[str, str]:
        """The notes whose names begin with `prefix`, as they were last committed."""

    def remembers_since(self) -> float:
        """The instant after which every settlement is still known, in seconds since 1970.

        0 if none was ever forgotten. Whoever replays records of requests that ended before it
        may charge some of them twice.
        """

    def health(self) -> str:
        """Why nothing can be committed at present, in one line; empty while all is well."""

    @property
    def without_store(self) -> Mapping[DecidedBy, int]:
        """How many answers each policy for a store that is away has given since it was opened."""

    @property
    def size(self) -> Size:
        """How much is kept in memory now."""

    @property
    def expired(self) -> int:
        """How many reservations have expired since the ledger was opened."""
