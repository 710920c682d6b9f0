"""The file of the embedded ledger: opened by one process, written in whole transactions.

Nothing is decided here: what is in a transaction was decided before, and is written as it is.
Every call may wait for the disk, so that all of them are made in one thread of their own.

1.  What was written survives the process and the host: WAL, flushed at every commit.
2.  A file that can't be read is an error, never an empty ledger. A new one appears under its
    name only when it is whole.
3.  Where a write fails the file is as it was before, and the next one may be tried.
"""

import logging
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from extproc.ledger.accounts import Key
from extproc.ledger.bounds import PACE
from extproc.ledger.port import LedgerError
from extproc.ledger.remembered import SETTLED, Expired
from extproc.ledger.sqlite_opening import advice, connect, lock
from extproc.ledger.sqlite_schema import STEPS

CHECKED_BYTES_MAX: Final = 256 * 1024 * 1024
"""Up to this size the whole file is checked when it is opened; beyond it only what is loaded."""

PRUNED_PER_STEP: Final = 5000
LOOKED_UP_AT_ONCE: Final = 500
"""Variables in one statement. SQLite takes 999 at least."""

_log = logging.getLogger(__name__)

_CHARGED: Final = msgspec.json.Decoder(Expired)


class Row(NamedTuple):
    """An account as it is written."""

    key: Key
    end: float
    committed: int
    keep_until: float


class Past(NamedTuple):
    """A reservation that is over, as it is written."""

    reservation: str
    expired: Expired
    keep_until: float


class Transaction(NamedTuple):
    """What is written at once, in this order. Of a name that comes twice the last one counts."""

    now: float
    past: Sequence[Past]
    rows: Sequence[Row]
    forgotten: Sequence[Key]
    notes: Mapping[str, str | None]


class Contents(NamedTuple):
    """What is in memory as long as the file is open."""

    rows: list[Row]
    notes: dict[str, str]
    forgotten_until: float
    """Of reservations that were over by then not all are known any more."""


