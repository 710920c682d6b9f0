"""A closed-loop HTTP/1.1 client: so many connections, each one request at a time.

Deliberately bare: it shares two cores with what it measures. Results are told in CPU of the
server, which does not depend on how fast the client is.
"""

import asyncio
from collections.abc import Iterator

TIMEOUT_SECONDS = 60


async def _drive(port: int, path: str, bodies: Iterator[bytes], statuses: dict[int, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for body in bodies:
            writer.write(
                b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\nx-tenant-id: rich\r\n"
                b"authorization: Bearer sk-bench\r\n"
                b"content-type: application/json\r\naccept: application/json\r\n"
                b"user-agent: OpenAI/Python 3.54.0\r\ncontent-length: %d\r\n\r\n%b"
                % (path.encode(), len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            statuses[status] = statuses.get(status, 0) + 1
            await _skip_body(reader, head.lower())
    finally:
        writer.close()


async def _skip_body(reader: asyncio.StreamReader, head: bytes) -> None:
    if b"\r\ntransfer-encoding: chunked" in head:
        while (line := await reader.readline()) != b"0\r\n":
            await reader.readexactly(int(line, 16) + 2)
        await reader.readline()
    elif (start := head.find(b"\r\ncontent-length:")) >= 0:
        await reader.readexactly(int(head[start + 17 : head.index(b"\r\n", start + 2)]))


async def drive(
    port: int, bodies: Iterator[bytes], *, connections: int, path: str = "/v1/chat/completions"
) -> dict[int, int]:
    """Send every body once; return how many answers had which status."""
    statuses: dict[int, int] = {}
    async with asyncio.timeout(TIMEOUT_SECONDS), asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(_drive(port, path, bodies, statuses))
    return statuses
