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
8.  A reservation that was settled or has expired is never held again.
9.  Whatever is kept has a limit. Beyond it the answer is `Unavailable`, and nothing changed.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from extproc.policy.budgets import Answer, Balance, Claim, Reserve, Settled, Settlement


class Standing(NamedTuple):
    """How one budget stands. `balance` is what a client may see, the rest is not."""

    balance: Balance
    committed: int
    reserved: int


class Ledger(Protocol):
    """Where budgets are kept."""

    async def reserve(self, ask: Reserve) -> Answer:
        """Hold every claim or none.

        Asking again with the same claims for a reservation that is held already answers with
        how its budgets stand, and takes nothing more. With other claims, or once it was
        settled or has expired, the answer is `Unavailable`.
        """

    async def settle(self, settlements: Sequence[Settlement]) -> tuple[Settled, ...]:
        """Charge what was used and give the rest back, in the order of the settlements.

        Idempotent by reservation, within a batch too. What is not `unavailable` is committed:
        it survives whatever the ledger survives, and may be acknowledged.

        Raises:
            ValueError: a charge is negative. Nothing changed.
        """

    async def release(self, reservation: str) -> None:
        """Give a reservation back whole, because its request went nowhere.

        Nothing happens where it is not held any more. If the request went somewhere after all,
        its settlement is charged as that of an unknown reservation.
        """


class OpenLedger(Ledger, Protocol):
    """A ledger that lets its books be read: for people, explanations and tests."""

    async def peek(self, ask: Reserve) -> Answer:
        """Say what `reserve` would answer, and hold nothing."""

    async def standing(
        self, tenant: str, claims: Sequence[Claim], *, at: float | None = None
    ) -> tuple[Standing, ...]:
        """How each claim's budget stands now, or stood at the end of the window of `at`.

        The claims say which budget, window and limit; what they take is not looked at.
        """
