"""How the ledger's file is come by: locked, made, connected to; and what to do if that fails."""

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from extproc.ledger.port import LedgerError
from extproc.ledger.sqlite_schema import APPLICATION_ID, STEPS, check_kind, migrate

CACHE_KIB: Final = 32 * 1024
WAL_BYTES_MAX: Final = 64 * 1024 * 1024
"""To which the write-ahead log is cut back after it grew."""

_PAGE_BYTES_MIN: Final = 512

_DAMAGED: Final = (
    "Restore a copy of it; or move it away, with the files beside it whose names end in -wal and"
    " -shm, and start with empty budgets"
)
_CLOSED: Final = "Let this process write to it and to its folder"
_ADVICE: Final = {
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_FULL": "Make room on the disk",
    "SQLITE_READONLY": _CLOSED,
    "SQLITE_CANTOPEN": _CLOSED,
    "SQLITE_PERM": _CLOSED,
    "SQLITE_BUSY": "Another program has locked it: end that",
    "SQLITE_LOCKED": "Another program has locked it: end that",
    "SQLITE_IOERR": "See whether the disk has room and is well",
    "": _DAMAGED,  # what we found, and not SQLite
}


def advice(error: sqlite3.Error | OSError) -> str:
    """What to do about it."""
    if isinstance(error, OSError):
        return _CLOSED
    name = getattr(error, "sqlite_errorname", "")
    return _ADVICE.get("_".join(name.split("_")[:2]), _ADVICE["SQLITE_IOERR"])


def lock(path: Path) -> int:
    """Lock the ledger for this process. Return what to close, which unlocks it.

    A file of its own is locked: closing any handle of SQLite's would undo SQLite's own locks.

    Raises:
        LedgerError: another one has it, or the folder is missing.
        OSError: the lock can't be written.
    """
    if not path.parent.is_dir():
        msg = f"there is no folder {path.parent}: make it, or name another path"
        raise LedgerError(msg)
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        owner = os.pread(handle, 20, 0).decode(errors="replace").strip()
        os.close(handle)
        msg = f"is in use by another process ({owner}): one process has it at a time"
        raise LedgerError(msg) from None
    except OSError:
        os.close(handle)
        raise
    return handle


def connect(path: Path, busy_seconds: float, steps: Sequence[str]) -> sqlite3.Connection:
    """Connect to the file, which is made where there is none.

    Raises:
        LedgerError: it is no ledger that this release can read.
        sqlite3.Error: it can't be read or written.
        OSError: its folder can't.
    """
    if not path.exists():
        _make(path)
    size = path.stat().st_size
    if size < _PAGE_BYTES_MIN:
        msg = f"is too short for a ledger, {size} bytes. {_DAMAGED}"
        raise LedgerError(msg)
    has_log = _has_log(path)
    connection = _opened(path, "rw", busy_seconds)
    try:
        check_kind(connection, steps)
        if not has_log:
            _check_length(connection, size)
        _prepare(connection)
        migrate(connection, steps)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_length(connection: sqlite3.Connection, size: int) -> None:
    """See to it that the last page is whole. SQLite takes what is missing of it to be zeros."""
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    if size % page_bytes:
        msg = f"was cut off: its last page has {size % page_bytes} bytes. {_DAMAGED}"
        raise LedgerError(msg)


def _has_log(path: Path) -> bool:
    """Whether a log is there from which the file will be completed."""
    log = Path(f"{path}-wal")
    return log.exists() and log.stat().st_size > 0


def _make(path: Path) -> None:
    """Make an empty ledger. It has its name only once it is whole, whatever happens meanwhile."""
    if _has_log(path):
        msg = f"is gone, and its log {path}-wal is still there. {_DAMAGED}"
        raise LedgerError(msg)
    new = Path(f"{path}.new")
    for ending in ("", "-wal", "-shm", "-journal"):
        Path(f"{new}{ending}").unlink(missing_ok=True)
    with closing(_opened(new, "rwc", 0)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _prepare(connection)
        migrate(connection, STEPS)
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _opened(path: Path, mode: str, busy_seconds: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,  # opened and closed by one thread, used by another
    )


def _prepare(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        msg = f"can't have a write-ahead log on this disk, only {mode!r}: name a local one"
        raise LedgerError(msg)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
    connection.execute("PRAGMA cell_size_check = ON")
