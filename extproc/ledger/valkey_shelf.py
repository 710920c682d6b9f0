"""The books of all tenants that this replica knows, and their exchanges with the store.

One message of a book is under way at a time; what is asked meanwhile goes with the next. So a
burst of a thousand questions about one tenant is a handful of calls.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from extproc.ledger.lease_book import Book
from extproc.ledger.lease_known import Seen
from extproc.ledger.lease_messages import (
    Contact,
    Keeping,
    Reply,
    Rules,
    charges_of,
    decode,
    encode,
    keeping_fields,
)
from extproc.ledger.valkey_clock import ServerClock
from extproc.ledger.valkey_keys import keys_of
from extproc.ledger.valkey_link import Away, Link, Script
from extproc.policy.budgets import Settlement, Unavailable

_log = logging.getLogger(__name__)

BOOKS_MAX: Final = 200_000
"""Beyond it, books with nothing open are closed early."""

BOOK_IDLE_SECONDS: Final = 600.0
FLUSHES_MAX: Final = 100
"""Messages that one flush waits for: more come only while others ask."""

_CONTACT: Final = Script.load("common", "contact")
_SETTLE: Final = Script.load("common", "settle")
_READ: Final = Script.load("common", "read")

_LACKING: Final = "the store lost charges of tenant %r: they count as used until they come again"
_AWAY: Final = Unavailable("")
"""What a question is told that the store did not answer; the ledger's policy replaces it."""


