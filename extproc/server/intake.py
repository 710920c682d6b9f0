"""`opentelemetry.proto.collector.logs.v1.LogsService/Export`: Envoy's access log comes in.

A call is answered OK once the ledger has committed all that was in it, and UNAVAILABLE if it
can't: then Envoy brings it again. What can never be understood is counted and acknowledged, so
that it does not hold up the rest.
"""

import asyncio
import logging
import traceback
from collections.abc import Sequence
from typing import Final, Protocol

import grpc
import grpc.aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from extproc.exchange.outcome import Outcome
from extproc.server.desk import SLICE, Tally
from extproc.wire.records import Unreadable, outcome_of

SERVICE: Final = "opentelemetry.proto.collector.logs.v1.LogsService"

RECORDS_IN_WORK_MAX: Final = 20_000
"""Of all calls that are not answered yet. About 3 kB each; Envoy keeps what is beyond."""

_log = logging.getLogger(__name__)
_TAKEN: Final = ExportLogsServiceResponse()


class Taker(Protocol):
    """Whom finished requests are brought to: the desk, or who stands in front of it."""

    async def take(self, outcomes: Sequence[Outcome]) -> bool:
        """Take them all; whether that is committed, and they need not come again."""


class Intake:
    """Serves the access log. `close` makes it refuse what comes from then on."""

    def __init__(self, taker: Taker, tally: Tally) -> None:
        self._taker = taker
        self._tally = tally
        self._in_work = 0
        self._working: set[asyncio.Future[bool]] = set()
        self._is_closed = False

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server is given."""
        method = grpc.unary_unary_rpc_method_handler(
            self.export,
            request_deserializer=ExportLogsServiceRequest.FromString,
            response_serializer=ExportLogsServiceResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Export": method})

    def close(self) -> None:
        """Let Envoy keep its records for whoever comes next."""
        self._is_closed = True

    async def export(
        self, request: ExportLogsServiceRequest, context: grpc.aio.ServicerContext
    ) -> ExportLogsServiceResponse:
        """Take one batch, whole or not at all."""
        if self._is_closed:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        records = [
            record
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
        if self._in_work + len(records) > RECORDS_IN_WORK_MAX and self._in_work:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many records in work")
        self._in_work += len(records)
        try:
            # Not cut short when Envoy gives up waiting: it would only come again.
            work = asyncio.ensure_future(self._take(records))
            self._working.add(work)
            work.add_done_callback(self._working.discard)
            is_taken = await asyncio.shield(work)
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("records.failed %s\n%s", type(error).__name__, where)
            is_taken = False
        finally:
            self._in_work -= len(records)
        if not is_taken:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the ledger could not commit")
        return _TAKEN

    async def _take(self, records: Sequence[LogRecord]) -> bool:
        outcomes: list[Outcome] = []
        for start in range(0, len(records), SLICE):
            for record in records[start : start + SLICE]:
                outcome = outcome_of(record)
                if isinstance(outcome, Unreadable):
                    self._tally.record("unreadable", None)
                else:
                    outcomes.append(outcome)
            await asyncio.sleep(0)
        return await self._taker.take(outcomes)
