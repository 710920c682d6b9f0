"""Child processes: ready before they are used, gone when the block ends, whatever ends it."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")

# Children are forked, for `_end_with_parent` below. Where this process speaks gRPC too, gRPC would
# rebuild its threads in the child before that becomes another program, and now and then aborts.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.02
_LOG_LINES_SHOWN: Final = 25
_PR_SET_PDEATHSIG: Final = 1


class StartError(Exception):
    """A child did not become ready. The text ends with what it said last."""


class Child(NamedTuple):
    """A running process and the file that takes all it prints."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def wait_for(self, look: Callable[[], T | None], *, seconds: float = START_SECONDS) -> T:
        """Return what `look` finds, as soon as it finds something.

        Raises:
            StartError: the process ended, or found nothing for `seconds`.
        """
        deadline = time.monotonic() + seconds
        while (found := look()) is None:
            code = self.process.poll()
            if code is not None:
                raise StartError(self._obituary(f"ended with code {code}"))
            if time.monotonic() > deadline:
                raise StartError(self._obituary(f"was not ready within {seconds:g} s"))
            time.sleep(_POLL_SECONDS)
        return found

    def wait_for_line(self, prefix: str, *, seconds: float = START_SECONDS) -> str:
        """Return what follows `prefix` on the first line that begins with it.

        Raises:
            StartError: as for `wait_for`.
        """

        def look() -> str | None:
            # A line without its end may not be whole yet.
            *lines, _ = self.log.read_text(errors="replace").split("\n")
            return next((line[len(prefix) :] for line in lines if line.startswith(prefix)), None)

        return self.wait_for(look, seconds=seconds)

    def _obituary(self, what: str) -> str:
        last = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return "\n".join((f"{self.name} {what}; its last words:", *("  " + line for line in last)))


@contextmanager
def child(name: str, arguments: Sequence[str | Path], *, directory: Path) -> Iterator[Child]:
    """Run a program until the block ends. What it prints goes to `directory`/`name`.log.

    It has a process group of its own, so that a Ctrl-C reaches us alone and we can stop
    things in their order.
    """
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # our own programs
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  # one system call, looked up before
        )
    try:
        yield Child(name, process, log)
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End the process, by force if it must be. Does nothing to one that has ended."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)  # a stopped process would not hear the next one
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    if process.poll() is None:
        process.kill()
        process.wait()


_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """Ask the kernel to end this child when its parent dies, even by SIGKILL. Linux only."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
