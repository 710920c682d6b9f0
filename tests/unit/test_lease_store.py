"""extproc/ledger/scripts/contact.lua with messages that come late, twice, or in the wrong order"""

from collections.abc import Iterator

import pytest

from extproc.ledger.lease_book import Book
from extproc.ledger.lease_messages import Contact, Keeping, Question, Reply, Rules, micros
from extproc.policy.budgets import Answer, Claim, Reserve, Reserved
from tests import valkeys
from tests.lease_world import CONTACT, World
from tests.ledger_books import NOON, tokens

FIELD = f"{micros(NOON)}:minute"
KEEPING = Keeping(reservation_seconds=30.0, remembered_seconds=1000.0)


@pytest.fixture(scope="module")
def server() -> Iterator[valkeys.Server]:
    with valkeys.running() as server:
        yield server


class Wire:
    """Replicas whose messages a test brings to the store by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: list[Answer] = []
        self.replica = world.new_replica()
        self.book = world.book(self.replica, "acme")

    def ask(self, name: str, *claims: Claim, book: Book | None = None) -> Contact:
        book = book or self.book
        at = self.world.instant(self.replica)
        ask = Reserve(name, "acme", claims)
        book.ask(Question(ask, self.heard.append, at.steady, is_kept=True), at)
        return self.compose(book)

    def compose(self, book: Book | None = None) -> Contact:
        contact = (book or self.book).compose(self.world.instant(self.replica))
        assert contact is not None
        return contact

    def bring(self, contact: Contact) -> Reply:
        return self.world.call(CONTACT, "acme", contact.body)

    def take(self, contact: Contact, reply: Reply, book: Book | None = None) -> None:
        at = self.world.instant(self.replica)
        for question, answer in (book or self.book).take(contact, reply, at):
            question.reply(answer)

    def exchange(self, contact: Contact) -> Reply:
        reply = self.bring(contact)
        self.take(contact, reply)
        return reply

    @property
    def sums(self) -> tuple[int, int, int]:
        return self.world.accounts("acme").get(FIELD, (0, 0, 0))


@pytest.fixture
def wire(server: valkeys.Server) -> Iterator[Wire]:
    server.flush()
    with server.client as client:
        wire = Wire(World(client, KEEPING, Rules(busy_requests=0)))
        wire.replica.skew = 0.0
        yield wire


def test_a_question_that_comes_too_late_holds_nothing(wire: Wire) -> None:
    contact = wire.ask("a", tokens(10))
    wire.world.now += 1.001

    assert wire.bring(contact).answers == (("late",),)
    assert wire.sums == (0, 0, 0)


def test_a_message_that_comes_twice_changes_nothing_more(wire: Wire) -> None:
    wire.exchange(wire.ask("a", tokens(10)))
    at = wire.world.instant(wire.replica)
    assert wire.book.answer(Reserve("b", "acme", (tokens(5),)), at) is not None
    told = wire.compose()
    first = wire.bring(told)
    before = wire.sums

    again = wire.bring(told)

    assert before[:2] == (0, 15)
    assert wire.sums == before
    assert (first.is_stale, again.is_stale) == (False, True)


def test_what_is_given_back_too_late_is_given_back_once(wire: Wire) -> None:
    wire.exchange(wire.ask("a", tokens(10)))
    assert wire.sums[2] > 0
    late = wire.ask("b", tokens(10))
    wire.world.now += 1.001
    assert wire.bring(late).is_late
    wire.book.fail(late)
    assert wire.sums == (0, 10, 0)

    wire.book.stop_leasing()
    wire.exchange(wire.compose())

    assert wire.sums == (0, 10, 0)


def test_an_older_message_takes_no_newer_lease_away(wire: Wire) -> None:
    wire.exchange(wire.ask("a", tokens(10)))
    older = wire.ask("b", tokens(1))
    wire.book.fail(older)
    wire.exchange(wire.ask("c", tokens(2)))
    before = wire.sums
    assert before[2] > 0

    assert wire.bring(older).answers == (("late",),)

    assert wire.sums == before


def test_nobody_keeps_more_than_was_leased(wire: Wire) -> None:
    contact = wire.ask("a", tokens(10))
    contact.body["kept"] = {FIELD: 10**6}
    wire.exchange(contact)
    contact = wire.ask("b", tokens(10))
    contact.body["kept"] = {FIELD: 10**6}
    wire.exchange(contact)

    assert sum(wire.sums) <= 100


def test_the_lease_of_a_dead_replica_is_held_as_long_as_its_reservations_may_be(
    wire: Wire,
) -> None:
    wire.exchange(wire.ask("a", tokens(10)))
    leased = wire.sums[2]
    assert leased > 0

    wire.world.now += Rules().lease + KEEPING.reservation_seconds - 0.001
    assert wire.sums == (10, 0, leased)
    wire.world.now += 0.001
    assert wire.sums == (10, 0, 0)


def test_a_replica_whose_clock_is_wrong_asks_again_with_other_windows(wire: Wire) -> None:
    late = wire.world.instant(wire.replica)
    wire.world.now += 3600

    reply = wire.bring(wire.ask("a", tokens(10)))
    assert not reply.is_clock_wrong

    book = wire.world.book(wire.world.new_replica(), "acme")
    ask = Reserve("b", "acme", (tokens(10),))
    book.ask(Question(ask, wire.heard.append, late.steady, is_kept=True), late)
    contact = book.compose(late)
    assert contact is not None
    reply = wire.bring(contact)
    assert reply.is_clock_wrong
    wire.take(contact, reply, book)
    contact = wire.compose(book)
    wire.take(contact, wire.bring(contact), book)

    assert isinstance(wire.heard[-1], Reserved)
    assert wire.heard[-1].window_starts == (NOON + 3600,)


def test_the_server_chooses_the_window_not_the_replica(wire: Wire) -> None:
    contact = wire.ask("a", tokens(10))
    wire.world.now = NOON + 60.5
    contact.body["valid_until"] = micros(NOON + 61)

    wire.exchange(contact)

    assert isinstance(wire.heard[-1], Reserved)
    assert wire.heard[-1].window_starts == (NOON + 60,)
