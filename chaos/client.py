"""Clients that read an answer to its end, or leave in the middle: plain HTTP/1.1 and no more.

An SDK would take as much of the machine as all that is tested, and would not say how far it got.
"""

import asyncio
import re
from contextlib import suppress
from typing import Final, NamedTuple, Self

from chaos.traffic import LEAVES_AT_ONCE, STAYS, Call

ANSWER_SECONDS_MAX: Final = 60.0

_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_CLOSES: Final = re.compile(rb"\r\nconnection: close\r\n", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_WORD: Final = re.compile(
    rb'"delta": \{"content"|"index": 0, "text"|event: response\.output_text\.delta|"text_delta"'
)
"""An event of a mock model that has a word of its answer."""


class Ending(NamedTuple):
    """What came of a call, as its client saw it. `status` is 0 where no answer began."""

    call: Call
    status: int
    words: int
    """Of a streamed answer, so many came."""
    is_whole: bool
    head: bytes = b""
    """The status line and the headers."""

    def header(self, name: str) -> str | None:
        """A header of the answer; None where it has none of that name."""
        found = re.search(rf"\r\n{name}: ([^\r]*)\r\n".encode(), self.head, re.IGNORECASE)
        return found[1].decode() if found else None


class Client:
    """One connection at a time, opened anew when it was broken."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def send(self, call: Call) -> Ending:
        """Make one call. Whatever becomes of it is told by what is returned.

        Raises:
            ConnectionRefusedError: nobody listens.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await self._send(call, progress)
        except (ConnectionRefusedError, TimeoutError):
            self._close()
            raise
        except (ConnectionError, asyncio.IncompleteReadError):
            progress.is_whole = False
        if not progress.is_whole or progress.closes:
            self._close()
        words = len(_WORD.findall(bytes(progress.body)))
        return Ending(call, progress.status, words, progress.is_whole, progress.head)

    async def _send(self, call: Call, progress: "_Progress") -> None:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self._close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._reader, self._writer
        writer.write(_request(call))
        if call.leaves_after == LEAVES_AT_ONCE:
            await asyncio.sleep(call.leaves_seconds)
            return
        head = await reader.readuntil(b"\r\n\r\n")
        progress.begin(head)
        length = _LENGTH.search(head)
        if length is not None:
            progress.body += await reader.readexactly(int(length[1]))
            progress.is_whole = True
            return
        pieces = 0
        while (line := await reader.readline()) != b"0\r\n":
            if not line:
                return
            progress.body += (await reader.readexactly(int(line, 16) + 2))[:-2]
            pieces += 1
            if pieces == call.leaves_after != STAYS:
                return
        await reader.readline()
        progress.is_whole = True

    def _close(self) -> None:
        """Leave. What has not been read makes this a reset, as it is when a program dies."""
        if self._writer is not None:
            with suppress(ConnectionError):
                self._writer.transport.abort()
        self._reader = self._writer = None


class _Progress:
    """How far an answer has come."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.is_whole = False
        self.closes = False
        self.head = b""

    def begin(self, head: bytes) -> None:
        self.head = head
        found = _STATUS.match(head)
        self.status = int(found[1]) if found else 0
        self.closes = _CLOSES.search(head) is not None


def _request(call: Call) -> bytes:
    headers = {
        "host": "127.0.0.1",
        "authorization": f"Bearer sk-{call.tenant}",
        "content-type": "application/json",
        "content-length": str(len(call.body)),
        **call.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {call.path} HTTP/1.1\r\n{lines}\r\n".encode() + call.body
