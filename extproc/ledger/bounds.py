"""How much a ledger keeps in memory, at most; and how long one with a file waits."""

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


class Pace(NamedTuple):
    """How long a ledger with a file waits for what, in seconds."""

    busy: float = 2.0
    """A write, for another program that has locked the file, as a backup may."""

    slow: float = 10.0
    """One write, before that is said to be no longer well."""

    tick: float = 1.0
    """So often the file gets what nobody waits for, and is tried anew while it fails."""

    prune: float = 600.0
    """From one way through all that is over, to forget it, to the next."""


PACE: Final = Pace()
