"""Grants are kept as notes of the ledger: they survive what it survives, and replicas share them.

A note that can't be read grants nothing. Notes of grants that have ended are deleted with the
next one that is written.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final, Literal

import msgspec

from extproc.ledger.port import OpenLedger
from extproc.policy.budgets import CHARGE_MAX
from extproc.policy.grants import Grant
from extproc.server.rulebook import Rulebook

PREFIX: Final = "grant:"
GRANTS_MAX: Final = 1000
"""In force at a time, of all tenants: notes are for others too."""

REFRESH_SECONDS: Final = 1.0
"""From one look at the ledger's notes to the next: so late, at most, comes into force what another
replica has written, once the ledger knows of it. A grant ends at its end."""

_LOOK_SECONDS_MIN: Final = 0.001

RESET: Final = "reset-"
"""What the ids of resets begin with: one for each budget and window, so that two at once give once,
and who tidies up after an earlier one deletes no later one."""

Failure = Literal["too_many", "too_much", "taken", "unavailable"]

_GRANT: Final = msgspec.json.Decoder(Grant)


class Grants:
    """The grants in the ledger, of which those that count are in the rulebook."""

    def __init__(self, rulebook: Rulebook, ledger: OpenLedger, clock: Callable[[], float]) -> None:
        self._rulebook = rulebook
        self._ledger = ledger
        self._clock = clock
        self._notes: Mapping[str, str] = {}
        self._known: tuple[Grant, ...] = ()
        self._turn = asyncio.Lock()

    def refresh(self) -> None:
        """Bring what the ledger has now into force."""
        notes = self._ledger.notes(PREFIX)
        if notes != self._notes:
            self._notes = dict(notes)
            read = [_grant_of(name, text) for name, text in sorted(notes.items())]
            self._known = tuple(grant for grant in read if grant is not None)
        now = self._clock()
        self._rulebook.grant(tuple(grant for grant in self._known if grant.counts(now)))

    def seconds_to_end(self) -> float:
        """How long until the next of those that count ends; infinite without one."""
        return min((one.until for one in self._rulebook.grants), default=math.inf) - self._clock()

    def find(self, grant_id: str) -> Grant | None:
        """The grant of this name, if it counts."""
        return next((grant for grant in self._rulebook.grants if grant.id == grant_id), None)

    def of(self, tenant: str, budget: str) -> tuple[Grant, ...]:
        """Those of one budget that count, by their ids."""
        return tuple(
            one for one in self._rulebook.grants if (one.tenant, one.budget) == (tenant, budget)
        )

    async def add(self, grant: Grant) -> Failure | None:
        """Keep it and bring it into force; why not, if it can't be.

        The same grant again changes nothing, and a reset takes the place of the one before.
        """
        async with self._turn:
            self.refresh()
            known = self.find(grant.id)
            if known is not None and not grant.is_reset:
                return None if _is_same(known, grant) else "taken"
            others = [one for one in self._rulebook.grants if one.id != grant.id]
            if len(others) >= GRANTS_MAX:
                return "too_many"
            beside = (grant.tenant, grant.budget)
            granted = sum(one.amount for one in others if (one.tenant, one.budget) == beside)
            if granted + grant.amount > CHARGE_MAX:
                return "too_much"
            return await self._write({PREFIX + grant.id: msgspec.json.encode(grant).decode()})

    async def withdraw(self, grant: Grant) -> Failure | None:
        """Take it back; why not, if it can't be."""
        async with self._turn:
            return await self._write({PREFIX + grant.id: None})

    async def _write(self, changes: Mapping[str, str | None]) -> Failure | None:
        now = self._clock()
        ended = {PREFIX + grant.id: None for grant in self._known if not grant.counts(now)}
        await self._ledger.settle((), {**ended, **changes})
        kept = self._ledger.notes(PREFIX)
        self.refresh()
        is_done = all(kept.get(name) == text for name, text in changes.items())
        return None if is_done else "unavailable"


async def keep_grants(grants: Grants) -> None:
    """Keep the rulebook at what the ledger says, until cancelled."""
    while True:
        grants.refresh()
        wait = min(REFRESH_SECONDS, grants.seconds_to_end())
        await asyncio.sleep(max(wait, _LOOK_SECONDS_MIN))


def reset_id(tenant: str, budget: str, until: float) -> str:
    """The name of what a reset of this budget gives again, in the window that ends then."""
    return RESET + sha256(f"{tenant}\0{budget}\0{until}".encode()).hexdigest()[:32]


def _is_same(one: Grant, other: Grant) -> bool:
    return one == msgspec.structs.replace(other, at=one.at, by=one.by)


def _grant_of(name: str, text: str) -> Grant | None:
    try:
        grant = _GRANT.decode(text)
    except msgspec.DecodeError:
        return None
    return grant if name == PREFIX + grant.id else None
