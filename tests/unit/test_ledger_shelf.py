"""The books of tenants that a replica keeps open, without a store."""

import asyncio

from extproc.ledger.lease_book import Book
from extproc.ledger.lease_messages import keeping_of
from extproc.ledger.valkey_clock import ServerClock
from extproc.ledger.valkey_link import Link, Patience
from extproc.ledger.valkey_shelf import BOOK_IDLE_SECONDS, Shelf


def test_a_book_is_idle_long_after_it_was_opened_and_not_at_once() -> None:
    async def main() -> None:
        keeping = keeping_of(600.0)
        link = Link("redis://127.0.0.1:1", Patience(), is_cluster=False)
        clock = ServerClock(lambda: 1e9, is_imposed=False)
        shelf = Shelf(link, clock, keeping, None, lambda name: Book(name, "one", keeping, None))

        # Else a beat would close it under a settlement that is the first to need it.
        shelf.book("acme")
        shelf.close_idle(["acme"], BOOK_IDLE_SECONDS)
        assert "acme" in shelf.books

        shelf.close_idle(["acme"], 0.0)
        assert "acme" not in shelf.books
        await link.close()

    asyncio.run(main())
