"""How much a ledger keeps in memory, at most."""

from typing import Final, NamedTuple

from extproc.ledger.remembered import REMEMBERED_MAX

RESERVATIONS_MAX: Final = 1_000_000
"""Held at a time. Each takes about 650 bytes with two claims."""

ACCOUNTS_MAX: Final = 1_000_000
"""Tenants times budgets times the windows that are kept. Each takes about 500 bytes."""


class Bounds(NamedTuple):
    """How much is kept, at most."""

    reservations: int = RESERVATIONS_MAX
    remembered: int = REMEMBERED_MAX
    accounts: int = ACCOUNTS_MAX


BOUNDS: Final = Bounds()
