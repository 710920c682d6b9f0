"""chaos/store_books.py: what a Valkey holds is read as the scripts wrote it."""

from collections.abc import Mapping
from typing import cast

import msgspec
from valkey import Valkey

from chaos.store_books import read


class Client:
    """Keys and hashes of a server."""

    def __init__(self, hashes: Mapping[str, Mapping[bytes, bytes]]) -> None:
        self._hashes = hashes

    def keys(self, pattern: str) -> list[bytes]:
        kind = pattern.rpartition(":")[2]
        return [key.encode() for key in self._hashes if key.endswith(kind)]

    def hgetall(self, key: str) -> Mapping[bytes, bytes]:
        return self._hashes[key]


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def test_what_is_settled_open_expired_leased_and_missing_is_told_apart() -> None:
    hashes = {
        "llm-extproc:{t.a%2Fb}:accounts": {
            b"60000000:tokens": packed([120, 30, 7, 0, 60_000_000, 120_000_000, 1, 20, 105, 9, 9]),
            b"0:slots": packed([0, 1, 2, 0, 0, 0, 1, 0]),
        },
        "llm-extproc:{t.a%2Fb}:held": {
            b"settled": b"S",
            b"open": packed({"parts": [["60000000:tokens", 30, 10], ["0:slots", 1, 1]]}),
            b"over": packed({"parts": [["60000000:tokens", 30, 20]], "is_expired": True}),
        },
    }

    books = read(cast("Valkey", Client(hashes)))

    assert books.contents.committed == {("a/b", "tokens", 60): 120, ("a/b", "slots", 0): 0}
    assert books.contents.settled == {"settled"}
    assert books.contents.expired == {"over": (("a/b", "tokens"),)}
    assert books.contents.settled_for("a/b", "tokens") == 100
    assert (books.held, books.reserved, books.leased, books.missing) == (1, 31, 9, 5)
