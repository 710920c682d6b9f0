"""An ext_proc server that does nothing, on our own transport: the floor of our second shell.

    .venv/bin/python -m bench.transport_server [unread]

Answers each message with a constant and ends the stream after the body's, as `noop_server` does.
`unread` leaves out the protobufs: the second message is the body's, whatever is in it.
"""

import asyncio
import sys
from typing import Final

import uvloop
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from bench.noop_server import BODY, HEADERS
from extproc.server.h2.call import Call
from extproc.server.h2.shell import serve

_HEADERS: Final = HEADERS.SerializeToString()
_BODY: Final = BODY.SerializeToString()


class Nothing:
    """Answers the headers, answers the body, is done."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def on_message(self, message: bytes) -> None:
        """Answer it."""
        if ProcessingRequest.FromString(message).HasField("request_body"):
            self._call.send(BODY.SerializeToString())
            self._call.finish()
        else:
            self._call.send(HEADERS.SerializeToString())

    def on_end(self) -> None:
        """Be done."""
        self._call.finish()

    def on_cancel(self) -> None:
        """Do nothing, as ever."""


class Unread:
    """Does the same, and looks at nothing."""

    __slots__ = ("_call", "_is_body")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._is_body = False

    def on_message(self, message: bytes) -> None:
        """Answer it."""
        del message
        if self._is_body:
            self._call.send(_BODY)
            self._call.finish()
        else:
            self._is_body = True
            self._call.send(_HEADERS)

    def on_end(self) -> None:
        """Be done."""
        self._call.finish()

    def on_cancel(self) -> None:
        """Do nothing, as ever."""


async def main(*, is_read: bool) -> None:
    """Serve until killed."""
    method = b"/envoy.service.ext_proc.v3.ExternalProcessor/Process"
    methods = {method: Nothing if is_read else Unread}
    async with serve("127.0.0.1:0", methods, drain_seconds=0) as port:
        print(f"listening on 127.0.0.1:{port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(is_read=sys.argv[1:] != ["unread"]))
