"""An ext_proc server on the way back: it is sent every chunk of an answer, and changes nothing.

    .venv/bin/python -m bench.chunk_server streamed|observed

`streamed` answers each chunk, for which Envoy waits; `observed` is only told of it, as by a filter
in observability mode. What such metering costs before a single event is looked at.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc.aio
import uvloop
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyResponse,
    CommonResponse,
    ProcessingRequest,
    ProcessingResponse,
)

CHUNK = ProcessingResponse(response_body=BodyResponse(response=CommonResponse()))


async def answer(
    requests: AsyncIterator[ProcessingRequest], context: grpc.aio.ServicerContext
) -> None:
    """Let every chunk go on."""
    async for _ in requests:
        await context.write(CHUNK)


async def listen(
    requests: AsyncIterator[ProcessingRequest], context: grpc.aio.ServicerContext
) -> None:
    """Take every chunk."""
    del context
    async for _ in requests:
        pass


async def main(mode: str) -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(
        {"streamed": answer, "observed": listen}[mode],
        request_deserializer=ProcessingRequest.FromString,
        response_serializer=ProcessingResponse.SerializeToString,
    )
    service = "envoy.service.ext_proc.v3.ExternalProcessor"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Process": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
