"""The ledger's contract. Every ledger keeps it, and one test suite holds all of them to it.

1. Committed plus reserved never exceeds a limit through a reservation: all claims or none.
2. A reservation is settled once; a settlement may come late, twice, or for a reservation that
   nobody knows any more, and charges the window in which the request was admitted.
3. A reservation that nobody settles is charged what it expected when it expires; a settlement
   after that replaces the charge.
4. A refused reservation changes nothing.
"""

from typing import Literal, NamedTuple, Protocol

from extproc.policy.budgets import Answer, Balance, Reserve

Settled = Literal["settled", "late", "unknown", "repeated"]
"""How a settlement was taken: in time; after expiry; without its reservation; again."""


class Charge(NamedTuple):
    """What a finished request used of one budget.

    `window_start` is that of the window in which it was admitted, 0 where there is none.
    """

    budget: str
    window_start: float
    amount: int


class Settlement(NamedTuple):
    """The outcome of one request: all that is needed to charge it."""

    reservation: str
    tenant: str
    charges: tuple[Charge, ...]


class Standing(NamedTuple):
    """How one budget stands now."""

    balance: Balance
    committed: int
    reserved: int


class Ledger(Protocol):
    """Where budgets are kept."""

    async def reserve(self, ask: Reserve) -> Answer:
        """Hold every claim or none.

        Asking again with a reservation that is held already answers with how its budgets
        stand, and takes nothing more.
        """

    async def settle(self, settlement: Settlement) -> Settled:
        """Charge what was used and give the rest back. Idempotent by reservation."""

    async def release(self, reservation: str) -> None:
        """Give a reservation back whole, because its request went nowhere.

        Nothing happens where it is not held any more.
        """
