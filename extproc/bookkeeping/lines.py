"""Audit files read line by line, in bounded memory: plain or gzip, cut off or damaged.

What is no audit line is counted by its place and never shown: it may be anything.
"""

import datetime as dt
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal, NamedTuple

import msgspec

from extproc.ledger.notes import INSTANT_MAX
from extproc.policy.budgets import CHARGE_MAX, Charge, Settlement, Unit

LINE_BYTES_MAX: Final = 1 << 20
"""What is longer is no audit line."""

_GZIP: Final = b"\x1f\x8b"
_NOT_OURS: Final = (b"admin on ", b"budgets on ", b"listening on ", b'{"budget_change":1,')
"""The service's other lines on standard output: nothing was used."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class BooksError(Exception):
    """A file can't be used at all. Its text, one line, says which and why."""


class ChargedBudget(msgspec.Struct, frozen=True):
    """What one budget was charged."""

    budget: str
    unit: Unit
    window_start: Annotated[int, msgspec.Meta(ge=0, le=INSTANT_MAX)]
    amount: Annotated[int, msgspec.Meta(ge=0, le=CHARGE_MAX)]


class AuditLine(msgspec.Struct, frozen=True):
    """Of an audit line, what bookkeeping needs. The names are those of `docs/audit.md`."""

    audit: Literal[1]
    started: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    kind: Literal["call", "refused", "unattributed"]
    tenant: str
    reservation: str
    charges: tuple[ChargedBudget, ...]
    duration_ms: Annotated[float, msgspec.Meta(ge=0)]
    stream_id: str
    settled: str
    source: Literal["usage", "estimated", "zero", ""]
    model: str
    aborted: bool
    prompt_tokens: _Count | None
    completion_tokens: _Count | None
    cost_micro_usd: _Count | None

    @property
    def ended(self) -> float:
        """When the request ended, in seconds since 1970."""
        return self.started.timestamp() + self.duration_ms / 1000

    def settlement(self) -> Settlement | None:
        """What a ledger was told; None where there was nothing to tell."""
        if self.kind != "call" or not self.reservation or not self.charges:
            return None
        charges = [Charge(c.budget, float(c.window_start), c.amount) for c in self.charges]
        return Settlement(self.reservation, self.tenant, tuple(charges))


class Broken(NamedTuple):
    """A line that can't be used, or the place where a file can be read no further."""

    file: str
    number: int
    why: str


_LINE: Final = msgspec.json.Decoder(AuditLine)


def parse(line: bytes) -> AuditLine | None:
    """Read one line; None where it is no audit line."""
    try:
        return _LINE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_lines(files: Sequence[Path]) -> Iterator[AuditLine | Broken]:
    """Read all files, one after the other.

    Raises:
        BooksError: one can't be opened. What came before it was read.
    """
    for path in files:
        yield from _read(path)


def check_files(files: Sequence[Path]) -> None:
    """See to it that all can be opened, before anything is done.

    Raises:
        BooksError: one can't.
    """
    for path in files:
        with _opened(path):
            pass


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            magic = file.peek(len(_GZIP))
        except OSError as error:
            msg = f"{path}: {error.strerror}"
            raise BooksError(msg) from error
        if magic.startswith(_GZIP):
            yield stack.enter_context(gzip.open(file))
        else:
            yield file


def _read(path: Path) -> Iterator[AuditLine | Broken]:
    number = 0
    with _opened(path) as file:
        try:
            for number, line in enumerate(_lines(file), 1):
                if line.isspace() or line.startswith(_NOT_OURS):
                    continue
                yield _decoded(line, path, number)
        except (EOFError, zlib.error, OSError):  # the last: a bad gzip file, or a bad disk
            yield Broken(str(path), number + 1, "the file can't be read from here on")


def _lines(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    """Lines of at most `LINE_BYTES_MAX`; a longer one is handed out as its beginning."""
    while line := file.readline(LINE_BYTES_MAX):
        rest = line
        while len(rest) == LINE_BYTES_MAX and not rest.endswith(b"\n"):
            rest = file.readline(LINE_BYTES_MAX)
        yield line


def _decoded(line: bytes, path: Path, number: int) -> AuditLine | Broken:
    read = parse(line)
    if read is None:
        is_cut = not line.endswith(b"\n")
        return Broken(str(path), number, "cut off" if is_cut else "no audit line")
    return read
