"""Many clients at once, each one call after the other."""

import asyncio
from collections.abc import Iterator
from typing import Final

from chaos.client import Client, Ending
from chaos.stand import until
from chaos.traffic import Call

AWAY_SECONDS: Final = 0.25
"""A client whose call failed waits so long before the next, as any would."""


class Load:
    """What is sent, and what came of it."""

    def __init__(
        self, port: int, calls: Iterator[Call], *, clients: int, pause_seconds: float = 0.0
    ) -> None:
        """`pause_seconds`: so long each client rests after a call."""
        self._port = port
        self._calls = calls
        self._clients = clients
        self._pause_seconds = pause_seconds
        self._is_ended = False
        self.endings: list[Ending] = []

    async def run(self, *, calls_max: int) -> None:
        """Send until it is ended, nobody listens any more, or so many were sent."""
        left = iter(range(calls_max))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._clients):
                tasks.create_task(self._call_again_and_again(left))

    def answered(self) -> int:
        """How many calls have had an answer that is paid for."""
        return sum(200 <= ending.status < 300 for ending in self.endings)  # noqa: PLR2004  # RFC 9110

    async def has_made(self, calls: int) -> None:
        """Return once so many calls have had an answer that is paid for.

        Raises:
            OverdueError: they do not go on.
        """
        await until(lambda: self.answered() >= calls, f"{calls} calls are answered")

    def end(self) -> None:
        """Let clients finish what they are at, and no more."""
        self._is_ended = True

    async def _call_again_and_again(self, left: Iterator[int]) -> None:
        async with Client(self._port) as client:
            while not self._is_ended and next(left, None) is not None:
                call = next(self._calls)
                try:
                    ending = await client.send(call)
                except ConnectionRefusedError:
                    self.end()
                    return
                self.endings.append(ending)
                await asyncio.sleep(AWAY_SECONDS if is_away(ending) else self._pause_seconds)


def is_away(ending: Ending) -> bool:
    """Whether Envoy answered that nobody could decide about the call, or that it took too long.

    A model that was told to answer so does the same.
    """
    return ending.status in (500, 504) and "x-adapter-status" not in ending.call.headers
