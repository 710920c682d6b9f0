"""One worker, as its supervisor sees it: a process, and a channel to it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from extproc.workers.channel import Answer, Ask, Begin, Channel, Ready
from extproc.workers.figures import Figures

ANSWER_SECONDS: Final = 2.0
"""How long a worker may take to answer before others are shown without it."""

What = Literal["counts", "figures", "recent", "overview", "settings"]


class Member:
    """A worker that was started. It is over once `ended` is set."""

    def __init__(
        self,
        number: int,
        process: "subprocess.Popen[bytes]",
        channel: Channel,
        on_ready: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.process = process
        self.lines: list[str] = []
        self.ready = asyncio.Event()
        self.began = self.heard = loop.time()
        """When it began, and when it said something last, by the loop's clock."""
        self._loop = loop
        self._channel = channel
        self._on_ready = on_ready
        self._asks: dict[int, asyncio.Future[Answer]] = {}
        self._asked = 0

    @classmethod
    async def start(
        cls, command: Sequence[str], begin: Begin, on_ready: Callable[[], None]
    ) -> "Member":
        """Start one; it has a process group of its own, so that a Ctrl-C reaches us alone.

        Raises:
            OSError: no process can be started.
        """
        ours, its = socket.socketpair()
        with its:
            words = [*command, "--worker", str(its.fileno())]
            try:
                process = await asyncio.to_thread(_spawned, words, (its.fileno(), begin.turn))
            except OSError:
                ours.close()
                raise
        channel = await Channel.on(ours)
        channel.send(begin)
        return cls(begin.number, process, channel, on_ready)

    async def listen(self) -> int:
        """Hear it until it is gone; return how it ended, as `Popen` says."""
        while (message := await self._channel.next()) is not None:
            self.heard = self._loop.time()
            if isinstance(message, Ready):
                self.lines = message.lines
                self.ready.set()
                self._on_ready()
            elif isinstance(message, Answer):
                asked = self._asks.pop(message.id, None)
                if asked is not None and not asked.done():
                    asked.set_result(message)
        self.ready.clear()
        for asked in self._asks.values():
            asked.cancel()
        self._channel.close()
        return await asyncio.to_thread(self.process.wait)

    async def ask(
        self,
        what: What,
        parameters: Mapping[str, str] | None = None,
        others: Sequence[bytes] = (),
    ) -> Answer | None:
        """What it says; None where it does not in time."""
        self._asked += 1
        number = self._asked
        answer = self._asks[number] = self._loop.create_future()
        self._channel.send(Ask(number, what, dict(parameters or {}), list(others)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.wait([answer])
        self._asks.pop(number, None)
        return answer.result() if answer.done() and not answer.cancelled() else None

    async def figures(self, what: Literal["counts", "figures"]) -> Figures | None:
        """What it counted; None where it does not say."""
        answer = await self.ask(what)
        return answer.figures if answer is not None else None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it is gone."""
        self.process.send_signal(number)


def _spawned(words: Sequence[str], inherited: Sequence[int]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603  # our own program
        words,
        stdin=subprocess.DEVNULL,
        pass_fds=inherited,
        process_group=0,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
