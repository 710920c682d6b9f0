"""A wire between Envoy and the service, that can be told to let no answer through."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Self

_PIECE_BYTES: Final = 65_536


class Tap:
    """Carries bytes both ways, for as many connections as there are."""

    def __init__(self, service_port: int) -> None:
        self._service_port = service_port
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.is_deaf = False
        """Whether what the service answers is swallowed."""
        self.is_broken = False
        """Whether nobody gets through at all."""

    @classmethod
    @asynccontextmanager
    async def on(cls, service_port: int) -> AsyncIterator[Self]:
        """Listen on a free port until the block ends."""
        tap = cls(service_port)
        server = await asyncio.start_server(tap._connected, "127.0.0.1", 0)
        tap.port = server.sockets[0].getsockname()[1]
        try:
            yield tap
        finally:
            server.close()
            tap.cut()

    def cut(self) -> None:
        """Reset all connections that there are."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_broken:
            writer.transport.abort()
            return
        with suppress(ConnectionError):
            there, back = await asyncio.open_connection("127.0.0.1", self._service_port)
            self._writers |= {writer, back}
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._carry(reader, back, is_answer=False))
                    tasks.create_task(self._carry(there, writer, is_answer=True))
            finally:
                self._writers -= {writer, back}
                back.transport.abort()
        writer.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(_PIECE_BYTES):
                if is_answer and self.is_deaf:
                    continue
                writer.write(piece)
                await writer.drain()
        # Where one end is gone the other has nobody to talk to.
        writer.transport.abort()
