"""What we do not do: settle from Envoy's gRPC access log service, which acknowledges nothing.

`python -m chaos.als_receiver --settings FILE --port N` keeps the same kind of books.
"""

import argparse
import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import grpc.aio
import msgspec
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from google.protobuf.json_format import MessageToDict

from extproc.config.loader import load_file
from extproc.exchange.outcome import Noted, Outcome, Place, Timing, Trace
from extproc.exchange.settling import bill_of, settlement_of
from extproc.ledger.port import Ledger
from extproc.ledger.sqlite import SqliteLedger
from extproc.policy.budgets import Settlement
from extproc.policy.decide import Policy
from extproc.server.rulebook import rules_of

_SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"


class Receiver:
    """Settles whatever comes, as soon as it comes."""

    def __init__(self, ledger: Ledger, policy: Policy) -> None:
        self._ledger = ledger
        self._policy = policy

    async def receive(
        self, messages: AsyncIterator[StreamAccessLogsMessage], _: grpc.aio.ServicerContext
    ) -> StreamAccessLogsResponse:
        """Take one stream, for as long as it lasts."""
        async for message in messages:
            found = (self._settlement(entry) for entry in message.http_logs.log_entry)
            await self._ledger.settle([settlement for settlement in found if settlement])
        return StreamAccessLogsResponse()

    def _settlement(self, entry: HTTPAccessLogEntry) -> Settlement | None:
        common = entry.common_properties
        told = MessageToDict(common.metadata.filter_metadata["llm"])
        noted = msgspec.convert({key: _whole(value) for key, value in told.items()}, Noted)
        if noted.outcome != "routed":
            return None
        address = common.upstream_remote_address.socket_address
        host = f"{address.address}:{address.port_value}" if address.address else ""
        outcome = Outcome(
            stream_id=common.stream_id,
            started=0.0,
            method="POST",
            path="",
            status=entry.response.response_code.value,
            flags="-",
            details="",
            bytes_received=0,
            bytes_sent=0,
            noted=noted,
            place=Place(cluster=common.upstream_cluster, host=host),
            timing=Timing(),
            trace=Trace(),
        )
        return settlement_of(outcome, bill_of(self._policy, outcome))


def _whole(value: object) -> object:
    """Numbers of a Struct are doubles."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def serve(settings: Path, port: int) -> None:
    """Serve until SIGTERM."""
    loaded = load_file(settings)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    path = loaded.settings.ledger.path
    async with SqliteLedger.open(path, time.time, 900) as ledger:  # noqa: TID251  # its own main
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        method = grpc.stream_unary_rpc_method_handler(
            Receiver(ledger, rules_of(loaded).policy).receive,
            request_deserializer=StreamAccessLogsMessage.FromString,
            response_serializer=StreamAccessLogsResponse.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(_SERVICE, {"StreamAccessLogs": method})
        server.add_generic_rpc_handlers((handler,))
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        print(f"listening on 127.0.0.1:{bound}", flush=True)
        await stopping.wait()
        await server.stop(grace=1.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.settings, options.port))
