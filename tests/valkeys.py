"""A real Valkey for tests: started, stopped, paused, and looked at.

`VALKEY_SERVER` may name another server's program, as that of a Redis 7.
"""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from valkey import Valkey

from extproc.demo.valkey import find_program

DEADLINE_SECONDS: Final = 20.0
PROGRAM: Final = str(find_program())


class Server:
    """One server on a port of its own; its files are gone with the test."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> Valkey:
        return Valkey(port=self.port, socket_timeout=DEADLINE_SECONDS)

    def start(self) -> Self:
        command = [
            *(PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self._folder), "--save", "", "--daemonize", "no", *self._options),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._is_up)
        return self

    def _is_up(self) -> bool:
        with contextlib.suppress(Exception), self.client as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        """End it at once. What it had not saved is lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def command(self, *words: str | int) -> Any:
        with self.client as client:
            return client.execute_command(*words)

    def flush(self) -> None:
        self.command("FLUSHALL")


PORT_MAX: Final = 55_000
"""The nodes of a cluster talk to each other at a port that is 10,000 higher."""


def free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port <= PORT_MAX:
                return port


@contextmanager
def running(*options: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), *options)
        try:
            yield server.start()
        finally:
            server.kill()


def wait_until(is_so: Any, seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.005)
