"""An ext_proc server that does nothing, on grpc.aio: the floor of our first shell.

    .venv/bin/python -m bench.noop_server

Answers each message with a constant and ends the stream after the body's.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import uvloop
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ProcessingRequest,
    ProcessingResponse,
)

HEADERS = ProcessingResponse(request_headers=HeadersResponse(response=CommonResponse()))
TIER = HeaderValueOption(header=HeaderValue(key="x-llm-tier", raw_value=b"premium"))
BODY = ProcessingResponse(
    request_body=BodyResponse(
        response=CommonResponse(
            header_mutation=HeaderMutation(set_headers=[TIER]), clear_route_cache=True
        )
    )
)


async def process(
    requests: AsyncIterator[ProcessingRequest], context: grpc.aio.ServicerContext
) -> None:
    """Answer the headers, answer the body, be done."""
    async for message in requests:
        if message.HasField("request_body"):
            await context.write(BODY)
            return
        await context.write(HEADERS)


async def main() -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(
        process,
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
    uvloop.run(main())