class LedgerFile:
    """One file, locked for this process. Close it, in any case."""

    def __init__(self, path: Path, connection: sqlite3.Connection, locked: int) -> None:
        self.path = path
        self._connection = connection
        self._locked = locked
        self._identity = _identity(path)
        self._pruned_to: bytes | str | None = None

    @classmethod
    def open(
        cls, path: Path, *, busy_seconds: float = PACE.busy, steps: Sequence[str] = STEPS
    ) -> Self:
        """Open the ledger's file, or make a new one where there is none.

        Raises:
            LedgerError: it is in use, damaged, of another kind, or can't be written.
        """
        path = Path(os.path.realpath(path))
        locked = -1
        try:
            locked = lock(path)
            return cls(path, connect(path, busy_seconds, steps), locked)
        except (sqlite3.Error, OSError, LedgerError) as error:
            if locked >= 0:
                os.close(locked)
            raise _named(path, error) from error

    def load(self) -> Contents:
        """Read what belongs into memory, and see to it that the file can be written.

        Raises:
            LedgerError: it can't be read or written.
        """
        try:
            return self._load()
        except sqlite3.Error as error:
            raise _named(self.path, error) from error

    def _load(self) -> Contents:
        execute = self._connection.execute
        if self.path.stat().st_size <= CHECKED_BYTES_MAX:
            (verdict,) = execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict.replace("\n", " "))
        rows = [
            Row(Key(tenant, budget, float(start)), float(end), committed, float(keep_until))
            for tenant, budget, start, end, committed, keep_until in execute(
                "SELECT tenant, budget, window_start, window_end, committed, keep_until"
                " FROM account"
            )
        ]
        notes = dict(execute("SELECT name, text FROM note"))
        facts = dict(execute("SELECT name, value FROM fact"))
        opens = facts.get("opens", 0)
        with self._transaction():
            execute("REPLACE INTO fact VALUES ('opens', ?)", (opens + 1,))
        if not opens:
            _log.warning("a new ledger, with empty budgets, was made at %s", self.path)
        return Contents(rows, notes, float(facts.get("forgotten_until", 0)))

    def look_up(self, reservations: Iterable[str]) -> dict[str, Expired]:
        """What is known of those that are over.

        Raises:
            sqlite3.Error: the file can't be read.
        """
        self._undo()
        names = {_id_of(name): name for name in reservations}
        left = iter(names)
        found: dict[str, Expired] = {}
        while ids := tuple(islice(left, LOOKED_UP_AT_ONCE)):
            marks = ",".join("?" * len(ids))
            query = f"SELECT id, charged FROM past WHERE id IN ({marks})"  # noqa: S608  # only marks
            for id_, charged in self._connection.execute(query, ids):
                found[names[id_]] = SETTLED if charged is None else _expired(charged)
        return found

    def write(self, transaction: Transaction) -> None:
        """Write all of it, or nothing.

        Raises:
            sqlite3.Error: nothing was written.
        """
        now, past, rows, forgotten, notes = transaction
        if _identity(self.path) != self._identity:
            msg = "the file was moved, replaced or deleted: start anew with the one to be used"
            raise sqlite3.OperationalError(msg)
        many = self._connection.executemany
        with self._transaction():
            many("REPLACE INTO past VALUES (?, ?, ?)", map(_past_row, past))
            many(
                "REPLACE INTO account VALUES (?, ?, ?, ?, ?, ?)",
                [(*key, end, committed, math.ceil(until)) for key, end, committed, until in rows],
            )
            many(
                "DELETE FROM account WHERE tenant = ? AND budget = ? AND window_start = ?",
                forgotten,
            )
            many(
                "REPLACE INTO note VALUES (?, ?)",
                [(name, text) for name, text in notes.items() if text is not None],
            )
            many(
                "DELETE FROM note WHERE name = ?",
                [(name,) for name, text in notes.items() if text is None],
            )
            many("REPLACE INTO fact VALUES ('written_at', ?)", [(int(now),)])

    def prune(self, now: float, kept_seconds: float) -> tuple[float, bool]:
        """Forget some reservations whose time has come. `kept_seconds` is how long each was kept.

        Return until when they may have been over, and whether that was the last step of a way
        through all of them; the next step begins anew.

        Raises:
            sqlite3.Error: none was forgotten.
        """
        first = self._pruned_to if self._pruned_to is not None else 0  # numbers sort first
        with self._transaction():
            execute = self._connection.execute
            last = execute(
                "SELECT id FROM past WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?",
                (first, PRUNED_PER_STEP - 1),
            ).fetchone()
            where = "id > ? AND keep_until <= ?" + (" AND id <= ?" if last else "")
            values = (first, int(now), *(last or ()))
            (until,) = execute(
                f"SELECT max(keep_until) FROM past WHERE {where}",  # noqa: S608  # a constant
                values,
            ).fetchone()
            if until is not None:
                execute(f"DELETE FROM past WHERE {where}", values)  # noqa: S608  # the same
                execute(
                    "INSERT INTO fact VALUES ('forgotten_until', ?)"
                    " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
                    (until - int(kept_seconds),),
                )
        self._pruned_to = last[0] if last else None
        return (0.0 if until is None else float(until - int(kept_seconds))), last is None

    def close(self) -> None:
        """Put everything into the one file, and let another process have it."""
        try:
            with suppress(sqlite3.Error):  # what is in the log is as safe there
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
        finally:
            os.close(self._locked)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._connection
        self._undo()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._undo()
            raise

    def _undo(self) -> None:
        """See to it that nothing of a failed write is left, not even to be read by ourselves."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _named(path: Path, error: sqlite3.Error | OSError | LedgerError) -> LedgerError:
    """The error that names the file and says what to do, in one line."""
    if isinstance(error, LedgerError):
        return LedgerError(f"{path}: {error}")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return LedgerError(f"{path}: {reason}. {advice(error)}")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _id_of(reservation: str) -> bytes | str:
    """The shortest that tells it from others: our own names are 16 bytes in hexadecimal."""
    if len(reservation) == 32:  # noqa: PLR2004  # 16 bytes
        with suppress(ValueError):
            raw = bytes.fromhex(reservation)
            if raw.hex() == reservation:
                return raw
    return reservation


def _past_row(past: Past) -> tuple[bytes | str, int, str | None]:
    reservation, expired, keep_until = past
    charged = None if expired is SETTLED else msgspec.json.encode(expired).decode()
    return _id_of(reservation), math.ceil(keep_until), charged


def _expired(charged: str) -> Expired:
    try:
        return _CHARGED.decode(charged)
    except msgspec.DecodeError as error:
        msg = f"what an expired reservation was charged can't be read: {error}"
        raise sqlite3.DatabaseError(msg) from error
