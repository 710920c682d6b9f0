"""Replicas, a network and a clock that are simulated, around books and scripts that are real.

The books are those of the service, the scripts run in a real Valkey; only time and the way between
them are made up. Messages take as long as the world says, get lost when it says so, and replicas
die in the middle of anything.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from valkey import Valkey

from extproc.ledger.lease_book import Book
from extproc.ledger.lease_messages import (
    Contact,
    Instant,
    Keeping,
    Question,
    Reply,
    Rules,
    decode,
    encode,
    keeping_fields,
    micros,
)
from extproc.ledger.valkey_keys import keys_of
from extproc.ledger.valkey_link import Script
from extproc.policy.budgets import Answer, Claim, Denied, Reserve, Reserved, Unavailable
from tests.ledger_books import NOON

CONTACT: Final = Script.load("common", "contact")
SETTLE: Final = Script.load("common", "settle")
READ: Final = Script.load("common", "read")

TIMEOUT_SECONDS: Final = 0.1
LATE_SECONDS: Final = 1.5
"""After which the store no longer decides what a message asks."""


@dataclass
class Replica:
    """One process."""

    name: str
    skew: float
    """How far its clock is from the server's."""

    books: dict[str, Book] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)
    ticking: set[str] = field(default_factory=set)
    is_alive: bool = True


