"""Budgets in a Valkey or Redis that many replicas share: exact, and decided from leases.

What is decided, and what the store is told, is in `lease_book`; what the store does is in
`scripts/`. Here is what a request meets, and what happens while the store is away.

1.  The store's clock says what time it is, unless a test brings its own.
2.  A settlement is answered once the store has it, and what was reserved here is told before it.
3.  No call waits longer than `Patience` says, and none raises because the store is away.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self, cast

from extproc.ledger.accounts import ALWAYS
from extproc.ledger.lease_book import Book
from extproc.ledger.lease_messages import Keeping, Question, Rules, field_of, keeping_of
from extproc.ledger.lease_slices import standing
from extproc.ledger.notes import check, is_text, unavailable
from extproc.ledger.port import NO_NOTES, Size, Standing, Sum
from extproc.ledger.valkey_away import Stopgap, WhenUnavailable
from extproc.ledger.valkey_batches import chunks_of, in_order
from extproc.ledger.valkey_beats import Beats
from extproc.ledger.valkey_clock import ServerClock
from extproc.ledger.valkey_link import Away, Link, Patience
from extproc.ledger.valkey_names import Names
from extproc.ledger.valkey_notes import StoredNotes
from extproc.ledger.valkey_shelf import Shelf, is_away
from extproc.policy.budgets import (
    Answer,
    Claim,
    DecidedBy,
    Reserve,
    Reserved,
    Settled,
    Settlement,
    Unavailable,
)

ANSWER_SECONDS_MAX: Final = 5.0
"""A net: a question is answered much sooner, or the store is away."""

NO_ANSWER: Final = "the store did not answer"
LEASES: Final = Rules()
PATIENCE: Final = Patience()

Policy = Callable[[str], WhenUnavailable]
"""What requests of a tenant are answered while the store is away."""


class ValkeyLedger:
    """An `OpenLedger` that many replicas share. Use it in the event loop that opened it."""

    def __init__(  # noqa: PLR0913, PLR0917  # what it goes between
        self,
        link: Link,
        clock: ServerClock,
        shelf: Shelf,
        notes: StoredNotes,
        stopgap: Stopgap,
        policy: Policy,
    ) -> None:
        self._link = link
        self._clock = clock
        self._shelf = shelf
        self._notes = notes
        self._stopgap = stopgap
        self._policy = policy
        self._names = Names()

    @classmethod
    @asynccontextmanager
    async def open(  # noqa: PLR0913  # all but three have a default
        cls,
        url: str,
        clock: Callable[[], float],
        reservation_seconds: float,
        *,
        when_unavailable: Policy = lambda _: "local_share",
        replicas_min: int = 1,
        leases: Rules | None = LEASES,
        patience: Patience = PATIENCE,
        keeping: Keeping | None = None,
        is_cluster: bool = False,
        is_clock_imposed: bool = False,
    ) -> AsyncIterator[Self]:
        """Share the store's budgets for as long as the block lasts; it may be away at first.

        Without `leases` every reservation is one question to the store. `replicas_min` is how
        many are taken to share it before they were counted. In tests the clock is imposed on the
        store, which else has its own.
        """
        keeping = keeping or keeping_of(reservation_seconds)
        replica = uuid.uuid4().hex
        server_clock = ServerClock(clock, is_imposed=is_clock_imposed)
        stopgap = Stopgap()
        link = Link(url, patience, is_cluster=is_cluster)
        notes = StoredNotes(link)
        shelf = Shelf(
            link, server_clock, keeping, leases, lambda name: Book(name, replica, keeping, leases)
        )
        shelf.quiet_seconds = patience.quiet
        shelf.sharers_min = replicas_min
        beats = Beats(replica, link, server_clock, shelf, notes, stopgap)
        link.on_back = beats.is_back
        with contextlib.suppress(Away):
            await notes.refresh()
        beating = asyncio.ensure_future(beats.run((leases or LEASES).tell))
        try:
            yield cls(link, server_clock, shelf, notes, stopgap, when_unavailable)
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await shelf.give_back()
            with contextlib.suppress(Away):
                await beats.end()
            await link.close()

    @property
    def without_store(self) -> Mapping[DecidedBy, int]:
        """How many answers each policy for a store that is away has given."""
        return self._stopgap.answered

    @property
    def size(self) -> Size:
        """How much is kept in memory now."""
        now = self._clock.now().server
        held = sum(book.known.held(now) for book in self._shelf)
        accounts = sum(len(book.known.accounts) for book in self._shelf)
        return Size(held, max(0, len(self._names) - held), accounts)

    @property
    def expired(self) -> int:
        """How many reservations have expired in calls of this replica: of all, each once."""
        return self._shelf.expired

    @property
    def replicas(self) -> int:
        """How many share the store, as far as is known."""
        return self._shelf.sharers

    @property
    def calls(self) -> int:
        """How many scripts were called."""
        return self._link.calls

    async def reserve(self, ask: Reserve) -> Answer:
        """Hold every claim or none. From leases that is decided without waiting."""
        known = self._names.get(ask.reservation)
        if known is None and is_text(ask.reservation) and is_text(ask.tenant):
            book = self._shelf.book(ask.tenant)
            answer = book.answer(ask, self._clock.now())
            if answer is not None:
                self._names.add(ask.reservation, ask.tenant)
                self._shelf.watch(book)
                return answer
        return await self._answer(ask, known, is_kept=True)

    async def peek(self, ask: Reserve) -> Answer:
        """Say what `reserve` would answer, and hold nothing."""
        return await self._answer(ask, self._names.get(ask.reservation), is_kept=False)

    async def _answer(self, ask: Reserve, known: str | None, *, is_kept: bool) -> Answer:
        if not (is_text(ask.reservation) and is_text(ask.tenant)):
            return Unavailable("the name of the tenant or reservation is no text")
        if known is not None and known != ask.tenant:
            return Unavailable("the reservation is held for something else")
        book = self._shelf.book(ask.tenant)
        is_asked = not self._link.reason
        is_new = is_kept and known is None
        answer = self._early(book, ask) if is_asked and is_new else None
        if is_asked and answer is None:
            answer = await self._ask(book, ask, is_kept=is_kept)
        if answer is None and is_new:
            answer = self._do_without(book, ask)
            if is_asked and not isinstance(answer, Reserved):
                self._give_back(book, ask.reservation)  # the store may have held it after all
        elif answer is None:
            answer = Unavailable(self._link.reason or NO_ANSWER)
        if is_kept and isinstance(answer, Reserved):
            self._names.add(ask.reservation, ask.tenant)
        return answer

    async def _ask(self, book: Book, ask: Reserve, *, is_kept: bool) -> Answer | None:
        """What the store answers; None if it does not."""
        if not await self._shelf.is_sure(book):
            return None
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def reply(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)
            elif is_kept and isinstance(answer, Reserved):
                self._give_back(book, ask.reservation)  # who asked has gone

        at = self._clock.now()
        book.ask(Question(ask, reply, at.steady, is_kept=is_kept), at)
        self._shelf.pump(book)
        try:
            # No `asyncio.timeout`: that needs a task, and there may be none yet.
            done, _ = await asyncio.wait([answered], timeout=ANSWER_SECONDS_MAX)
        finally:
            answered.cancel()  # nothing, where it has come
        return answered.result() if done and not is_away(answered.result()) else None

    def _early(self, book: Book, ask: Reserve) -> Answer | None:
        """What need not wait until others have told the store, which is back, what they let in."""
        at = self._clock.now()
        if at.steady >= book.quiet_until:
            return None
        self._shelf.watch(book)
        return self._stopgap.early(book, ask, at, self._policy(ask.tenant))

    def _do_without(self, book: Book, ask: Reserve) -> Answer:
        reason = self._link.reason or NO_ANSWER
        policy = self._policy(ask.tenant)
        answer = self._stopgap.decide(book, ask, self._clock.now(), policy, reason)
        self._shelf.watch(book)
        return answer

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        """Charge what was used and give the rest back, once the store has it. Idempotent.

        Settlements of different tenants are committed apart, and notes after them: where the
        notes are not, all are `unavailable`, and `repeated` when they come again.

        Raises:
            ValueError: something in it can't be kept. Nothing changed.
        """
        check(settlements, notes)
        if not self._notes.have_room(notes):
            return unavailable(settlements)
        chunks = chunks_of(settlements)
        works = [self._settle(name, [settlements[i] for i in chunk]) for name, chunk in chunks]
        taken = in_order(chunks, await asyncio.gather(*works))
        if "unavailable" in taken:
            return taken
        if not await self._notes.change(notes):
            return unavailable(settlements)
        for name, tenant, _ in settlements:
            self._shelf.book(tenant).known.unacknowledged.pop(name, None)
        return taken

    async def _settle(self, tenant: str, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        book = self._shelf.book(tenant)
        try:
            taken = cast("Sequence[Settled]", await self._shelf.settle(book, settlements))
        except Away:
            for settlement in settlements:
                self._stopgap.ended(book, settlement.reservation)
            return unavailable(settlements)
        for settlement, one in zip(settlements, taken, strict=True):
            if one != "unavailable":
                book.settled(settlement.reservation)
                book.known.charged(settlement)
                self._names.add(settlement.reservation, tenant)
        return taken

    async def release(self, reservation: str) -> None:
        """Give a reservation back whole, because its request went nowhere."""
        tenant = self._names.get(reservation)
        if tenant is None:
            return
        book = self._shelf.book(tenant)
        if reservation in book.known.own and self._give_back(book, reservation):
            del self._names[reservation]

    def _give_back(self, book: Book, reservation: str) -> bool:
        is_given = book.release(reservation, self._clock.now())
        self._shelf.watch(book)
        self._shelf.pump(book)
        return is_given

    async def standing(
        self, tenant: str, claims: Sequence[Claim], *, at: float | None = None
    ) -> tuple[Standing, ...]:
        """How each claim's budget stands now, or stood at the end of the window of `at`.

        While the store is away, as it was last known.
        """
        book = self._shelf.book(tenant)
        await self._shelf.flush(book)
        now = self._clock.now().server
        when = now if at is None else at
        spans = [ALWAYS if c.window is None else c.window.span(when) for c in claims]
        fields = [field_of(c.budget, s[0]) for c, s in zip(claims, spans, strict=True)]
        sums = {
            field: (account.committed, account.used - account.committed)
            for field, account in book.known.accounts.items()
        }
        with contextlib.suppress(Away):
            reply = await self._shelf.read(book, fields)
            sums = {field: (one[0], one[1]) for field, *one in reply.accounts}
        places = zip(claims, spans, fields, strict=True)
        return tuple([standing(c, span, sums.get(field, (0, 0)), now) for c, span, field in places])

    def sums(self) -> tuple[Sum, ...]:
        """All accounts of windows that last now, of tenants that this replica has met lately.

        What other replicas do is in them after some seconds.
        """
        at = self._clock.now().server
        return tuple([one for book in self._shelf for one in book.known.sums(book.tenant, at)])

    def notes(self, prefix: str) -> Mapping[str, str]:
        """The notes whose names begin with `prefix`; those of other replicas after a second."""
        return self._notes.starting(prefix)

    def remembers_since(self) -> float:
        """The instant after which every settlement is still known; 0 if all are."""
        return self._shelf.forgotten_until

    def health(self) -> str:
        """Why the store is away, in one line; empty while it is not."""
        return self._link.reason
