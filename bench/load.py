"""Chats sent over HTTP/1.1: as many as go at once, or so many a second.

Deliberately bare, since it shares its cores with what it measures: requests are made before the
clock starts, answers are looked at for their status and their length alone. Use it on uvloop.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, cast

TIMEOUT_SECONDS: Final = 60
PATH: Final = "/v1/chat/completions"


class Answers(NamedTuple):
    """What came back."""

    statuses: Counter[int]
    seconds: float
    """From the first request to the last answer."""
    latencies_ms: Sequence[float]


class Connection(asyncio.Protocol):
    """One request at a time; `on_answer` is called with the connection and the status."""

    def __init__(self, on_answer: Callable[["Connection", int], None]) -> None:
        self.began = 0.0
        """When what is under way was due."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_answer = on_answer
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        made = cast("asyncio.Transport", transport)
        self.close = made.close
        self._write = made.write

    def send(self, request: bytes, *, due: float) -> None:
        """Send it. The one before it must have been answered."""
        self.began = due
        self._write(request)

    def data_received(self, data: bytes) -> None:
        """Hand on the status when the answer is there as a whole."""
        self._heard += data
        head, end, body = self._heard.partition(b"\r\n\r\n")
        if end and len(body) >= _length(head):
            self._heard = b""
            self._on_answer(self, int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits for an answer."""
        if not self.lost.done():
            self.lost.set_exception(error or ConnectionError("Envoy closed the connection"))


def _length(head: bytes) -> int:
    fields = head.lower()
    start = fields.index(b"\r\ncontent-length:") + 17
    return int(fields[start : max(fields.find(b"\r\n", start), 0) or None])


def request(body: bytes, *, path: str = PATH) -> bytes:
    """Write a chat as the OpenAI SDK sends it, by a tenant with budgets that do not end."""
    return (
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\nx-tenant-id: rich\r\n"
        b"authorization: Bearer sk-bench\r\n"
        b"content-type: application/json\r\naccept: application/json\r\n"
        b"user-agent: OpenAI/Python 3.54.0\r\ncontent-length: %d\r\n\r\n%b"
        % (path.encode(), len(body), body)
    )


class _Run:
    """Counts answers until all are there, and gives whoever is free something to do."""

    def __init__(self, expected: int, on_free: Callable[[Connection], None]) -> None:
        self.statuses: Counter[int] = Counter()
        self.latencies_ms: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = expected
        self._on_free = on_free

    def answered(self, connection: Connection, status: int) -> None:
        self.latencies_ms.append(1e3 * (time.perf_counter() - connection.began))
        self.statuses[status] += 1
        self._left -= 1
        if self._left:
            self._on_free(connection)
        elif not self.done.done():
            self.done.set_result(None)


async def drive(
    port: int, bodies: Iterable[bytes], *, connections: int, path: str = PATH
) -> Answers:
    """Send every body once, a connection's next as soon as its last is answered.

    Raises:
        OSError: a connection was refused or lost.
        TimeoutError: it took longer than `TIMEOUT_SECONDS`.
    """
    requests = [request(body, path=path) for body in bodies]
    waiting = iter(requests)

    def next_one(connection: Connection) -> None:
        if (following := next(waiting, None)) is not None:
            connection.send(following, due=time.perf_counter())

    run = _Run(len(requests), next_one)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        opened = await _open(port, min(connections, len(requests)), run)
        began = time.perf_counter()
        for connection in opened:
            next_one(connection)
        return await _end(run, opened, began)


async def pace(
    port: int, bodies: Iterable[bytes], *, per_second: float, connections: int, seed: int = 0
) -> Answers:
    """Send every body once, at instants that do not depend on answers (a Poisson process).

    An instant is the loop's, to the millisecond. Latency is counted from there, also while all
    connections are taken: what waits for a free one is late.

    Raises:
        OSError, TimeoutError: as for `drive`.
    """
    requests = [request(body) for body in bodies]
    free: list[Connection] = []
    late: deque[tuple[bytes, float]] = deque()

    def next_one(connection: Connection) -> None:
        if late:
            following, due = late.popleft()
            connection.send(following, due=due)
        else:
            free.append(connection)

    run = _Run(len(requests), next_one)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        opened = await _open(port, connections, run)
        free += opened
        began = time.perf_counter()
        for each, instant in zip(requests, _instants(per_second, seed), strict=False):
            if (ahead := began + instant - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            due = time.perf_counter()
            if free:
                free.pop().send(each, due=due)
            else:
                late.append((each, due))
        return await _end(run, opened, began)


def _instants(per_second: float, seed: int) -> Iterator[float]:
    draw = random.Random(seed)  # noqa: S311  # not for secrets
    instant = 0.0
    while True:
        instant += draw.expovariate(per_second)
        yield instant


async def _open(port: int, number: int, run: _Run) -> list[Connection]:
    loop = asyncio.get_running_loop()
    made = [
        loop.create_connection(lambda: Connection(run.answered), "127.0.0.1", port)
        for _ in range(number)
    ]
    return [connection for _, connection in await asyncio.gather(*made)]


async def _end(run: _Run, opened: Sequence[Connection], began: float) -> Answers:
    """Wait for all answers, or for a connection that is lost before."""
    ends = [run.done, *(connection.lost for connection in opened)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    seconds = time.perf_counter() - began
    for end in ends:
        if end.done():
            end.result()
    for connection in opened:
        connection.lost.cancel()
        connection.close()
    return Answers(run.statuses, seconds, run.latencies_ms)
