"""An ext_proc server that does nothing, on our own transport: the floor of our second shell.

    .venv/bin/python -m bench.transport_server

Answers each message with a constant and ends the stream after the body's, as `noop_server` does.
"""

import asyncio

import uvloop
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from bench.noop_server import BODY, HEADERS
from extproc.server.h2.call import Call
from extproc.server.h2.shell import serve


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


async def main() -> None:
    """Serve until killed."""
    method = b"/envoy.service.ext_proc.v3.ExternalProcessor/Process"
    async with serve("127.0.0.1:0", {method: Nothing}, drain_seconds=0) as port:
        print(f"listening on 127.0.0.1:{port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
