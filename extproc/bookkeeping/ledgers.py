"""The ledger that a replay charges: a file, a copy of it where nothing may change, or a server."""

import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import Final

from extproc.config.loader import Loaded
from extproc.ledger.bounds import Bounds, Pace
from extproc.ledger.port import LedgerError, OpenLedger
from extproc.ledger.sqlite import SqliteLedger
from extproc.ledgers import ledger_of

_NEVER_SECONDS: Final = 1e9

STILL: Final = Pace(tick=_NEVER_SECONDS, prune=_NEVER_SECONDS)
"""A file that is replayed to forgets nothing in between: what was looked up must stay true."""

_BOUNDS: Final = Bounds(remembered=10_000)
"""The file knows all of them; memory need not."""

_UNUSED_SECONDS: Final = 300.0
"""A replay reserves nothing."""


@asynccontextmanager
async def opened(
    path: Path, clock: Callable[[], float], *, is_dry: bool
) -> AsyncIterator[OpenLedger]:
    """Open the ledger at `path`, or a new one there; if it is dry, a copy that is thrown away.

    Raises:
        LedgerError: it is in use by the service, damaged, or no ledger.
    """
    folder = tempfile.TemporaryDirectory(prefix="llm-replay-") if is_dry else nullcontext()
    with folder as temporary:
        place = path if temporary is None else _copied(path, Path(temporary))
        async with SqliteLedger.open(
            place, clock, _UNUSED_SECONDS, bounds=_BOUNDS, pace=STILL
        ) as ledger:
            yield ledger


@asynccontextmanager
async def opened_as_set(
    loaded: Loaded, clock: Callable[[], float], *, is_dry: bool
) -> AsyncIterator[OpenLedger]:
    """Open the ledger that the settings name. One in a server may be in use meanwhile.

    Raises:
        LedgerError: it can't be opened, keeps nothing, or is dry and in a server.
    """
    wanted = loaded.settings.ledger
    if wanted.kind == "memory":
        msg = "the settings' ledger is in the memory of its process: nobody else can charge it"
        raise LedgerError(msg)
    if wanted.kind == "sqlite":
        async with opened(Path(wanted.path), clock, is_dry=is_dry) as file:
            yield file
        return
    if is_dry:
        msg = "a server can't be copied: --dry-run needs a ledger that is a file"
        raise LedgerError(msg)
    async with ledger_of(loaded, clock, is_replay=True) as shared:
        if shared.health():
            raise LedgerError(shared.health())
        yield shared


def _copied(path: Path, folder: Path) -> Path:
    """Copy it as it is now, even while the service writes to it."""
    copy = folder / "ledger.db"
    if not path.exists():
        return copy
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        msg = f"{path}: {error}"
        raise LedgerError(msg) from error
    return copy
