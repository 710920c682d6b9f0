"""The client that benches load an Envoy with."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from bench.load import Answers, Connection, drive, pace

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


async def body_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.rpartition(b"content-length: ")[2]
    return await reader.readexactly(int(length))


async def against(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    load: Callable[[int], Awaitable[Answers]],
) -> Answers:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    async with server:
        return await load(server.sockets[0].getsockname()[1])


@pytest.mark.parametrize("connections", [1, 3])
def test_every_body_is_sent_once_over_so_many_connections(connections: int) -> None:
    bodies = [b"%d" % number for number in range(20)]
    heard: list[bytes] = []
    opened: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        while True:
            heard.append(await body_of(reader))
            writer.write(ANSWER + b"{}")

    answers = asyncio.run(against(serve, lambda port: drive(port, bodies, connections=connections)))

    assert sorted(heard) == sorted(bodies)
    assert len(opened) == connections
    assert answers.statuses == {200: 20}
    assert len(answers.latencies_ms) == 20


def test_an_answer_counts_when_its_last_byte_is_there() -> None:
    async def feed() -> list[int]:
        statuses: list[int] = []
        connection = Connection(lambda _, status: statuses.append(status))
        for byte in ANSWER + b"{}":
            assert statuses == []
            connection.data_received(bytes([byte]))
        return statuses

    assert asyncio.run(feed()) == [200]


def test_what_waits_for_a_free_connection_is_late_from_when_it_was_due() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await body_of(reader)
            writer.write(ANSWER + b"{}")

    def load(port: int) -> Awaitable[Answers]:
        return pace(port, [b"{}"] * 100, per_second=1e6, connections=1)

    answers = asyncio.run(against(serve, load))

    # One after the other on one connection: from when they were sent, they would add up to less
    # than all of it. From when they were due, which is at once, to some fifty times that.
    assert sum(answers.latencies_ms) > 10 * 1e3 * answers.seconds


def test_a_lost_connection_is_an_error_and_no_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await body_of(reader)
        writer.close()

    with pytest.raises(ConnectionError):
        asyncio.run(against(serve, lambda port: drive(port, [b"{}"], connections=1)))
