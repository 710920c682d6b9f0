"""Which names have come before: exact, for millions of them, in bounded memory."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

DIGEST_BYTES = 12
"""Of ten million names two have the same digest with a chance of one in 10^15."""


class Seen:
    """Remembers names, the most of them in a file of SQLite's own that nobody else sees."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._execute("CREATE TABLE name (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, name: str) -> bool:
        """Remember it; whether it is new."""
        data = name.encode(errors="surrogatepass")
        digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
        cursor = self._execute("INSERT OR IGNORE INTO name VALUES (?)", (digest,))
        return cursor.rowcount == 1


@contextmanager
def nothing_seen() -> Iterator[Seen]:
    """Nothing yet; what is added is forgotten when the block ends."""
    with closing(sqlite3.connect("", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        yield Seen(connection)
