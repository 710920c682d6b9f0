"""The server's life on our own transport: what `extproc.server.lifecycle` is on grpc.aio."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from ssl import SSLContext
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from extproc.server import intake as records
from extproc.server import servicer
from extproc.server.h2.asynchronous import Unary, finished
from extproc.server.h2.decision import Decisions
from extproc.server.h2.heads import Method
from extproc.server.h2.health import Health
from extproc.server.h2.limits import FOREVER, Limits
from extproc.server.h2.shell import serve
from extproc.server.intake import Intake
from extproc.server.lifecycle import MESSAGE_BYTES_OVERHEAD

SETTLING_SECONDS: Final = 2.0
"""How long what was cut off may take to give back what it held."""


@asynccontextmanager
async def serving(  # noqa: PLR0913  # each is a thing of its own, and none has a better place
    decisions: Decisions,
    intake: Intake | None,
    *,
    address: str,
    request_body_bytes: int,
    drain_seconds: float,
    age_seconds: float | None = None,
    ssl: SSLContext | None = None,
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
    health = Health(("", servicer.SERVICE))
    methods = {**decisions.methods(), **health.methods(), **methods_of(intake)}
    limits = Limits(
        message_bytes_max=request_body_bytes + MESSAGE_BYTES_OVERHEAD,
        age_seconds=age_seconds if age_seconds is not None else FOREVER,
        leave_seconds=FOREVER,  # an answer that is observed lasts; a drain has a time of its own
    )
    async with serve(
        address,
        methods,
        limits=limits,
        ssl=ssl,
        drain_seconds=drain_seconds,
        is_port_shared=is_port_shared,
    ) as port:
        try:
            yield port
        finally:
            if intake is not None:
                intake.close()
            health.stop()
    await finished(SETTLING_SECONDS)


def methods_of(intake: Intake | None) -> Mapping[bytes, Method]:
    """What a server is given so that it takes records; nothing where nobody takes any."""
    if intake is None:
        return {}
    export = partial(
        Unary,
        intake.export,
        ExportLogsServiceRequest.FromString,
        ExportLogsServiceResponse.SerializeToString,
    )
    return {b"/%b/Export" % records.SERVICE.encode(): export}
