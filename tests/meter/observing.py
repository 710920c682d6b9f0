"""The stand with `llm.observe` in place of the Lua meter, and a service in the test's own loop.

The filter, the access logger and the cluster are those of the demo's Envoy; the service is made of
the parts of the real one, over a ledger in a file and a clock that stands still.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import grpc
import grpc.aio
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from extproc.config.loader import load_file
from extproc.demo.attachment import Wiring
from extproc.demo.envoy import ADAPTERS, SERVICE_CLUSTER, config
from extproc.exchange.holds import holds_text
from extproc.exchange.outcome import Outcome
from extproc.exchange.settling import Summary
from extproc.exchange.sightings import Sighting
from extproc.ledger.sqlite import SqliteLedger
from extproc.policy.budgets import Claim, Reserve, Reserved, Window
from extproc.server.desk import Desk
from extproc.server.intake import Intake
from extproc.server.lifecycle import serving
from extproc.server.meeting import PARKED, SIGHTED, Meeting
from extproc.server.parking import Parking
from extproc.server.rulebook import Rulebook
from extproc.server.servicer import SERVICE, Servicer
from extproc.server.watcher import Watcher
from tests.ledger_books import NOON, UNDISTURBED, Clock
from tests.scenarios.table import SETTINGS

PROMPT_TOKENS: Final = 90
CLAIM: Final = Claim("minute", "tokens", 1_000_000, Window(seconds=60), 500, 400)
SERVICE_SOCKET: Final = "service"

_DEADLINE_SECONDS: Final = 20
_POLL_SECONDS: Final = 0.005
_RULEBOOK: Final = Rulebook(load_file(SETTINGS))


def observing(tree: dict[str, Any], folder: Path, *, deferred_seconds: float = 20) -> None:
    """Put the demo's filter, logger and cluster into the stand.

    Of an answer that was broken off Envoy tells after `deferred_seconds`, and forgets what we
    have not read by then: 5 by default, too long for a test and too short for a busy machine.
    """
    ports = dict.fromkeys(ADAPTERS, 1)
    wiring = Wiring(1, ports, meter="observe", flush_interval="0.01s")
    demo = config(wiring, access_log=folder / "unused")
    theirs = _manager(demo["static_resources"]["listeners"][0])
    (observe,) = (one for one in theirs["http_filters"] if one["name"] == "llm.observe")
    observe["typed_config"]["deferred_close_timeout"] = f"{deferred_seconds}s"
    (settle,) = (one for one in theirs["access_log"] if one["name"] == "llm.settle")
    resources = tree["static_resources"]
    ours = _manager(resources["listeners"][0])
    names = [one["name"] for one in ours["http_filters"]]
    ours["http_filters"][names.index("llm.meter")] = observe
    ours["access_log"].append(settle)
    clusters = demo["static_resources"]["clusters"]
    (cluster,) = (one for one in clusters if one["name"] == SERVICE_CLUSTER)
    cluster["alt_stat_name"] = "llm-extproc"
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"] = {"pipe": {"path": str(folder / SERVICE_SOCKET)}}
    resources["clusters"].append(cluster)


def _manager(listener: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


class World:
    """A running service. A test may hold up what comes to it, and look at all it does."""

    def __init__(self, folder: Path, clock: Clock, ledger: SqliteLedger) -> None:
        self.folder, self.clock, self.ledger = folder, clock, ledger
        self.cases: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self.told: dict[str, Summary] = {}
        self.sightings: list[Sighting] = []
        """Those that are held up."""
        self.holds_sightings = False
        self.is_dead = False
        self.begun = 0
        """Streams that came."""
        self.lets_records_in = asyncio.Event()
        self.lets_records_in.set()
        desk = Desk(_RULEBOOK, ledger, clock, observers=(self,), audit=_Nobody(), tally=self)
        self.meeting = Meeting(clock, self._count)
        self.parking = Parking(desk, ledger, self.meeting, self)
        self.watcher = Watcher(self._see, self._count)

    def observe(self, summary: Summary) -> None:
        self.told[summary.outcome.noted.reservation] = summary

    def record(self, kind: str, lag_seconds: float | None) -> None:
        del lag_seconds
        self.records[kind] += 1

    async def take(self, outcomes: Sequence[Outcome]) -> bool:
        await self.lets_records_in.wait()
        return not self.is_dead and await self.parking.take(outcomes)

    async def watch(self, first: ProcessingRequest, rest: AsyncIterator[ProcessingRequest]) -> None:
        self.begun += 1
        await self.watcher.watch(first, rest)

    def _count(self, case: str) -> None:
        self.cases[case] += 1

    def _see(self, sighting: Sighting) -> None:
        if self.holds_sightings:
            self.sightings.append(sighting)
        else:
            self.meeting.see(sighting)

    async def admit(
        self, name: str, noted: Mapping[str, str] = MappingProxyType({}), *, stream: bool = True
    ) -> str:
        """Reserve; return what the filter would note, as the stand is told it."""
        answer = await self.ledger.reserve(Reserve(name, "acme", (CLAIM,)))
        assert isinstance(answer, Reserved)
        told = {
            "outcome": "routed",
            "meter": "observe",
            "tenant": "acme",
            "tier": "premium",
            "model": "gpt-4",
            "requested_model": "gpt-4",
            "dialect": "openai_chat",
            "stream": str(stream).lower(),
            "prompt_tokens": str(PROMPT_TOKENS),
            "reservation": name,
            "reserved": holds_text((CLAIM,), answer.window_starts),
        } | dict(noted)
        return ";".join(f"{key}={value}" for key, value in told.items() if value != "false")

    async def settled(self, name: str) -> Summary:
        """What was told of a request, once it was."""
        await self.until(lambda: name in self.told)
        return self.told[name]

    async def charged(self) -> int:
        """What was charged in all; nothing may be held any more."""
        (standing,) = await self.ledger.standing("acme", (CLAIM,), at=NOON)
        assert standing.reserved == 0
        return standing.committed

    def notes(self) -> list[str]:
        """What waits in the ledger."""
        return [*self.ledger.notes(PARKED), *self.ledger.notes(SIGHTED)]

    async def comes_to(self, **cases: int) -> None:
        """Wait until these cases have been counted, and see that no others were."""
        await self.until(lambda: sum(self.cases.values()) >= sum(cases.values()))
        assert self.cases == cases

    async def until(self, holds: Callable[[], bool]) -> None:
        """Look again and again, until it holds."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while not holds():  # noqa: ASYNC110  # other processes tell nobody
                await asyncio.sleep(_POLL_SECONDS)


