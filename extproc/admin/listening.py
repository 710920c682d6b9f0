"""A server for a few careful readers, that strangers can't keep busy.

aiohttp waits for ever for the rest of a request and for whoever reads slowly. Here a connection
on which no request begins for a while is closed, whatever it is doing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

CONNECTIONS_MAX: Final = 64
IDLE_SECONDS: Final = 15.0
"""From one request's beginning to the next one's: the time to send one and to read its answer."""

LINE_BYTES_MAX: Final = 8190
"""Of a request's first line and of each header. A longer one is answered with 400."""

STOP_SECONDS: Final = 2.0
"""For answers that are under way when the server stops."""

# aiohttp quotes in its log what it can't read, which may be anything, a key too.
_UNHEARD: Final = logging.getLogger("extproc.admin.unheard")
_UNHEARD.setLevel(logging.CRITICAL + 1)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Refusal(asyncio.Protocol):
    """Hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Connections:
    """Those that are open, and when each is to be closed."""

    def __init__(self, *, connections_max: int, idle_seconds: float) -> None:
        self._connections_max = connections_max
        self._idle_seconds = idle_seconds
        self._closing: dict[RequestHandler, asyncio.TimerHandle] = {}

    def opened(self, server: web.Server) -> asyncio.Protocol:
        """Serve one more connection, or refuse it."""
        if len(server.connections) >= self._connections_max:
            return _Refusal()
        handler = server()
        self._begin(handler)
        return handler

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give the connection time for this request."""
        self._begin(request.protocol)
        return await handler(request)

    def close(self) -> None:
        """Forget all of them: the server is about to close them."""
        for timer in self._closing.values():
            timer.cancel()
        self._closing.clear()

    def _begin(self, handler: RequestHandler) -> None:
        timer = self._closing.pop(handler, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._closing[handler] = loop.call_later(self._idle_seconds, self._end, handler)

    def _end(self, handler: RequestHandler) -> None:
        del self._closing[handler]
        if handler.transport is not None:
            handler.transport.abort()  # closing would wait until what is unsent has been read


@asynccontextmanager
async def listening(
    app: web.Application,
    address: str,
    port: int,
    *,
    connections_max: int = CONNECTIONS_MAX,
    idle_seconds: float = IDLE_SECONDS,
) -> AsyncIterator[int]:
    """Serve `app` until the block ends. Yields the port in use.

    Raises:
        OSError: the address can't be bound.
    """
    connections = Connections(connections_max=connections_max, idle_seconds=idle_seconds)
    app.middlewares.insert(0, connections.middleware)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_UNHEARD,
        lingering_time=0,
        shutdown_timeout=STOP_SECONDS,
        max_line_size=LINE_BYTES_MAX,
        max_field_size=LINE_BYTES_MAX,
    )
    await runner.setup()
    try:
        served = runner.server
        assert served is not None  # noqa: S101  # it was set up
        listener = await asyncio.get_running_loop().create_server(
            lambda: connections.opened(served), address, port
        )
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            listener.close()
    finally:
        connections.close()
        await runner.cleanup()
