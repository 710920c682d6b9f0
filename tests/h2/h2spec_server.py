"""What h2spec is run against: every request is answered, whether it is gRPC or not.

    .venv/bin/python -m tests.h2.h2spec_server

h2spec asks by GET and by POST without a content type, which a gRPC server refuses before the
request is complete. Here such a request is read to its end and answered with one message, by
the same connection in all other ways.
"""

import asyncio
from collections.abc import Mapping, Sequence

import uvloop

from extproc.server.h2 import heads, shell
from extproc.server.h2.call import Call
from extproc.server.h2.compression import Field
from extproc.server.h2.inbound import Inbound


class Answer:
    """Answers once all is there."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def on_message(self, message: bytes) -> None:
        """Take it."""

    def on_end(self) -> None:
        """Answer."""
        self._call.send(b"answer")
        self._call.finish()

    def on_cancel(self) -> None:
        """Do nothing."""


_judged = heads.judged


def anything(
    fields: Sequence[Field], methods: Mapping[bytes, heads.Method], list_bytes_max: int
) -> heads.Head | None:
    """As ever, but every well-formed request is a call of `Answer`."""
    head = _judged(fields, methods, list_bytes_max)
    if head is not None:
        head.refusal, head.method = None, Answer
    return head


def unframed(call: Inbound, payload: bytes) -> None:
    """Take a body that is no gRPC."""
    if call.length_left is not None:
        call.length_left -= len(payload)


async def main() -> None:
    """Serve until killed."""
    heads.judged = anything
    Inbound.take = unframed  # type: ignore[assignment, method-assign]  # the point of this server
    async with shell.serve("127.0.0.1:0", {}, drain_seconds=0) as port:
        print(f"listening on 127.0.0.1:{port}", flush=True)  # noqa: T201  # it is asked for
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
