"""`envoy.service.ext_proc.v3.ExternalProcessor/Process` on our own transport.

Does what `extproc.server.servicer` does on grpc.aio, and means the same by it; but where the
ledger answers without waiting, a whole exchange runs within the calls that bring its messages:
no task, no queue, no turn of the loop.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Final

from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from extproc.exchange import actions
from extproc.exchange.machine import Exchange
from extproc.exchange.phases import ProtocolError
from extproc.ledger.port import Ledger
from extproc.policy.budgets import Answer, Reserve
from extproc.server.h2 import answers
from extproc.server.h2.asynchronous import (
    Answering,
    Requests,
    Resumed,
    at_once,
    background,
    log_bug,
)
from extproc.server.h2.heads import Method
from extproc.server.servicer import SERVICE, Decided, Watch, let_go
from extproc.wire.decode import decode
from extproc.wire.encode import encode

FAILS_OPEN: Final = (b"x-llm-failure-mode", b"allow")
"""What a filter says (`grpc_service.initial_metadata`) that lets requests pass which we fail."""


class Decisions:
    """Serves exchanges; its parts are those of `Servicer`."""

    def __init__(
        self,
        new_exchange: Callable[[str], Exchange],
        ledger: Ledger,
        new_reservation: Callable[[], str],
        decided: Decided,
        watch: Watch = let_go,
    ) -> None:
        self.new_exchange = new_exchange
        self.ledger = ledger
        self.new_reservation = new_reservation
        self.decided = decided
        self.watch = watch

    def methods(self) -> Mapping[bytes, Method]:
        """What a server is given."""
        return {b"/%b/Process" % SERVICE.encode(): partial(Decision, self)}


class Decision:
    """One exchange: the handler of one call."""

    __slots__ = (
        "_call",
        "_exchange",
        "_is_awaiting",
        "_is_held_in_vain",
        "_is_over",
        "_of",
        "_outcome",
        "_reason",
        "_reservation",
        "_seconds",
        "_task",
        "_watched",
    )

    def __init__(self, of: Decisions, call: Answering) -> None:
        self._of = of
        self._call = call
        self._exchange: Exchange | None = None
        self._reservation = ""
        self._watched: Requests[ProcessingRequest] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_awaiting = self._is_held_in_vain = self._is_over = False
        self._outcome, self._reason, self._seconds = "given_up", "", 0.0

    # What comes.

    def on_message(self, message: bytes) -> None:
        """Answer it."""
        if self._watched is not None:
            self._watched.put(message)
            return
        began = perf_counter()
        try:
            request = ProcessingRequest.FromString(message)
            exchange = self._exchange
            is_awaited, is_late = self._is_awaiting, False
            if is_awaited:
                self._expect_no_more()
            if exchange is None:
                if request.observability_mode:
                    self._begin_to_watch(request)
                    return
                exchange = self._begin()
                is_late = self._call.is_late
                if is_late and FAILS_OPEN in self._call.head.fields:
                    self._turn_away()
                    return
            action = exchange.receive(decode(request, exchange.headers_read, is_late=is_late))
            if isinstance(action, Reserve):
                self._reserve(exchange, action, began)
            else:
                self._answer(action, began)
            if is_awaited:
                self._call.took(perf_counter() - began)
        except Exception as error:  # noqa: BLE001  # a barrier between exchanges
            self._fail(error)

    def on_end(self) -> None:
        """Envoy has nothing more to say: then nor have we."""
        if self._watched is not None:
            self._watched.end()
            return
        if self._exchange is None:
            self._begin()
        self._call.finish()
        self._over()

    def on_cancel(self) -> None:
        """Envoy has given the request up."""
        if self._task is not None:
            # Not before it has ended: the ledger may be about to hold something.
            self._task.cancel()
            if self._watched is None:
                self._task.add_done_callback(self._ended)
        elif self._exchange is not None:
            self._over()

    # What we do about it.

    def _begin(self) -> Exchange:
        self._reservation = self._of.new_reservation()
        self._exchange = self._of.new_exchange(self._reservation)
        return self._exchange

    def _answer(self, action: actions.Final | actions.ReadBody, began: float) -> None:
        answer = encode(action)
        self._seconds += perf_counter() - began
        # From here on Envoy may hear of it.
        self._is_held_in_vain = False
        self._call.send(answer)
        if isinstance(action, actions.Final):
            self._outcome, self._reason = actions.told(action)
            self._call.finish()
            self._over()
        else:
            self._is_awaiting = True
            self._call.expect()

    def _expect_no_more(self) -> None:
        self._is_awaiting = False
        self._call.expect_no_more()

    def _reserve(self, exchange: Exchange, action: Reserve, began: float) -> None:
        """Ask the ledger, which mostly knows at once."""
        self._is_held_in_vain = True
        told: actions.Action = action
        while isinstance(told, Reserve):
            asked = self._of.ledger.reserve(told)
            try:
                waits_for = asked.send(None)
            except StopIteration as answered:
                told = exchange.receive(answered.value)
            else:
                self._call.pause()
                resumed: Resumed[Answer] = Resumed(asked, waits_for)
                self._task = background(self._wait(exchange, resumed, began))
                return
        self._answer(told, began)

    async def _wait(self, exchange: Exchange, asked: Resumed[Answer], began: float) -> None:
        """Ask a ledger that takes its time."""
        try:
            action = exchange.receive(await asked)
            while isinstance(action, Reserve):
                action = exchange.receive(await self._of.ledger.reserve(action))
            if self._call.is_open:  # else it was cancelled, and the ledger did not mind
                self._answer(action, began)
        except Exception as error:  # noqa: BLE001  # a barrier between exchanges
            self._fail(error)
        finally:
            self._task = None
        self._call.resume()

    def _turn_away(self) -> None:
        """Fail at once, rather than when Envoy has waited for long enough."""
        self._call.finish(answers.UNAVAILABLE, "overloaded")
        self._outcome = "turned_away"
        self._over()

    def _fail(self, error: Exception) -> None:
        """End with an error status: Envoy takes a clean end for consent."""
        if isinstance(error, ProtocolError):
            self._call.finish(answers.INVALID_ARGUMENT, str(error))
        else:
            log_bug("exchange.failed", error)
            self._call.finish(answers.INTERNAL, "internal error")
        if self._exchange is not None:
            self._outcome, self._reason = "failed", ""
            self._over()

    def _over(self) -> None:
        """Say what became of it, and give back what is held for nobody. Once."""
        if self._is_over:
            return
        self._is_over = True
        if self._is_awaiting:
            self._expect_no_more()
        self._of.decided(self._outcome, self._reason, self._seconds)
        if self._is_held_in_vain:
            at_once(self._of.ledger.release(self._reservation))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del task
        self._over()

    # Streams in observability mode.

    def _begin_to_watch(self, first: ProcessingRequest) -> None:
        self._watched = Requests(self._call, ProcessingRequest.FromString)
        self._task = background(self._watch(first, self._watched))

    async def _watch(self, first: ProcessingRequest, rest: Requests[ProcessingRequest]) -> None:
        try:
            await self._of.watch(first, rest)
        except Exception as error:  # noqa: BLE001  # a barrier between streams
            self._fail(error)
        else:
            self._call.finish()