class _Nobody:
    def observe(self, summary: Summary) -> None:
        pass


def _no_exchange(_: str) -> Any:
    raise AssertionError


@asynccontextmanager
async def world(folder: Path, *, clock: Clock | None = None) -> AsyncIterator[World]:
    """Serve on the stand's socket, until the block ends; then it is as if it had been killed.

    The ledger is the folder's: what was committed in it is there again.
    """
    told = clock or Clock()
    async with SqliteLedger.open(folder / "ledger.db", told, 900, pace=UNDISTURBED) as ledger:
        found = World(folder, told, ledger)
        servicer = Servicer(_no_exchange, ledger, str, lambda *_: None, found.watch)
        serve = serving(
            servicer,
            Intake(found, found),
            address=f"unix:{folder / SERVICE_SOCKET}",
            request_body_bytes=1 << 20,
            drain_seconds=0,
        )
        async with serve, asyncio.TaskGroup() as tasks:
            settling = tasks.create_task(_settle_due(found))
            try:
                yield found
            finally:
                found.is_dead = True
                found.lets_records_in.set()
                settling.cancel()


async def _settle_due(found: World) -> None:
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            await found.parking.settle_due()


@asynccontextmanager
async def listening(
    folder: Path, serve: Callable[[AsyncIterator[bytes]], Awaitable[None]]
) -> AsyncIterator[None]:
    """Serve every ext_proc stream by `serve`, on the stand's socket."""

    async def process(requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext) -> None:
        await serve(requests)

    method = grpc.stream_stream_rpc_method_handler(process)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"Process": method}),)
    )
    server.add_insecure_port(f"unix:{folder / SERVICE_SOCKET}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)
