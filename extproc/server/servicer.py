"""`envoy.service.ext_proc.v3.ExternalProcessor/Process`: one stream, one exchange.

A stream in observability mode is none: it is a copy of an answer, and goes to whoever watches.
"""

import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import Final

import grpc
import grpc.aio
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from extproc.exchange import actions
from extproc.exchange.machine import Exchange
from extproc.exchange.phases import ProtocolError
from extproc.ledger.port import Ledger
from extproc.policy.budgets import Reserve
from extproc.wire.decode import decode
from extproc.wire.encode import encode

SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"

_log = logging.getLogger(__name__)


Decided = Callable[[str, str, float], None]
"""Is told of each exchange: `passed`, `routed`, `refused`, `turned_away`, `failed` or `given_up`;
why it was refused, else nothing; and the seconds that we worked and waited for the ledger."""

Requests = AsyncIterator[ProcessingRequest]

Watch = Callable[[ProcessingRequest, Requests], Awaitable[None]]
"""Is given the first message of a stream in observability mode, and the rest to come."""


async def let_go(first: ProcessingRequest, rest: Requests) -> None:
    """Watch nothing."""


class Servicer:
    """Serves exchanges. `new_reservation` names each one: 32 hex digits, never used twice."""

    def __init__(
        self,
        new_exchange: Callable[[str], Exchange],
        ledger: Ledger,
        new_reservation: Callable[[], str],
        decided: Decided,
        watch: Watch = let_go,
    ) -> None:
        self._new_exchange = new_exchange
        self._ledger = ledger
        self._new_reservation = new_reservation
        self._decided = decided
        self._watch = watch

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server is given."""
        method = grpc.stream_stream_rpc_method_handler(
            self.process,
            request_deserializer=ProcessingRequest.FromString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": method})

    async def process(self, requests: Requests, context: grpc.aio.ServicerContext) -> None:
        """Serve one exchange and end the stream right after its last answer.

        A fault ends it with an error status: Envoy takes a clean end for consent and lets the
        request pass unprocessed, even where it is configured to fail closed.
        """
        try:
            first = await anext(requests, None)
            if first is not None and first.observability_mode:
                await self._watch(first, requests)
            else:
                await self._serve(first, requests, context)
        except ProtocolError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception as error:
            # Where, but not the message: it may quote a prompt or a key.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("exchange.failed %s\n%s", type(error).__name__, where)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")

    async def _serve(
        self,
        message: ProcessingRequest | None,
        rest: Requests,
        context: grpc.aio.ServicerContext,
    ) -> None:
        reservation = self._new_reservation()
        exchange = self._new_exchange(reservation)
        is_held_in_vain = False
        outcome, reason, seconds = "given_up", "", 0.0
        try:
            while message is not None:
                began = perf_counter()
                action = exchange.receive(decode(message, exchange.headers_read))
                while isinstance(action, Reserve):
                    is_held_in_vain = True
                    action = exchange.receive(await self._ledger.reserve(action))
                answer = encode(action)
                seconds += perf_counter() - began
                # From here on Envoy may have heard: it drops the stream as soon as it has, and
                # that cancels us in the middle of the write.
                is_held_in_vain = False
                if isinstance(action, actions.Final):
                    outcome, reason = actions.told(action)
                await context.write(answer)
                if isinstance(action, actions.Final):
                    return
                message = await anext(rest, None)
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._decided(outcome, reason, seconds)
            if is_held_in_vain:
                await self._ledger.release(reservation)
