"""An ext_proc server on the way back, on our own transport: it lets every chunk of an answer go on.

    .venv/bin/python -m bench.chunk_server

It answers each chunk with the same bytes, for which Envoy waits: what metering in the mode STREAMED
costs before a single event is looked at.
"""

import asyncio
from typing import Final

import uvloop
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyResponse,
    CommonResponse,
    ProcessingResponse,
)

from extproc.server.h2.call import Call
from extproc.server.h2.shell import serve

_GO_ON: Final = ProcessingResponse(
    response_body=BodyResponse(response=CommonResponse())
).SerializeToString()


class GoOn:
    """Lets every chunk go on."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def on_message(self, message: bytes) -> None:
        """Answer it."""
        del message
        self._call.send(_GO_ON)

    def on_end(self) -> None:
        """Be done."""
        self._call.finish()

    def on_cancel(self) -> None:
        """Do nothing, as ever."""


async def main() -> None:
    """Serve until killed."""
    methods = {b"/envoy.service.ext_proc.v3.ExternalProcessor/Process": GoOn}
    async with serve("127.0.0.1:0", methods, drain_seconds=0) as port:
        print(f"listening on 127.0.0.1:{port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
