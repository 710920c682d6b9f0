"""The server's life: ready, serving, draining, gone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc.server.intake import Intake
from extproc.server.servicer import SERVICE, Servicer

DRAIN_SECONDS: Final = 20.0
"""How long open exchanges may take to end. Most last milliseconds; slow uploads last longer."""

MESSAGE_BYTES_OVERHEAD: Final = 1 << 20
"""Headers and framing around the largest body: gRPC must not refuse what we would answer."""

_HEALTHY: Final = ("", SERVICE)


@asynccontextmanager
async def serving(  # noqa: PLR0913  # each is a thing of its own, and none has a better place
    servicer: Servicer,
    intake: Intake | None,
    *,
    address: str,
    request_body_bytes: int,
    drain_seconds: float,
    age_seconds: float | None = None,
    is_port_shared: bool = False,
) -> AsyncIterator[int]:
    """Serve until the block ends, then say so to health checkers and let exchanges finish.

    What is still open after `drain_seconds` is cut off with an error status, which Envoy does
    not take for consent. Records that come then are refused: Envoy keeps them. Beyond
    `age_seconds` a connection gets no new calls, and those that it has may take their time. Where
    the port is shared, other processes of ours may listen on it too, and the kernel deals out
    connections.

    Yields:
        The port in use, so that one may ask for port 0.

    Raises:
        RuntimeError: the address can't be bound.
    """
    options = [
        ("grpc.max_receive_message_length", request_body_bytes + MESSAGE_BYTES_OVERHEAD),
        ("grpc.so_reuseport", int(is_port_shared)),
    ]
    if age_seconds is not None:
        options.append(("grpc.max_connection_age_ms", int(age_seconds * 1000)))
    server = grpc.aio.server(options=options)
    healths = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healths, server)
    server.add_generic_rpc_handlers((servicer.handler(),))
    if intake is not None:
        server.add_generic_rpc_handlers((intake.handler(),))
    port = server.add_insecure_port(address)
    await server.start()
    for name in _HEALTHY:
        await healths.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield port
    finally:
        if intake is not None:
            intake.close()
        await healths.enter_graceful_shutdown()
        await server.stop(grace=drain_seconds)
