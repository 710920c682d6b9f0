"""extproc/server/intake.py over a real channel: what Envoy is answered, and when."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from extproc.config.loader import load_file
from extproc.exchange.holds import holds_text
from extproc.ledger.memory import MemoryLedger
from extproc.ledger.port import NO_NOTES
from extproc.policy.budgets import Claim, Settled, Settlement, Window
from extproc.server import intake
from extproc.server.desk import Desk
from extproc.server.intake import Intake
from extproc.server.lifecycle import serving
from extproc.server.rulebook import Rulebook
from extproc.server.servicer import Servicer
from extproc.wire.records import EXPORT
from tests.ledger_books import NOON, Clock
from tests.scenarios.table import SETTINGS
from tests.shell.harness import DEADLINE_SECONDS
from tests.unit.test_desk import Ears

CLAIM = Claim("minute", "tokens", 1000, Window(seconds=60), 500, 400)


class Gated(MemoryLedger):
    """A ledger that commits when its gate opens, and not before."""

    def __init__(self) -> None:
        super().__init__(Clock(), reservation_seconds=100)
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.fault: OSError | None = None

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        self.asked.set()
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return await super().settle(settlements, notes)

    async def committed(self) -> int:
        (standing,) = await self.standing("acme", (CLAIM,), at=NOON)
        return standing.committed


class World:
    def __init__(self, port: int, ledger: Gated, ears: Ears, taking: Intake) -> None:
        self.ledger, self.ears, self.taking = ledger, ears, taking
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._method = self._channel.unary_unary(
            EXPORT,
            request_serializer=ExportLogsServiceRequest.SerializeToString,
            response_deserializer=ExportLogsServiceResponse.FromString,
        )

    def send(self, *records: LogRecord) -> grpc.aio.UnaryUnaryCall:
        return self._method(batch(*records), timeout=DEADLINE_SECONDS)

    async def status_of(self, *records: LogRecord) -> grpc.StatusCode:
        call = self.send(*records)
        return await call.code()

    async def close(self) -> None:
        await self._channel.close()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    ledger, ears = Gated(), Ears()
    rulebook = Rulebook(load_file(SETTINGS))
    desk = Desk(rulebook, ledger, Clock(), observers=(ears,), audit=Ears(), tally=ears)
    taking = Intake(desk, ears)

    def no_exchange(_: str) -> None:
        raise AssertionError

    servicer = Servicer(no_exchange, ledger, str, lambda *_: None)  # type: ignore[arg-type]  # nobody calls it
    serve = serving(
        servicer, taking, address="127.0.0.1:0", request_body_bytes=1 << 20, drain_seconds=5
    )
    async with serve as port:
        found = World(port, ledger, ears, taking)
        try:
            yield found
        finally:
            ledger.gate.set()
            await found.close()


def batch(*records: LogRecord) -> ExportLogsServiceRequest:
    """One call, its records in several scopes."""
    scopes = [ScopeLogs(log_records=[record]) for record in records]
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=scopes)])


def finished(name: str = "r1", **attributes: str) -> LogRecord:
    llm = {
        "outcome": "routed",
        "tenant": "acme",
        "model": "gpt-4",
        "reservation": name,
        "reserved": holds_text((CLAIM,), (NOON,)),
        "usage": '{"prompt_tokens": 100, "completion_tokens": 20}',
    }
    told = {"llm": json.dumps(llm), "stream_id": name, "status": "200", "host": "h"} | attributes
    pairs = [KeyValue(key=key, value=AnyValue(string_value=told[key])) for key in told]
    return LogRecord(time_unix_nano=int(NOON * 1e9), attributes=pairs)


def test_a_batch_is_acknowledged_after_the_commit_and_not_before() -> None:
    async def run() -> None:
        async with world() as it:
            call = it.send(finished("a"), finished("b"))
            await it.ledger.asked.wait()
            assert not call.done()
            assert await it.ledger.committed() == 0

            it.ledger.gate.set()

            assert await call.code() is grpc.StatusCode.OK
            assert await it.ledger.committed() == 240

    asyncio.run(run())


def test_a_caller_that_gives_up_does_not_keep_it_from_being_committed() -> None:
    async def run() -> None:
        async with world() as it:
            call = it.send(finished())
            await it.ledger.asked.wait()
            call.cancel()
            it.ledger.gate.set()

            assert await it.status_of(finished()) is grpc.StatusCode.OK
            assert await it.ledger.committed() == 120
            assert it.ears.counted == {"call": 1, "repeated": 1}

    asyncio.run(run())


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(LogRecord(), id="nothing in it"),
        pytest.param(finished("x", llm="{"), id="metadata that is no JSON"),
        pytest.param(finished("x", status="two"), id="a status that is no number"),
    ],
)
def test_garbage_is_counted_and_does_not_hold_up_the_rest(garbage: LogRecord) -> None:
    async def run() -> None:
        async with world() as it:
            it.ledger.gate.set()

            assert await it.status_of(garbage, finished()) is grpc.StatusCode.OK

            assert it.ears.counted == {"unreadable": 1, "call": 1}
            assert await it.ledger.committed() == 120

    asyncio.run(run())


def test_what_fails_to_commit_is_to_come_again(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with world() as it:
            it.ledger.gate.set()
            it.ledger.fault = OSError(5, "a secret")
            assert await it.status_of(finished()) is grpc.StatusCode.UNAVAILABLE

            it.ledger.fault = None
            assert await it.status_of(finished()) is grpc.StatusCode.OK
            assert await it.ledger.committed() == 120

    asyncio.run(run())
    assert "records.failed OSError" in caplog.text
    assert "secret" not in caplog.text


def test_once_it_drains_envoy_is_to_keep_its_records() -> None:
    async def run() -> None:
        async with world() as it:
            it.ledger.gate.set()
            it.taking.close()

            assert await it.status_of(finished()) is grpc.StatusCode.UNAVAILABLE
            assert await it.ledger.committed() == 0

    asyncio.run(run())


def test_more_records_than_may_be_in_work_are_to_come_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "RECORDS_IN_WORK_MAX", 3)

    async def run() -> None:
        async with world() as it:
            first = it.send(finished("a"), finished("b"))
            await it.ledger.asked.wait()

            assert (
                await it.status_of(finished("c"), finished("d"))
                is grpc.StatusCode.RESOURCE_EXHAUSTED
            )
            it.ledger.gate.set()
            assert await first.code() is grpc.StatusCode.OK
            # What is too much on its own has to come in at some time.
            many = [finished(f"n{number}") for number in range(5)]
            assert await it.status_of(*many) is grpc.StatusCode.OK
            assert await it.ledger.committed() == 7 * 120

    asyncio.run(run())


def test_an_empty_call_is_fine() -> None:
    async def run() -> None:
        async with world() as it:
            it.ledger.gate.set()
            assert await it.status_of() is grpc.StatusCode.OK

    asyncio.run(run())