class World:
    def __init__(
        self,
        client: Valkey,
        keeping: Keeping,
        rules: Rules | None,
        *,
        seed: int = 0,
        trip_seconds: tuple[float, float] = (0.0002, 0.001),
    ) -> None:
        self.now = NOON
        self.random = random.Random(seed)  # noqa: S311  # the same every time
        self.calls = 0
        self.lost = ""
        """Which part of the next message gets lost: "request", "reply" or neither. Or it comes when
        nobody waits for it any more: "late"."""
        self.on_the_way = 0
        """Messages that the store has yet to get."""
        self._client: Any = client
        self._keeping = keeping
        self._rules = rules
        self._trip_seconds = trip_seconds
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._known: set[str] = set()
        self._order = count()
        self._names = count()

    # Time.

    def at(self, when: float, what: Callable[[], None]) -> None:
        heappush(self._events, (when, next(self._order), what))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            when, _, what = heappop(self._events)
            self.now = max(self.now, when)
            what()
        self.now = max(self.now, until)

    def _trip(self) -> float:
        return self.random.uniform(*self._trip_seconds)

    def instant(self, replica: Replica) -> Instant:
        return Instant(self.now + replica.skew, self.now)

    # Replicas.

    def new_replica(self) -> Replica:
        return Replica(f"replica{next(self._names)}", self.random.uniform(-0.02, 0.02))

    def book(self, replica: Replica, tenant: str, sharers: int = 1) -> Book:
        if tenant not in replica.books:
            book = Book(tenant, replica.name, self._keeping, self._rules)
            book.sharers = sharers
            replica.books[tenant] = book
        return replica.books[tenant]

    def kill(self, replica: Replica) -> None:
        replica.is_alive = False

    def reserve(
        self,
        replica: Replica,
        tenant: str,
        name: str,
        claims: Sequence[Claim],
        reply: Callable[[Answer], None],
    ) -> None:
        book = self.book(replica, tenant)
        at = self.instant(replica)
        ask = Reserve(name, tenant, tuple(claims))
        answer = book.answer(ask, at)
        if answer is not None:
            reply(answer)
        else:
            book.ask(Question(ask, reply, at.steady, is_kept=True), at)
            self.pump(replica, book)
        self._tick_later(replica, book)

    def release(self, replica: Replica, tenant: str, name: str) -> None:
        book = self.book(replica, tenant)
        book.release(name, self.instant(replica))
        self.pump(replica, book)

    def _tick_later(self, replica: Replica, book: Book) -> None:
        if book.tenant not in replica.ticking:
            replica.ticking.add(book.tenant)
            tell = (self._rules or Rules()).tell
            self.at(self.now + tell, lambda: self._tick(replica, book))

    def _tick(self, replica: Replica, book: Book) -> None:
        replica.ticking.discard(book.tenant)
        if not replica.is_alive:
            return
        self.pump(replica, book)
        if book.is_busy or book.has_leases:
            self._tick_later(replica, book)

    # The network.

    def pump(self, replica: Replica, book: Book) -> None:
        if book.tenant in replica.under_way or not replica.is_alive:
            return
        contact = book.compose(self.instant(replica))
        if contact is None:
            wait = book.seconds_to_question(self.instant(replica))
            if wait is not None:
                self.at(self.now + max(wait, 0.001), lambda: self.pump(replica, book))
            return
        replica.under_way.add(book.tenant)
        lost, self.lost = self.lost, ""
        if lost == "request":
            self.at(self.now + TIMEOUT_SECONDS, lambda: self._fail(replica, book, contact))
            return
        self.on_the_way += 1
        if lost == "late":
            self._be_late(replica, book, contact)
            return
        self.at(self.now + self._trip(), lambda: self._deliver(replica, book, contact, lost))

    def _be_late(self, replica: Replica, book: Book, contact: Contact) -> None:
        """It comes before the replica's next message if that waits for a probe, else after it."""
        is_in_order = self.random.random() < 0.5

        def fail() -> None:
            self._fail(replica, book, contact, is_over=not is_in_order)

        def arrive() -> None:
            self._arrive(book, contact)
            if is_in_order:
                self._go_on(replica, book)

        self.at(self.now + TIMEOUT_SECONDS, fail)
        self.at(self.now + LATE_SECONDS, arrive)

    def _arrive(self, book: Book, contact: Contact) -> Reply:
        self.on_the_way -= 1
        return self.call(CONTACT, book.tenant, contact.body)

    def _deliver(self, replica: Replica, book: Book, contact: Contact, lost: str) -> None:
        reply = self._arrive(book, contact)
        if lost == "reply":
            self.at(self.now + TIMEOUT_SECONDS, lambda: self._fail(replica, book, contact))
        else:
            self.at(self.now + self._trip(), lambda: self._take(replica, book, contact, reply))

    def _take(self, replica: Replica, book: Book, contact: Contact, reply: Reply) -> None:
        if not replica.is_alive:
            return
        replica.under_way.discard(book.tenant)
        for question, answer in book.take(contact, reply, self.instant(replica)):
            question.reply(answer)
        if book.is_urgent or book.has_questions:
            self.pump(replica, book)
        self._tick_later(replica, book)

    def _fail(
        self, replica: Replica, book: Book, contact: Contact, *, is_over: bool = True
    ) -> None:
        if replica.is_alive:
            for question in book.fail(contact):
                book.release(question.ask.reservation, self.instant(replica))
                question.reply(Unavailable("lost"))
        if is_over:
            self._go_on(replica, book)

    def _go_on(self, replica: Replica, book: Book) -> None:
        replica.under_way.discard(book.tenant)
        if replica.is_alive:
            self.pump(replica, book)
            self._tick_later(replica, book)

    # The store.

    def call(self, script: Script, tenant: str, body: dict[str, object]) -> Reply:
        self.calls += 1
        packed = encode(keeping_fields(self._keeping, self.now) | body)
        keys = keys_of(tenant)
        if script.digest not in self._known:
            self._client.script_load(script.text)
            self._known.add(script.digest)
        answer = self._client.execute_command("EVALSHA", script.digest, len(keys), *keys, packed)
        return decode(answer)

    def settle(self, tenant: str, name: str, charges: Sequence[tuple[str, float, int]]) -> str:
        packed = [(budget, micros(start), amount) for budget, start, amount in charges]
        reply = self.call(SETTLE, tenant, {"settlements": [(name, packed)]})
        return reply.taken[0]

    def accounts(self, tenant: str) -> dict[str, tuple[int, int, int]]:
        """Committed, reserved and leased of each account."""
        reply = self.call(READ, tenant, {})
        return {one[0]: (one[1], one[2], one[3]) for one in reply.accounts}


__all__ = ["Denied", "Replica", "Reserved", "World"]
