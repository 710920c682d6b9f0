"""What goes on beside requests: telling the store, counting replicas, seeing what others wrote."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from extproc.ledger.lease_messages import micros
from extproc.ledger.valkey_away import Stopgap
from extproc.ledger.valkey_clock import ServerClock
from extproc.ledger.valkey_keys import BEATS_KEY, REPLICAS_KEY
from extproc.ledger.valkey_link import Away, Link
from extproc.ledger.valkey_notes import StoredNotes
from extproc.ledger.valkey_shelf import BOOK_IDLE_SECONDS, Shelf

_log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 1.0
BEATS_MISSED_MAX: Final = 5
"""A replica that misses more is no longer counted."""

LOOKED_AT_PER_BEAT: Final = 500
REFRESHED_PER_BEAT: Final = 5
"""Books, the last used of those looked at, read anew because other replicas change them too; and
as many of the rest, in turn."""

REPLICAS_KEPT_SECONDS: Final = 3600


class Beats:
    """One replica's."""

    def __init__(  # noqa: PLR0913, PLR0917  # what it goes between
        self,
        replica: str,
        link: Link,
        clock: ServerClock,
        shelf: Shelf,
        notes: StoredNotes,
        stopgap: Stopgap,
    ) -> None:
        self._replica = replica
        self._link = link
        self._clock = clock
        self._shelf = shelf
        self._notes = notes
        self._stopgap = stopgap
        self._back = asyncio.Event()
        self._stale: list[str] = []
        self._is_ending = False
        self._beats = 0
        self._turn = 0

    def is_back(self) -> None:
        """The store answers again. Its stopgap goes on until others must have noticed as well."""
        self._noticed(self._link.away_seconds)

    def _noticed(self, away_seconds: float) -> None:
        self._shelf.doubt(away_seconds)
        self._back.set()

    async def tell(self, every_seconds: float) -> None:
        """Tell the store what was decided here, for ever."""
        while not self._is_ending:
            await asyncio.sleep(every_seconds)
            self._shelf.tick()
            if not self._link.reason and self._clock.now().steady >= self._shelf.quiet_until:
                self._stopgap.end()

    async def come_back(self) -> None:
        """Whenever the store is back, tell it what happened meanwhile."""
        while not self._is_ending:
            await self._back.wait()
            self._back.clear()
            for book in self._shelf:
                if not await self._shelf.is_sure(book):
                    break

    async def beat(self) -> None:
        """Be counted, count the others, and have what they wrote, for ever."""
        while not self._is_ending:
            try:
                await self._count()
                await self._notes.refresh()
                await self._refresh()
            except Away as away:
                _log.debug("a beat was missed: %s", away)
            if not self._is_ending:
                await asyncio.sleep(BEAT_SECONDS)

    async def run(self, tell_seconds: float) -> None:
        """Do all of it until this is cancelled."""
        tell = partial(self.tell, tell_seconds)
        works: list[Callable[[], Awaitable[None]]] = [tell, self.beat, self.come_back]
        tasks = [asyncio.ensure_future(self._keep_up(work)) for work in works]
        try:
            await asyncio.gather(*tasks)
        finally:
            # The client may take the cancelling of a read for a timeout, and go on.
            self._is_ending = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_up(self, work: Callable[[], Awaitable[None]]) -> None:
        while not self._is_ending:
            try:
                await work()
            except Exception:  # noqa: BLE001  # else nothing would be told any more
                _log.exception("a bug in what goes on beside requests")
                await asyncio.sleep(BEAT_SECONDS)

    async def end(self) -> None:
        """Be counted no more.

        Raises:
            Away: the store did not answer.
        """
        await self._link.command("ZREM", REPLICAS_KEY, self._replica)

    async def _count(self) -> None:
        beats = int(await self._link.command("INCR", BEATS_KEY))
        await self._link.command("EXPIRE", BEATS_KEY, REPLICAS_KEPT_SECONDS)
        if beats < self._beats:
            # It came back so soon that nobody had missed it, and knows less.
            await self._link.identify()
            self._noticed(float("inf"))
        self._beats = beats
        now = self._clock.now().server
        oldest = micros(now - BEAT_SECONDS * BEATS_MISSED_MAX)
        await self._link.command("ZADD", REPLICAS_KEY, micros(now), self._replica)
        await self._link.command("ZREMRANGEBYSCORE", REPLICAS_KEY, "-inf", oldest)
        await self._link.command("EXPIRE", REPLICAS_KEY, REPLICAS_KEPT_SECONDS)
        self._shelf.sharers = max(1, int(await self._link.command("ZCARD", REPLICAS_KEY)))

    async def _refresh(self) -> None:
        """Read some books anew, and close what nobody uses; over a while, all."""
        if not self._stale:
            self._stale = list(self._shelf.books)
        idle, self._stale = self._stale[:LOOKED_AT_PER_BEAT], self._stale[LOOKED_AT_PER_BEAT:]
        self._shelf.close_idle(idle, BOOK_IDLE_SECONDS)
        books = [self._shelf.books[name] for name in idle if name in self._shelf.books]
        books.sort(key=lambda one: -one.used_at)
        latest, others = books[:REFRESHED_PER_BEAT], books[REFRESHED_PER_BEAT:]
        now, later = self._turn, self._turn + REFRESHED_PER_BEAT
        self._turn = later if later < len(others) else 0
        for book in latest + others[now:later]:
            await self._shelf.read(book, None)
