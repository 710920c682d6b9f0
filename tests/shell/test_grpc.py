"""extproc/server over a real channel."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack

import grpc
import grpc.aio
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import HttpHeaders, ProcessingRequest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.exchange.actions import Action
from extproc.exchange.events import Event
from extproc.exchange.machine import Exchange
from extproc.ledger.port import NO_NOTES
from extproc.policy.budgets import Answer, Reserve, Settled, Settlement
from extproc.server.servicer import SERVICE, Servicer
from tests.scenarios.harness import Bare
from tests.scenarios.table import SCENARIOS, Call, Scenario, chat
from tests.shell.harness import Client, ask, body_of, head_of, served, server

BUDGETED = Call(chat(max_tokens=5), tenant="per-minute")


@pytest.fixture(scope="module")
def bare() -> Bare:
    return Bare()


def test_the_whole_table_of_scenarios(bare: Bare) -> None:
    async def run() -> None:
        async with served(bare) as client:
            for scenario in SCENARIOS:
                await check(client, scenario)

    asyncio.run(run())


async def check(client: Client, scenario: Scenario) -> None:
    for call in scenario.before:
        await client.send(call)

    *_, last = await client.send(scenario.call)

    kind = last.WhichOneof("response")
    if scenario.reason:
        assert (kind, last.immediate_response.status.code) == (
            "immediate_response",
            scenario.status,
        ), scenario.name
        assert last.immediate_response.details == f"llm_{scenario.reason}"
        assert scenario.says in last.immediate_response.body.decode()
    elif scenario.tier is None:
        assert (kind, last.HasField("mode_override")) == ("request_headers", True), scenario.name
    else:
        options = last.request_body.response.header_mutation.set_headers
        headers = {option.header.key: option.header.raw_value.decode() for option in options}
        assert headers["x-llm-tier"] == scenario.tier, scenario.name
        assert last.dynamic_metadata["llm"]["tier"] == scenario.tier


async def status_of(client: Client, *messages: ProcessingRequest) -> tuple[grpc.StatusCode, str]:
    stream = client.open()
    *first, last = messages
    for message in first:
        await ask(stream, message)
    await stream.write(last)
    with pytest.raises(grpc.aio.AioRpcError):
        await stream.read()
    return await stream.code(), await stream.details()


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([ProcessingRequest()], id="nothing in it"),
        pytest.param([body_of(BUDGETED)], id="a body before the headers"),
        pytest.param([head_of(BUDGETED), head_of(BUDGETED)], id="headers twice"),
        pytest.param(
            [ProcessingRequest(response_headers=HttpHeaders())], id="a response before a request"
        ),
    ],
)
def test_a_wrong_message_ends_its_stream_with_an_error_and_no_other(
    bare: Bare, messages: list[ProcessingRequest]
) -> None:
    async def run() -> None:
        async with served(bare) as client:
            bystander = client.open()
            await ask(bystander, head_of(BUDGETED))

            code, _ = await status_of(client, *messages)

            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert (await ask(bystander, body_of(BUDGETED))).HasField("request_body")

    asyncio.run(run())


def test_bytes_that_are_no_message_end_their_stream_and_not_the_server(bare: Bare) -> None:
    async def run() -> None:
        async with served(bare) as client:
            raw = client.channel.stream_stream(f"/{SERVICE}/Process")(timeout=20)
            await raw.write(b"\xff\xff\xff")
            with pytest.raises(grpc.aio.AioRpcError):
                await raw.read()

            assert len(await client.send(BUDGETED)) == 2

    asyncio.run(run())


class Broken(Exchange):
    """Has a bug whose message quotes the prompt."""

    def receive(self, event: Event) -> Action:
        msg = f"s3cret {event}"
        raise KeyError(msg)


def test_a_bug_ends_the_stream_with_an_error_that_says_nothing(
    bare: Bare, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        def broken(reservation: str) -> Exchange:
            return Broken(bare.rules, bare.counter, reservation=reservation)

        async with served(bare, new_exchange=broken) as client:
            found = await status_of(client, head_of(BUDGETED))

        assert found == (grpc.StatusCode.INTERNAL, "internal error")

    asyncio.run(run())

    assert "exchange.failed KeyError" in caplog.text
    assert "in receive" in caplog.text
    assert "s3cret" not in caplog.text


def test_the_largest_body_is_ours_to_judge(bare: Bare) -> None:
    limit = bare.rules.request_body_bytes
    body = chat("")
    largest = body.replace(b'""', b'"%b"' % (b"x" * (limit - len(body))))

    async def run() -> list[str]:
        async with served(bare) as client:
            calls = [
                Call(data, headers={"content-length": "9"}) for data in (largest, largest + b" ")
            ]
            return [(await client.send(call))[-1].immediate_response.details for call in calls]

    assert asyncio.run(run()) == ["llm_context_exceeded", "llm_request_too_large"]


class GatedLedger:
    """A ledger that does not answer before it is told to, and remembers what was given back."""

    def __init__(self, bare: Bare) -> None:
        self.inner = bare.ledger
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.released = asyncio.Event()

    async def reserve(self, ask: Reserve) -> Answer:
        self.asked.set()
        await self.gate.wait()
        return await self.inner.reserve(ask)

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        return await self.inner.settle(settlements, notes)

    async def release(self, reservation: str) -> None:
        await self.inner.release(reservation)
        self.released.set()


def test_what_was_reserved_for_a_request_that_went_away_is_given_back(bare: Bare) -> None:
    async def run() -> None:
        ledger = GatedLedger(bare)
        async with served(bare, ledger=ledger) as client:
            stream = client.open()
            await ask(stream, head_of(BUDGETED))
            await stream.write(body_of(BUDGETED))
            await ledger.asked.wait()

            stream.cancel()

            await asyncio.wait_for(ledger.released.wait(), 20)

    asyncio.run(run())


def test_what_was_reserved_for_a_request_that_was_let_go_is_kept(bare: Bare) -> None:
    async def run() -> None:
        ledger = GatedLedger(bare)
        ledger.gate.set()
        async with served(bare, ledger=ledger) as client:
            await client.send(BUDGETED)

        assert not ledger.released.is_set()

    asyncio.run(run())


class DroppedContext:
    """A stream that Envoy drops as soon as it has heard the last answer, as it does."""

    def __init__(self) -> None:
        self.written = 0

    async def write(self, _: object) -> None:
        self.written += 1
        if self.written == 2:
            raise asyncio.CancelledError


def test_what_envoy_may_have_heard_of_is_not_given_back(bare: Bare) -> None:
    async def messages() -> AsyncIterator[ProcessingRequest]:
        yield head_of(BUDGETED)
        yield body_of(BUDGETED)

    heard: list[tuple[str, str]] = []

    async def run() -> bool:
        ledger = GatedLedger(bare)
        ledger.gate.set()
        servicer = Servicer(
            lambda name: Exchange(bare.rules, bare.counter, reservation=name),
            ledger,
            lambda: "d" * 32,
            lambda *told: heard.append(told[:2]),
        )
        with pytest.raises(asyncio.CancelledError):
            await servicer.process(messages(), DroppedContext())
        return ledger.released.is_set()

    assert asyncio.run(run()) is False
    assert heard == [("routed", "")]


def test_every_exchange_is_told_with_its_reason_and_how_long_it_took(bare: Bare) -> None:
    heard: list[tuple[str, str, float]] = []

    async def run() -> None:
        async with served(bare, decided=lambda *told: heard.append(told)) as client:
            await client.send(Call(chat()))
            await client.send(Call(b"{"))
            await client.send(Call(b"", method="GET"))
            await status_of(client, body_of(BUDGETED))
            given_up = client.open()
            await ask(given_up, head_of(BUDGETED))
            given_up.cancel()
            async with asyncio.timeout(20):
                while len(heard) < 5:  # noqa: ASYNC110  # nobody tells when a stream is gone
                    await asyncio.sleep(0.01)

    asyncio.run(run())
    assert [told[:2] for told in heard] == [
        ("routed", ""),
        ("refused", "malformed_request"),
        ("passed", ""),
        ("failed", ""),
        ("given_up", ""),
    ]
    assert all(0 <= seconds < 5 for _, _, seconds in heard)


async def health_of(channel: grpc.aio.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


def test_a_server_is_healthy_while_it_serves(bare: Bare) -> None:
    async def run() -> list[int]:
        async with served(bare) as client:
            return [await health_of(client.channel, name) for name in ("", SERVICE)]

    assert asyncio.run(run()) == [health_pb2.HealthCheckResponse.SERVING] * 2


async def drained(bare: Bare, *, drain_seconds: float, finish: bool) -> grpc.StatusCode:
    """Begin to drain with an exchange open; finish it or don't; return how its stream ended."""
    stack = AsyncExitStack()
    port = await stack.enter_async_context(server(bare, drain_seconds=drain_seconds))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stream = Client(channel).open()
        await ask(stream, head_of(BUDGETED))

        async with asyncio.TaskGroup() as tasks:
            closing = tasks.create_task(stack.aclose())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert not closing.done()
            watch.cancel()
            if finish:
                assert (await ask(stream, body_of(BUDGETED))).HasField("request_body")
            return await stream.code()


def test_an_open_exchange_is_finished_while_draining(bare: Bare) -> None:
    code = asyncio.run(drained(bare, drain_seconds=20, finish=True))

    assert code is grpc.StatusCode.OK


def test_what_is_still_open_after_the_drain_ends_with_an_error(bare: Bare) -> None:
    code = asyncio.run(drained(bare, drain_seconds=0.2, finish=False))

    # A clean end would let the request pass unprocessed.
    assert code is not grpc.StatusCode.OK
