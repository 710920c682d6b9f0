"""Where lines go: a file that may be moved away, or a stream whose reader may have stopped.

Neither ever waits for a reader. A line that could be written in part only is given again by whoever
writes, and goes on where it stopped: no line is torn unless the process dies in the middle of it.
Until then it keeps its turn, where several processes write to the same place.
"""

import os
import select
from pathlib import Path
from typing import Final

from extproc.telemetry.turns import Alone, Turn

ALONE: Final = Alone()

PIPE_BYTES: Final = select.PIPE_BUF
"""A pipe that says it is writable takes so many bytes at once."""


class StreamLines:
    """Writes to a descriptor that is somebody else's: standard output."""

    def __init__(self, descriptor: int, turn: Turn = ALONE) -> None:
        self._descriptor = descriptor
        self._turn = turn
        self._written = 0
        """Bytes of the line at hand that are written."""
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Write a line.

        Raises:
            OSError: it could not be written whole; give it again.
        """
        self._turn.take()
        try:
            while self._written < len(line):
                if not self._poll.poll(0):
                    msg = "the reader has stopped"
                    raise BlockingIOError(msg)
                piece = line[self._written : self._written + PIPE_BYTES]
                self._written += os.write(self._descriptor, piece)
            self._written = 0
        finally:
            if not self._written:
                self._turn.leave()

    def close(self) -> None:
        """Leave it open: it is not ours."""


class FileLines:
    """Appends to a file. Where that is moved away or deleted, a new one is begun in its place.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: str | Path, turn: Turn = ALONE) -> None:
        self._path = Path(path)
        self._turn = turn
        self._written = 0
        self._descriptor: int | None = None
        self._open()

    def write(self, line: bytes) -> None:
        """Append a line, in one call to the system.

        Raises:
            OSError: it could not be written whole; give it again.
        """
        self._turn.take()
        try:
            if self._was_moved():
                self.close()
            descriptor = self._descriptor if self._descriptor is not None else self._open()
            while self._written < len(line):
                self._written += os.write(descriptor, line[self._written :])
            self._written = 0
        finally:
            if not self._written:
                self._turn.leave()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = self._descriptor = os.open(self._path, flags, 0o640)
        self._written = 0
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")  # whoever wrote it died in the middle of a line
        return descriptor

    def _was_moved(self) -> bool:
        if self._descriptor is None:
            return False
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        ours = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)