class Shelf:
    """All books. Use it in one event loop."""

    def __init__(
        self,
        link: Link,
        clock: ServerClock,
        keeping: Keeping,
        rules: Rules | None,
        new_book: Callable[[str], Book],
    ) -> None:
        self.books: dict[str, Book] = {}
        self._link = link
        self._clock = clock
        self._keeping = keeping
        self._rules = rules or Rules()
        self._new_book = new_book
        self.quiet_seconds = self.quiet_until = 0.0
        """How long, and until when, others may have yet to tell a store that is back."""
        self._active: dict[str, Book] = {}
        self._exchanges: dict[str, asyncio.Task[None]] = {}
        self._raises: dict[str, asyncio.Task[None]] = {}
        self._looks: dict[str, asyncio.Future[bool]] = {}
        self._unsure: set[str] = set()
        """Tenants whose books may have gone back while the store was away."""
        self.sharers_min = 1
        self._sharers = 1
        self._expired_before = 0
        self._forgotten_before = 0.0

    def book(self, tenant: str) -> Book:
        """The tenant's book, opened if there is none."""
        book = self.books.get(tenant)
        if book is None:
            if len(self.books) >= BOOKS_MAX:
                self.close_idle(tuple(self.books), 0.0)
            book = self.books[tenant] = self._new_book(tenant)
            book.sharers = self.sharers
            book.quiet_until = self.quiet_until
            book.used_at = self._clock.now().steady
        return book

    @property
    def sharers(self) -> int:
        """How many replicas share the store, as far as is known."""
        return max(self._sharers, self.sharers_min)

    @sharers.setter
    def sharers(self, count: int) -> None:
        self._sharers = count
        for book in self.books.values():
            book.sharers = self.sharers

    @property
    def expired(self) -> int:
        """How many reservations expired in calls of this replica."""
        return self._expired_before + sum(b.known.expired for b in self.books.values())

    @property
    def forgotten_until(self) -> float:
        """Of settlements before this instant, not all are known any more."""
        latest = [book.known.forgotten_until for book in self.books.values()]
        return max([self._forgotten_before, *latest])

    def doubt(self, away_seconds: float) -> None:
        """Before anything else is asked, see whether the books went back, and let others tell."""
        self._unsure = set(self.books)
        self.quiet_until = self._clock.now().steady + min(self.quiet_seconds, away_seconds)
        for book in self.books.values():
            book.drop_leases()
            book.quiet_until = self.quiet_until
            if book.known.unacknowledged:  # which may be brought to others now
                self._looks[book.tenant] = asyncio.ensure_future(self.is_sure(book))

    async def is_sure(self, book: Book) -> bool:
        """See whether the book went back, if it may have; False if the store does not answer."""
        if book.tenant in self._unsure:
            try:
                await self._ask(book, _READ, {"fields": (), "run": self._link.run})
            except Away:
                return False
            self._unsure.discard(book.tenant)
            self.pump(book)
            await _ended(self._raises.get(book.tenant))
        return True

    def watch(self, book: Book) -> None:
        """Have it told soon what happened in the book."""
        self._active[book.tenant] = book

    def tick(self) -> None:
        """Tell the store what it has yet to hear."""
        if self._link.reason:
            return
        for tenant, book in tuple(self._active.items()):
            self.pump(book)
            if not (book.is_busy or book.has_leases):
                del self._active[tenant]

    def close_idle(self, tenants: Sequence[str], idle_seconds: float) -> None:
        """Close those of these books that have nothing open and nobody asked for lately."""
        now = self._clock.now()
        for tenant in tenants:
            book = self.books.get(tenant)
            if book is None:
                continue
            book.known.forget(now.server)
            is_open = book.is_busy or book.has_leases or book.known.is_open
            if not is_open and now.steady - book.used_at >= idle_seconds:
                self._expired_before += book.known.expired
                forgotten = book.known.forgotten_until
                self._forgotten_before = max(self._forgotten_before, forgotten)
                del self.books[tenant]
                self._unsure.discard(tenant)
                self._active.pop(tenant, None)

    def pump(self, book: Book) -> None:
        """Begin an exchange if the book has something to say and none is under way."""
        name = book.tenant
        # What is written before the look would be taken for what the store has kept.
        if name in self._exchanges or name in self._raises or name in self._unsure:
            return
        contact = book.compose(self._clock.now())
        if contact is not None:
            task = asyncio.ensure_future(self._exchange(book, contact))
            self._exchanges[book.tenant] = task
            task.add_done_callback(lambda _: self._exchanged(book))
        self._later(book)

    def _exchanged(self, book: Book) -> None:
        self._exchanges.pop(book.tenant, None)
        if self.books.get(book.tenant) is not book:
            return
        self.watch(book)
        # While the store is away only those who wait are answered; the rest is told later.
        is_told = book.is_urgent and not self._link.reason
        if is_told or book.has_due_question(self._clock.now()):
            self.pump(book)
        else:
            self._later(book)

    def _later(self, book: Book) -> None:
        wait = book.seconds_to_question(self._clock.now())
        if wait is not None and book.tenant not in self._exchanges:
            loop = asyncio.get_running_loop()
            loop.call_later(max(wait, 0.001), self.pump, book)

    async def _exchange(self, book: Book, contact: Contact) -> None:
        try:
            await self._speak(book, contact)
        except Exception:  # noqa: BLE001  # whoever waits is answered, whatever tripped
            # A bug. Its book can't be trusted; what it had on lease comes back by itself.
            _log.exception("the book of tenant %r is closed", book.tenant)
            self.books.pop(book.tenant, None)
            self._active.pop(book.tenant, None)
            for question in contact.questions:
                question.reply(_AWAY)

    async def _speak(self, book: Book, contact: Contact) -> None:
        body = contact.body | keeping_fields(self._keeping, self._clock.imposed())
        try:
            raw = await self._link.call(
                _CONTACT, keys_of(book.tenant), encode(body), is_urgent=bool(contact.questions)
            )
            reply = decode(raw)
        except (Away, msgspec.DecodeError):
            for question in book.fail(contact):
                question.reply(_AWAY)
            return
        self._clock.hear(reply.now, contact.sent)
        for question, answer in book.take(contact, reply, self._clock.now()):
            question.reply(answer)
        self._raise(book)

    async def flush(self, book: Book) -> None:
        """Have told what happened in the book until now; or not, if the store is away."""
        await self.is_sure(book)
        for _ in range(FLUSHES_MAX):
            if self._link.reason or not book.has_news:
                return
            self.pump(book)
            await _ended(self._exchanges.get(book.tenant))

    async def settle(self, book: Book, settlements: Sequence[Settlement]) -> Sequence[str]:
        """Settle in the store, which is told first what was reserved, by others too if it was away.

        Raises:
            Away: the store did not answer.
        """
        book.used_at = self._clock.now().steady
        for _ in range(2):  # once more if it is found to know less than it did
            await asyncio.sleep(book.quiet_until - self._clock.now().steady)
        await self.flush(book)
        return (await self._ask(book, _SETTLE, charges_of(settlements))).taken

    async def read(self, book: Book, fields: Sequence[str] | None) -> Reply:
        """Have the accounts of these names from the store, or all.

        Raises:
            Away: the store did not answer.
        """
        await self.is_sure(book)
        body: dict[str, object] = {} if fields is None else {"fields": fields}
        reply = await self._ask(book, _READ, body)
        for _ in range(FLUSHES_MAX):
            if not reply.is_behind:
                break
            reply = await self._ask(book, _READ, body)
        return reply

    async def _ask(self, book: Book, script: Script, body: dict[str, object]) -> Reply:
        sent, mark = self._clock.now(), book.known.mark
        packed = encode(keeping_fields(self._keeping, self._clock.imposed()) | body)
        raw = await self._link.call(script, keys_of(book.tenant), packed, is_urgent=False)
        try:
            reply = decode(raw)
        except msgspec.DecodeError as error:
            msg = f"the store's answer is not understood: {error}"
            raise Away(msg) from None
        self._clock.hear(reply.now, sent)
        book.hear(reply, mark)
        self._raise(book)
        return reply

    def _raise(self, book: Book) -> None:
        """If the store's books went back, have counted as used what they lack."""
        if not book.lost:
            return
        lost, book.lost = book.lost, ()
        book.quiet_until = self._clock.now().steady + self.quiet_seconds
        self.watch(book)
        task = asyncio.ensure_future(self._raise_to(book, lost))
        self._raises[book.tenant] = task
        task.add_done_callback(lambda _: self._raised(book))

    def _raised(self, book: Book) -> None:
        self._raises.pop(book.tenant, None)
        self.pump(book)

    async def _raise_to(self, book: Book, lost: Sequence[Seen]) -> None:
        seen = [tuple(one) for one in lost if one.start]
        try:
            reply = await self._ask(book, _READ, {"is_raising": True, "seen": seen})
            if reply.lacking:
                _log.warning(_LACKING, book.tenant)
            if book.known.unacknowledged:
                again = charges_of(book.known.unacknowledged.values())
                await self._ask(book, _SETTLE, again | {"is_replay": True})
        except Away:
            book.lost = [*lost, *book.lost]  # to be told when it is back

    async def give_back(self) -> None:
        """Tell everything and give every lease back: the replica is about to end."""
        for book in tuple(self._active.values()):
            book.stop_leasing()
            await self.flush(book)
            self.pump(book)
            await _ended(self._exchanges.get(book.tenant))

    def __iter__(self) -> Iterator[Book]:
        return iter(tuple(self.books.values()))


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        await asyncio.wait([task])


def is_away(answer: object) -> bool:
    """Whether the store did not answer a question."""
    return answer is _AWAY
