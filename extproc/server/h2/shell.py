"""Connections on asyncio: sockets, the clock, and the server's end. All else is in `Connection`."""

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext
from typing import Final, cast

from extproc.server.h2.connection import Connection
from extproc.server.h2.heads import Method
from extproc.server.h2.limits import Held, Limits

TICK_SECONDS: Final = 0.25
"""How often deadlines and the like are looked at, and how late one may be noticed."""

CONNECTIONS_MAX: Final = 10_000
"""Beyond, a new connection is closed at once."""

BACKLOG: Final = 1024
"""Connections that the kernel has taken and we have not."""

WRITE_BYTES_HIGH: Final = 1 << 20
"""Unsent beyond what the kernel takes; beyond, we don't read on until it is less."""

TURN_BYTES: Final = 128 * 1024
"""Of one connection, read in one go; beyond, all others have their turn first. Libuv would read
on for 8 MB, and send nothing before."""

FLUSH_SECONDS: Final = 1.0
"""How long the last words of a connection may take when the server ends."""

_log = logging.getLogger(__name__)


class Server:
    """What all connections of one server share."""

    def __init__(
        self, methods: Mapping[bytes, Method], limits: Limits, *, is_encrypted: bool
    ) -> None:
        self.methods = methods
        self.limits = limits
        self.is_encrypted = is_encrypted
        self.held = Held()
        self.shells: set[Shell] = set()
        self.is_leaving = False
        self.loop = asyncio.get_running_loop()

    async def tick(self) -> None:
        """Let every connection look at the clock, for ever."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for shell in list(self.shells):
                shell.tick()

    async def leave(self, seconds: float) -> None:
        """Let open calls end; cut off what hasn't ended in time."""
        self.is_leaving = True
        for shell in list(self.shells):
            shell.connection.leave()
            shell.flush()
        await self._emptied(seconds)
        for shell in list(self.shells):
            shell.connection.cut_off()
            shell.flush()
        await self._emptied(FLUSH_SECONDS)
        for shell in list(self.shells):
            shell.abort()
        await self._emptied(FLUSH_SECONDS)

    async def _emptied(self, seconds: float) -> None:
        """Wait until every connection is closed, but no longer than this."""
        deadline = self.loop.time() + seconds
        while self.shells and (left := deadline - self.loop.time()) > 0:
            await asyncio.wait([shell.closed for shell in self.shells], timeout=left)


class Shell(asyncio.Protocol):
    """One connection on its socket."""

    __slots__ = ("_is_woken", "_server", "_stalled_at", "_transport", "closed", "connection")

    _transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_woken = False
        self._stalled_at: float | None = None
        self.closed: asyncio.Future[None] = server.loop.create_future()
        self.connection = Connection(
            server.methods,
            server.limits,
            clock=time.monotonic,
            wake=self._wake,
            on_bug=_told,
            held=server.held,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer."""
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's is one, but doesn't say so
        self._server.shells.add(self)
        is_unwanted = self._server.is_leaving or len(self._server.shells) > CONNECTIONS_MAX
        if is_unwanted or not self._speaks_h2():
            self.abort()
            return
        self._transport.set_write_buffer_limits(WRITE_BYTES_HIGH)
        self._transport.write(self.connection.greeting())

    def _speaks_h2(self) -> bool:
        """Over TLS, what is spoken is agreed upon by ALPN (RFC 9113 §3.2)."""
        if not self._server.is_encrypted:
            return True
        agreed = self._transport.get_extra_info("ssl_object").selected_alpn_protocol()
        return bool(agreed == "h2")

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered at once, by one write."""
        connection = self.connection
        answer = connection.receive(data)
        if answer:
            self._transport.write(answer)
        if connection.is_leaving and connection.is_over:
            self._close()
        elif len(data) > TURN_BYTES:
            self._transport.pause_reading()
            self._server.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._stalled_at is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """A peer that says no more than this hears no more either."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget its calls."""
        del exc
        self._server.shells.discard(self)
        self.connection.lost()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """The peer is slower than what it asks for: hear no more of it."""
        self._stalled_at = time.monotonic()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if not self._transport.is_closing():
            self._stalled_at = None
            self._transport.resume_reading()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._server.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what has come up in the meantime."""
        self._is_woken = False
        self._write(self.connection.flush())

    def tick(self) -> None:
        """Do what is due."""
        stalled_at = self._stalled_at
        if (
            stalled_at is not None
            and time.monotonic() - stalled_at > self._server.limits.stall_seconds
        ):
            self.abort()
            return
        self._write(self.connection.tick())

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)
        if self.connection.is_leaving and self.connection.is_over:
            self._close()

    def _close(self) -> None:
        """Close once all is written, for which there is as much time as for any other write."""
        if not self._transport.is_closing():
            self._stalled_at = self._stalled_at or time.monotonic()
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is unsent."""
        self._transport.abort()


def _told(error: Exception) -> None:
    # Where, but not the message: it may quote a prompt or a key.
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("call.failed %s\n%s", type(error).__name__, where)


@asynccontextmanager
async def serve(  # noqa: PLR0913  # all but three have a default
    address: str,
    methods: Mapping[bytes, Method],
    *,
    limits: Limits | None = None,
    ssl: SSLContext | None = None,
    drain_seconds: float,
    is_port_shared: bool = False,
) -> AsyncIterator[int]:
    """Serve until the block ends, then let open calls end for up to `drain_seconds`.

    What is still open then is cut off with UNAVAILABLE. `address` is `host:port`.

    Yields:
        The port in use, so that one may ask for port 0.

    Raises:
        RuntimeError: the address can't be bound.
    """
    host, _, port = address.rpartition(":")
    if ssl is not None:
        ssl.set_alpn_protocols(["h2"])
    server = Server(methods, limits or Limits(), is_encrypted=ssl is not None)
    try:
        listener = await server.loop.create_server(
            lambda: Shell(server),
            host.strip("[]"),
            int(port),
            ssl=ssl,
            ssl_handshake_timeout=None if ssl is None else server.limits.handshake_seconds,
            backlog=BACKLOG,
            reuse_port=is_port_shared,
        )
    except OSError as error:
        msg = f"{address} can't be bound: {error}"
        raise RuntimeError(msg) from error
    ticking = server.loop.create_task(server.tick())
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.leave(drain_seconds)
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
        await listener.wait_closed()
