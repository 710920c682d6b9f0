"""Chats sent at instants that do not wait for answers, however many are under way.

As wrk2 means it: latency counts from when a request was due, so a generator that is late makes
figures worse, never better; how late it was is told too.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from bench.load import Connection

TIMEOUT_SECONDS: Final = 60.0


class Answer(NamedTuple):
    """One request. Instants are in seconds from the beginning of the run."""

    status: int
    due: float
    ended: float

    @property
    def latency_ms(self) -> float:
        """From when it was due."""
        return 1e3 * (self.ended - self.due)


class Run(NamedTuple):
    """All that came of it."""

    answers: Sequence[Answer]
    late_ms: Sequence[float]
    """How long after it was due each request was sent."""
    cpu_seconds: float
    """Of the generator."""


async def offer(
    port: int,
    requests: Sequence[bytes],
    *,
    per_second: float,
    seed: int,
    seconds: float = TIMEOUT_SECONDS,
) -> Run:
    """Send all at random instants (a Poisson process), over as many connections as it takes.

    Raises:
        OSError: a connection was refused or lost.
        TimeoutError: answers are missing after so many `seconds`.
    """
    loop = asyncio.get_running_loop()
    free: list[Connection] = []
    opened: list[Connection] = []
    answers: list[Answer] = []
    late_ms: list[float] = []
    done: asyncio.Future[None] = loop.create_future()
    cpu = time.process_time()
    began = time.perf_counter()

    def answered(connection: Connection, status: int) -> None:
        answers.append(Answer(status, connection.began - began, time.perf_counter() - began))
        free.append(connection)
        if len(answers) == len(requests):
            done.set_result(None)

    async def send(request: bytes, due: float) -> None:
        _, connection = await loop.create_connection(
            lambda: Connection(answered), "127.0.0.1", port
        )
        opened.append(connection)
        connection.send(request, due=due)

    async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
        for request, instant in zip(requests, _instants(per_second, seed), strict=False):
            due = began + instant
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            late_ms.append(1e3 * (time.perf_counter() - due))
            if free:
                free.pop().send(request, due=due)
            else:
                group.create_task(send(request, due))
        await _until(done, opened)
    for connection in opened:
        connection.lost.cancel()
        connection.close()
    return Run(answers, late_ms, time.process_time() - cpu)


async def _until(done: "asyncio.Future[None]", opened: Sequence[Connection]) -> None:
    """Wait for all answers; raise what a lost connection says."""
    await asyncio.wait(
        [done, *(connection.lost for connection in opened)], return_when=asyncio.FIRST_COMPLETED
    )
    for connection in opened:
        if connection.lost.done():
            connection.lost.result()


def _instants(per_second: float, seed: int) -> Iterator[float]:
    draw = random.Random(seed)  # noqa: S311  # not for secrets
    instant = 0.0
    while True:
        instant += draw.expovariate(per_second)
        yield instant
