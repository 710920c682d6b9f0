"""Observed streams over a real channel: nothing comes back, and nothing lingers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio

from extproc import app
from extproc.config.loader import load_file
from extproc.exchange.machine import Exchange
from extproc.exchange.sightings import Sighting
from extproc.ledgers import ledger_of
from extproc.server.lifecycle import serving
from extproc.server.meeting import SIGHTED
from extproc.server.servicer import Servicer
from extproc.server.watcher import Watcher
from tests.conformance.harness import settings_in
from tests.meter.answers import SHORT
from tests.scenarios.harness import Bare
from tests.scenarios.table import Call, chat
from tests.shell.harness import Client
from tests.unit.test_watcher import SHORT_SEEN, chunk, head


class World(NamedTuple):
    client: Client
    seen: "asyncio.Queue[Sighting]"
    cases: Counter[str]
    decided: list[str]


@asynccontextmanager
async def world(*, is_watched: bool = True) -> AsyncIterator[World]:
    bare = Bare()
    seen: asyncio.Queue[Sighting] = asyncio.Queue()
    cases: Counter[str] = Counter()
    decided: list[str] = []
    watcher = Watcher(seen.put_nowait, lambda case: cases.update([case]))
    more: dict[str, Any] = {"watch": watcher.watch} if is_watched else {}
    servicer = Servicer(
        lambda reservation: Exchange(bare.rules, bare.counter, reservation=reservation),
        bare.ledger,
        lambda: "r",
        lambda outcome, _reason, _seconds: decided.append(outcome),
        **more,
    )
    serve = serving(
        servicer, None, address="127.0.0.1:0", request_body_bytes=1 << 20, drain_seconds=5
    )
    async with serve as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield World(Client(channel), seen, cases, decided)


def test_an_observed_answer_is_heard_in_silence_and_its_stream_ends_with_it() -> None:
    async def run() -> None:
        async with world() as it:
            stream = it.client.open()
            for message in (head(), chunk(SHORT[:40]), chunk(SHORT[40:]), chunk(b"", is_last=True)):
                await stream.write(message)

            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK
            assert it.seen.get_nowait() == Sighting("r1", SHORT_SEEN, is_whole=True)
            assert (it.cases, it.decided) == ({"watched": 1}, [])

    asyncio.run(run())


def test_what_envoy_gives_up_was_seen_so_far() -> None:
    async def run() -> None:
        async with world() as it:
            stream = it.client.open()
            await stream.write(head())
            await stream.write(chunk(SHORT))
            await stream.done_writing()
            assert await it.seen.get() == Sighting("r1", SHORT_SEEN, is_whole=False)
            assert await stream.code() is grpc.StatusCode.OK

            stream = it.client.open()
            await stream.write(head())
            stream.cancel()
            await it.client.send(Call(chat()))

        # One that was cancelled before its head was read was never begun.
        assert it.cases["cut_off"] == 1 + it.seen.qsize()

    asyncio.run(run())


def test_exchanges_are_served_beside_it() -> None:
    async def run() -> None:
        async with world() as it:
            stream = it.client.open()
            await stream.write(head())

            assert len(await it.client.send(Call(chat()))) == 2

            await stream.write(chunk(SHORT, is_last=True))
            assert await stream.code() is grpc.StatusCode.OK
            assert it.decided == ["routed"]

    asyncio.run(run())


def test_garbage_ends_well() -> None:
    async def run() -> None:
        async with world() as it:
            stream = it.client.open()
            await stream.write(chunk(b"x"))

            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK
            assert (it.cases, it.decided) == ({"malformed": 1}, [])

    asyncio.run(run())


def test_where_nobody_watches_an_answer_is_let_go() -> None:
    async def run() -> None:
        async with world(is_watched=False) as it:
            stream = it.client.open()
            await stream.write(head())

            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK
            assert it.decided == []

    asyncio.run(run())


def test_a_service_that_ends_in_peace_leaves_what_it_saw_to_the_next(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"meter": "observe", "telemetry": {"audit": "off"}}
    loaded = load_file(settings_in(tmp_path, **changes))

    async def run() -> None:
        async with (
            app.assembled(loaded) as service,
            serving(
                service.servicer,
                service.intake,
                address="127.0.0.1:0",
                request_body_bytes=1 << 20,
                drain_seconds=5,
            ) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            stream = Client(channel).open()
            await stream.write(head())
            await stream.write(chunk(SHORT, is_last=True))
            assert await stream.code() is grpc.StatusCode.OK
            assert service.ledger.notes(SIGHTED) == {}

        async with ledger_of(loaded, app.clock) as ledger:
            assert list(ledger.notes(SIGHTED)) == ["seen/r1"]

    asyncio.run(run())
