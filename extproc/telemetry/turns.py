"""Whose turn it is to write, among processes that write lines to the same place."""

import fcntl
import os
import time
from typing import Final, Protocol

TURN_SECONDS: Final = 0.05
"""How long a turn is waited for. A line takes microseconds, unless who writes it was stopped."""


class Turn(Protocol):
    """Asked before a line is begun, and given back after its end."""

    def take(self) -> None:
        """Have it, if it is not ours already.

        Raises:
            BlockingIOError: another process has it.
        """

    def leave(self) -> None:
        """Let others have it."""


class Alone:
    """The turn of who has no company."""

    def take(self) -> None:
        """Have it."""

    def leave(self) -> None:
        """Give it back."""


class SharedTurn:
    """One of several processes that inherited `descriptor`. A process that dies gives it back.

    It is a POSIX record lock: of processes, not of descriptors, which all are the same file's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_patient = True

    def take(self) -> None:
        """Have it; who once waited in vain does not wait again before it had it.

        Raises:
            BlockingIOError: another process has it.
        """
        deadline = time.monotonic() + TURN_SECONDS * self._is_patient
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    self._is_patient = False
                    raise
                os.sched_yield()
            else:
                self._is_patient = True
                return

    def leave(self) -> None:
        """Give it back."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


def new_turn() -> int:
    """A descriptor for processes that are to share one; close it when they are gone."""
    return os.memfd_create("llm-extproc-turn")
