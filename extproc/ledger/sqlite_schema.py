"""What the ledger's file looks like, and how an older one is brought up to date.

`account`    what is committed, by tenant, budget and window
`past`       reservations that are over: `charged` is null where one was settled, and says what
             it was charged where it expired. Kept until `keep_until`.
`note`       small texts by name
`fact`       single numbers

Amounts and instants are integers. A step is never changed once it was released: what comes
after it is one more step.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from extproc.ledger.port import LedgerError

APPLICATION_ID: Final = 0x6C6C6D6C
"""The four letters `llml` in the header tell a ledger from other SQLite files."""

STEPS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE account (
        tenant TEXT NOT NULL,
        budget TEXT NOT NULL,
        window_start INTEGER NOT NULL,
        window_end INTEGER NOT NULL,
        committed INTEGER NOT NULL,
        keep_until INTEGER NOT NULL,
        PRIMARY KEY (tenant, budget, window_start)
    ) WITHOUT ROWID;
    CREATE TABLE past (
        id NOT NULL PRIMARY KEY,
        keep_until INTEGER NOT NULL,
        charged TEXT
    ) WITHOUT ROWID;
    CREATE TABLE note (name TEXT NOT NULL PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE fact (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
)
"""Each leads from the version of its index to the next."""


def check_kind(connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    """See to it that the file is a ledger, of a version that `steps` know, and change nothing.

    Raises:
        LedgerError: it is not.
        sqlite3.Error: it can't be read.
    """
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    if found != APPLICATION_ID:
        msg = "is a SQLite file, but no ledger: name another path, or move the file away"
        raise LedgerError(msg)
    version = _version(connection)
    if not 0 <= version <= len(steps):
        msg = (
            f"is a ledger of version {version}, written by a newer release: this one reads"
            f" up to version {len(steps)}. Run that release, or restore an older copy"
        )
        raise LedgerError(msg)


def migrate(connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    """Bring the file to the version that `steps` lead to, one transaction a step.

    Raises:
        sqlite3.Error: it can't be read or written.
    """
    for number in range(_version(connection), len(steps)):
        connection.executescript(
            f"BEGIN IMMEDIATE; {steps[number]}; PRAGMA user_version = {number + 1}; COMMIT;"
        )


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
