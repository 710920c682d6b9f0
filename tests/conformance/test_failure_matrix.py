"""What a processor that fails does to a request, where the filter fails closed and where open.

The matrix of Envoy's facts by which the manifests are written. The processors here are wrong on
purpose; what becomes of a request when our own service dies is in test_failures.py.
"""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import grpc.aio
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse

from extproc.demo import envoy
from extproc.demo.accesslog import AccessLog
from extproc.demo.attachment import Wiring
from extproc.server.servicer import SERVICE
from tests.conformance.harness import CHAT, DEADLINE_SECONDS, chat, head, mark

Requests = AsyncIterator[ProcessingRequest]
Handler = Callable[[Requests, grpc.aio.ServicerContext], Awaitable[None]]

PROCESSES = "ext_proc_error"
LIMIT = 1 << 20


async def hangs(_: Requests, context: grpc.aio.ServicerContext) -> None:
    done = asyncio.Event()
    context.add_done_callback(lambda _: done.set())
    await done.wait()


async def gives_an_error(_: Requests, context: grpc.aio.ServicerContext) -> None:
    await context.abort(grpc.StatusCode.INTERNAL, "wrong on purpose")


async def ends_cleanly(requests: Requests, _: grpc.aio.ServicerContext) -> None:
    await anext(requests)


async def answers_what_nobody_asked(requests: Requests, context: grpc.aio.ServicerContext) -> None:
    await anext(requests)
    response = ProcessingResponse()
    response.response_headers.SetInParent()
    await context.write(response)


async def consents(requests: Requests, context: grpc.aio.ServicerContext) -> None:
    async for request in requests:
        response = ProcessingResponse()
        getattr(response, request.WhichOneof("request") or "").SetInParent()
        await context.write(response)


class Case(NamedTuple):
    """How a processor fails, and what the client gets: fail-closed, and fail-open."""

    handler: Handler | None
    closed: int
    details: str
    opened: int = 200


CASES = {
    "refused": Case(None, 500, PROCESSES + "_gRPC_error_14"),
    "hanging": Case(hangs, 504, PROCESSES + "_per-message_timeout_exceeded"),
    "an error": Case(gives_an_error, 500, PROCESSES + "_gRPC_error_13"),
    # Consent, Envoy thinks, in both: so our service never ends a stream so.
    "a clean end": Case(ends_cleanly, 200, "via_upstream"),
    "a wrong message": Case(answers_what_nobody_asked, 500, "spurious_message"),
}


@asynccontextmanager
async def served(handler: Handler | None) -> AsyncIterator[int]:
    """Run a processor; yields its port, which nobody listens to if there is none."""
    if handler is None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            yield held.getsockname()[1]
        return
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    method = grpc.stream_stream_rpc_method_handler(
        handler,
        request_deserializer=ProcessingRequest.FromString,
        response_serializer=ProcessingResponse.SerializeToString,
    )
    generic = grpc.method_handlers_generic_handler(SERVICE, {"Process": method})
    server.add_generic_rpc_handlers((generic,))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def sent(gateway: envoy.Gateway, body: bytes, step: str, **more: str) -> tuple[int, Any]:
    """Status, and what reached an upstream, if anything did: whoever answers tells."""
    timeout = aiohttp.ClientTimeout(DEADLINE_SECONDS)
    headers = head(step) | {"x-llm-tier": "premium", "x-tenant-id": "me"} | more
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(gateway.url + CHAT, data=io.BytesIO(body), headers=headers) as response,
    ):
        return response.status, response.headers.get("x-served-by")


@pytest.mark.parametrize("fails_open", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("name", CASES)
async def test_a_processor_that_fails(
    tmp_path: Path,
    adapters: Mapping[str, int],
    envoy_version: str,
    name: str,
    fails_open: bool,  # a parameter of the table
) -> None:
    case, step = CASES[name], mark()
    async with served(case.handler) as port:
        wiring = Wiring(port, adapters, fails_open=fails_open, message_timeout="0.5s")
        with envoy.gateway(wiring, directory=tmp_path, version=envoy_version) as gateway:
            status, adapter = await sent(gateway, chat(), step)
            (record,) = await AccessLog(gateway.access_log).wait_for(step, count=1)

    assert status == (case.opened if fails_open else case.closed)
    if status == 200:
        # Undecided, and with none of the headers that the client made up: no tier, no model.
        assert adapter == "platform"
        assert record.llm.get("outcome") is None
    else:
        assert record.details.startswith(case.details)
        assert adapter is None


@pytest.mark.parametrize("fails_open", [False, True], ids=["closed", "open"])
async def test_a_body_that_is_too_large_is_refused_in_both(
    tmp_path: Path,
    adapters: Mapping[str, int],
    envoy_version: str,
    fails_open: bool,  # a parameter of the table
) -> None:
    step = mark()
    async with served(consents) as port:
        wiring = Wiring(port, adapters, request_body_bytes=LIMIT, fails_open=fails_open)
        with envoy.gateway(wiring, directory=tmp_path, version=envoy_version) as gateway:
            status, _ = await sent(gateway, chat("x" * (LIMIT << 1)), step)
            (record,) = await AccessLog(gateway.access_log).wait_for(step, count=1)

    assert (status, record.details) == (413, "request_payload_too_large")
