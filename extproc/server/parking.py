"""In front of the desk: records whose answers were observed wait for what was seen of them."""

import asyncio
import logging
import traceback
from collections.abc import Sequence
from typing import Final

from extproc.exchange.outcome import Outcome
from extproc.ledger.port import OpenLedger
from extproc.server.desk import Desk, Tally
from extproc.server.meeting import PARKED, SIGHTED, Meeting

SETTLE_SECONDS: Final = 0.25
"""How often what has met since is settled."""


_log = logging.getLogger(__name__)


class Parking:
    """Takes finished requests to the desk, those that wait for a sighting with it or without."""

    def __init__(self, desk: Desk, ledger: OpenLedger, meeting: Meeting, tally: Tally) -> None:
        self._desk = desk
        self._ledger = ledger
        self._meeting = meeting
        self._tally = tally
        self._work: asyncio.Future[None] | None = None
        for prefix in (PARKED, SIGHTED):
            meeting.restore(ledger.notes(prefix))

    async def take(self, outcomes: Sequence[Outcome]) -> bool:
        """Settle them or write down that they wait; whether that is committed."""
        found = self._meeting.sort(outcomes)
        if not await self._desk.take(found.ready, found.notes):
            return False
        names = {PARKED + outcome.noted.reservation for outcome in found.waiting}
        # Where nothing was settled, only this tells.
        if names and not names <= self._ledger.notes(PARKED).keys():
            return False
        self._meeting.settle(found)
        for _ in found.repeated:
            self._tally.record("repeated", None)
        return True

    async def settle_due(self) -> None:
        """Settle what has met, and what has waited for long enough. Never fails.

        Whoever gives up waiting does not cut it short: it is committed, and has to be told.
        """
        self._work = asyncio.ensure_future(self._settle_due())
        await asyncio.shield(self._work)

    async def _settle_due(self) -> None:
        found = self._meeting.due()
        if not found.ready and not found.notes:
            return
        try:
            if await self._desk.take(found.ready, found.notes):
                self._meeting.settle(found)
        except Exception as error:  # noqa: BLE001  # they are tried again
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("parking.failed %s\n%s", type(error).__name__, where)

    async def leave(self) -> None:
        """Settle what has met; keep what else was seen for the process after this one."""
        if self._work is not None:
            await self._work
        await self.settle_due()
        kept = self._meeting.kept()
        if kept:
            await self._ledger.settle((), kept)
