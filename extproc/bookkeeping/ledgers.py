"""The ledger that a replay charges: the file itself, or a copy of it where nothing may change."""

import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import Final

from extproc.ledger.bounds import Bounds, Pace
from extproc.ledger.port import LedgerError, OpenLedger
from extproc.ledger.sqlite import SqliteLedger

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
