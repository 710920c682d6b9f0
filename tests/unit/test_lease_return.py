"""extproc/ledger/scripts/read.lua: what replicas saw charged in books that have gone back since"""

from collections.abc import Iterator, Sequence
from itertools import permutations

import pytest

from extproc.ledger.lease_messages import Keeping, Reply, Rules, micros
from extproc.policy.budgets import Reserve
from tests import valkeys
from tests.lease_world import CONTACT, READ, SETTLE, World
from tests.ledger_books import NOON, tokens

START = micros(NOON)
STOP = micros(NOON + 60)
FIELD = f"{START}:minute"
KEEPING = Keeping(reservation_seconds=30.0, remembered_seconds=1000.0)
BORN = 7_000
"""The birth of books that nobody has any more."""

Saw = tuple[int, int, int]
"""What a replica saw charged, and the birth and mark of the books in which it did."""


@pytest.fixture(scope="module")
def server() -> Iterator[valkeys.Server]:
    with valkeys.running() as server:
        yield server


class Store:
    """The store, and what replicas bring to it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def look(self, run: str) -> Reply:
        return self.world.call(READ, "acme", {"fields": (), "run": run})

    def tell(self, *saw: Saw) -> Reply:
        seen = [("minute", START, STOP, *one) for one in saw]
        return self.world.call(READ, "acme", {"is_raising": True, "seen": seen})

    def settle(self, name: str, amount: int, *, is_replay: bool = False) -> Reply:
        body = {"settlements": [(name, [("minute", START, amount)])], "is_replay": is_replay}
        return self.world.call(SETTLE, "acme", body)

    def hold(self, name: str, amount: int) -> None:
        replica = self.world.new_replica()
        at = self.world.instant(replica)
        book = self.world.book(replica, "acme")
        book.insert(Reserve(name, "acme", (tokens(amount),)), at)
        contact = book.compose(at)
        assert contact is not None
        self.world.call(CONTACT, "acme", contact.body)

    @property
    def used(self) -> int:
        committed, reserved, _ = self.world.accounts("acme").get(FIELD, (0, 0, 0))
        return committed + reserved


@pytest.fixture
def store(server: valkeys.Server) -> Iterator[Store]:
    server.flush()
    with server.client as client:
        yield Store(World(client, KEEPING, Rules()))


@pytest.mark.parametrize("saw", [*permutations([(100, BORN, 5), (98, BORN, 6), (90, BORN, 4)])])
def test_who_saw_it_last_is_believed_whoever_tells_it_first(
    store: Store, saw: Sequence[Saw]
) -> None:
    store.look("a")
    for one in saw:
        store.tell(one)
    assert store.used == 98
    assert store.settle("x", 90).taken == ("unknown",)
    assert store.used == 98
    assert store.settle("y", 10).taken == ("unknown",)
    assert store.used == 100


def test_what_is_charged_before_it_is_told_is_not_taken_for_what_is_lacking(store: Store) -> None:
    store.look("a")
    store.hold("new", 10)
    store.settle("new", 10)
    store.settle("lost", 30)

    assert store.tell((50, BORN, 5)).lacking == 1

    assert store.used == 60


@pytest.mark.parametrize("is_replay", [False, True])
def test_what_expires_here_is_no_part_of_what_is_lacking(store: Store, *, is_replay: bool) -> None:
    store.look("a")
    store.tell((50, BORN, 5))
    store.hold("open", 20)
    store.world.now += 31
    assert store.used == 70

    assert store.settle("open", 5, is_replay=is_replay).taken == ("late",)

    assert store.used == (50 if is_replay else 55)


def test_books_that_are_whole_lack_nothing_though_less_is_charged_than_was_seen(
    store: Store,
) -> None:
    store.look("a")
    store.hold("open", 20)
    store.world.now += 31
    seen = store.world.call(READ, "acme", {"fields": [FIELD]})
    assert seen.accounts[0][1] == 20
    store.settle("open", 5)

    born = store.look("b").birth
    told = store.tell((20, seen.birth, seen.written))

    assert born > seen.birth
    assert (told.lacking, store.used) == (0, 5)


def test_another_server_is_another_life_of_the_books_and_the_same_is_not(store: Store) -> None:
    first = store.look("a").birth
    assert store.look("a").birth == first
    second = store.look("b").birth
    assert second > first
    assert store.look("b").birth == second


def test_books_of_which_more_was_seen_than_was_written_are_others_from_then_on(
    store: Store,
) -> None:
    store.look("a")
    store.settle("x", 30)
    before = store.look("a")

    store.tell((50, before.birth, before.written + 1))

    assert store.look("a").birth > before.birth
    assert store.used == 50
    store.settle("y", 20)
    assert store.used == 50


def test_what_is_lacking_still_is_when_the_books_go_back_once_more(store: Store) -> None:
    store.look("a")
    store.tell((50, BORN, 5))
    store.hold("new", 10)
    store.settle("new", 10)
    seen = store.world.call(READ, "acme", {"fields": [FIELD]})
    assert seen.accounts[0][1] == 60

    store.look("b")
    assert store.used == 60
    store.tell((70, seen.birth, seen.written + 1))
    assert store.used == 70
    store.settle("lost", 20)
    assert store.used == 70
