"""A real gRPC server in this process, and a client that speaks as Envoy does."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import grpc
import grpc.aio
from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
)

from extproc.exchange.machine import Exchange
from extproc.ledger.port import Ledger
from extproc.server.lifecycle import serving
from extproc.server.servicer import SERVICE, Decided, Servicer
from tests.scenarios.harness import Bare
from tests.scenarios.table import Call

DEADLINE_SECONDS = 30
"""No test waits for this long; a hanging one fails."""


class Client:
    """Opens ext_proc streams on a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._method = channel.stream_stream(
            f"/{SERVICE}/Process",
            request_serializer=ProcessingRequest.SerializeToString,
            response_deserializer=ProcessingResponse.FromString,
        )

    def open(self) -> grpc.aio.StreamStreamCall:
        return self._method(timeout=DEADLINE_SECONDS)

    async def send(self, call: Call) -> list[ProcessingResponse]:
        """Run one whole exchange; return every answer, once the server has ended the stream."""
        stream = self.open()
        answers = [await ask(stream, head_of(call))]
        if answers[0].HasField("request_headers") and not answers[0].HasField("mode_override"):
            answers.append(await ask(stream, body_of(call)))
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        return answers


async def ask(stream: grpc.aio.StreamStreamCall, message: ProcessingRequest) -> ProcessingResponse:
    await stream.write(message)
    answer = await stream.read()
    assert isinstance(answer, ProcessingResponse), await stream.code()
    return answer


def head_of(call: Call) -> ProcessingRequest:
    pairs = {":method": call.method, ":path": call.path, **call.all_headers()}
    headers = [HeaderValue(key=key, raw_value=value.encode()) for key, value in pairs.items()]
    return ProcessingRequest(
        request_headers=HttpHeaders(headers=HeaderMap(headers=headers), end_of_stream=not call.body)
    )


def body_of(call: Call) -> ProcessingRequest:
    return ProcessingRequest(request_body=HttpBody(body=call.body, end_of_stream=True))


def server(
    bare: Bare,
    *,
    ledger: Ledger | None = None,
    new_exchange: Callable[[str], Exchange] | None = None,
    decided: Decided | None = None,
    drain_seconds: float = 5,
) -> AbstractAsyncContextManager[int]:
    """Serve the rules of `bare` on a free port, which it yields."""
    numbers = iter(range(1 << 30))
    servicer = Servicer(
        new_exchange
        or (lambda reservation: Exchange(bare.rules, bare.counter, reservation=reservation)),
        ledger or bare.ledger,
        lambda: f"{next(numbers):032x}",
        decided or (lambda *_: None),
    )
    return serving(
        servicer,
        None,
        address="127.0.0.1:0",
        request_body_bytes=bare.rules.request_body_bytes,
        drain_seconds=drain_seconds,
    )


@asynccontextmanager
async def served(
    bare: Bare,
    *,
    ledger: Ledger | None = None,
    new_exchange: Callable[[str], Exchange] | None = None,
    decided: Decided | None = None,
) -> AsyncIterator[Client]:
    """The same with a client, whose channel is closed before the server drains."""
    async with (
        server(bare, ledger=ledger, new_exchange=new_exchange, decided=decided) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Client(channel)
