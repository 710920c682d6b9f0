"""What the supervisor and a worker say to each other: MessagePack, after its length in four bytes.

Both are the same program on the same machine, so that nothing here is hostile; what is too long is
a bug.
"""

import asyncio
import socket
from typing import Final, Literal

import msgspec

from extproc.config.settings import Settings
from extproc.workers.figures import Figures

LENGTH_BYTES: Final = 4
FRAME_BYTES_MAX: Final = 256 << 20
"""The figures of a thousand tenants are a few megabytes."""


class Begin(msgspec.Struct, frozen=True, tag=True):
    """To a worker, first of all: what it is. `budgets_port` is None where another has that part."""

    number: int
    workers: int
    port: int
    budgets_port: int | None
    turn: int
    """The descriptor of the turn to write audit lines, which is inherited."""
    since: float
    """When the supervisor began, in seconds since 1970."""
    begun: Settings
    """As the file said then, but for the tenants: what can't change while the service lives."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """A worker serves: what it would tell who started it."""

    lines: list[str]


class Ask(msgspec.Struct, frozen=True, tag=True):
    """To a worker. `counts` is what moves all the time, `figures` that and the state."""

    id: int
    what: Literal["counts", "figures", "recent", "overview", "settings"]
    parameters: dict[str, str] = {}
    others: list[bytes] = []
    """For an overview: what the others answered when they were asked for `recent`."""


class Answer(msgspec.Struct, frozen=True, tag=True):
    """From a worker. `body` is JSON for people, or what `figures` says."""

    id: int
    status: int = 200
    body: bytes = b""
    figures: Figures | None = None


Message = Begin | Ready | Ask | Answer

_DECODER: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(Message)


def first_message(sock: socket.socket) -> Begin | None:
    """Wait for it, before there is an event loop; None where the supervisor is gone."""
    with sock.makefile("rb", buffering=0) as file:
        head = _exactly(file, LENGTH_BYTES)
        body = _exactly(file, int.from_bytes(head))
    message = _DECODER.decode(body) if body else None
    return message if isinstance(message, Begin) else None


def _exactly(file: socket.SocketIO, count: int) -> bytes:
    found = b""
    while len(found) < count and (piece := file.read(count - len(found))):
        found += piece
    return found


class Channel:
    """One end. Messages come whole and in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def on(cls, sock: socket.socket) -> "Channel":
        """Take over a socket."""
        reader, writer = await asyncio.open_connection(sock=sock)
        return cls(reader, writer)

    def send(self, message: Message) -> None:
        """Send it, by and by; to who is gone, nothing."""
        if not self._writer.is_closing():
            frame = msgspec.msgpack.encode(message)
            self._writer.write(len(frame).to_bytes(LENGTH_BYTES) + frame)

    async def next(self) -> Message | None:
        """The next one; None once the other end is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES))
            if length > FRAME_BYTES_MAX:
                return None
            message = _DECODER.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return message

    def close(self) -> None:
        """Let go of it."""
        self._writer.close()
