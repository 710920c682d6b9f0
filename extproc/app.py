"""The composition root: settings become one object graph, and nothing is global."""

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Final, Literal, NamedTuple

import msgspec

from extproc.admin.server import administering
from extproc.admin.views import Views
from extproc.config.loader import Loaded
from extproc.exchange.machine import Exchange
from extproc.ledger.port import OpenLedger
from extproc.ledgers import empty_ledger, ledger_of, when_unavailable
from extproc.llm.prompt import TextCounter
from extproc.looking_after import looking_after
from extproc.observing import ALONE, Common, Observing, observing
from extproc.policy.tenants import WhenUnavailable
from extproc.selftest import self_test
from extproc.server.budget_service import BudgetService
from extproc.server.desk import LEARNT, Desk, experiences
from extproc.server.grants import Grants
from extproc.server.h2 import lifecycle as h2
from extproc.server.h2.decision import Decisions
from extproc.server.intake import Intake
from extproc.server.lifecycle import DRAIN_SECONDS, serving
from extproc.server.meeting import Meeting
from extproc.server.parking import SETTLE_SECONDS, Parking
from extproc.server.reloading import Reloading, Source
from extproc.server.rulebook import Rulebook
from extproc.server.servicer import Decided, Servicer, Watch, let_go
from extproc.server.watcher import Watcher
from extproc.tokens.counter import Counter
from extproc.viewing import Readiness, views_of

Transport = Literal["h2", "grpcio"]
"""What speaks gRPC: `extproc.server.h2`, or the `grpcio` package."""

LEARN_SECONDS: Final = 5.0
"""How often what was learnt, and what other replicas granted, comes into force."""

TICK_SECONDS: Final = 0.5
"""How often the event loop's lag is measured."""

_log = logging.getLogger(__name__)
clock = time.time  # noqa: TID251  # the one clock


class Service(NamedTuple):
    """All that serves, put together."""

    rulebook: Rulebook
    counter: Counter
    ledger: OpenLedger
    desk: Desk
    parking: Parking
    observing: Observing
    servicer: Servicer
    decisions: Decisions
    """The same, for the transport of our own."""
    intake: Intake
    grants: Grants
    budgets: BudgetService


def with_port(loaded: Loaded, port: int) -> Loaded:
    """The same settings, listening elsewhere."""
    settings = loaded.settings
    listen = msgspec.structs.replace(settings.listen, port=port)
    return loaded._replace(settings=msgspec.structs.replace(settings, listen=listen))


class Part(NamedTuple):
    """What is different for one of several processes that serve together (`extproc.workers`)."""

    show: Callable[[Service, Views], AbstractAsyncContextManager[None]]
    """Takes the place of the admin server."""
    serves_budgets: bool
    common: Common


def counter_of(loaded: Loaded) -> Counter:
    """A counter with every encoding that the models need already loaded."""
    counter = Counter(prompt_exact_bytes=loaded.settings.limits.prompt_exact_bytes)
    counter.warm({model.encoding for model in loaded.settings.models.values()})
    return counter


def servicer_of(
    rulebook: Rulebook,
    counter: TextCounter,
    ledger: OpenLedger,
    decided: Decided,
    watch: Watch = let_go,
) -> Servicer:
    """The gRPC service over these parts, for grpc.aio."""
    return Servicer(_exchanges(rulebook, counter), ledger, new_reservation, decided, watch)


def _exchanges(rulebook: Rulebook, counter: TextCounter) -> Callable[[str], Exchange]:
    def new_exchange(reservation: str) -> Exchange:
        return Exchange(rulebook.rules, counter, reservation=reservation)

    return new_exchange


def new_reservation() -> str:
    """Name a request: never by a client's own id, which it could send again to dodge the charge.

    48 bits of time, in milliseconds, before 80 random ones: names that grow keep the ledger's
    index small at its end, where the next ones go.
    """
    return (int(clock() * 1000).to_bytes(6) + os.urandom(10)).hex()


@asynccontextmanager
async def assembled(loaded: Loaded, common: Common = ALONE) -> AsyncIterator[Service]:
    """Put everything together, and take it apart when the block ends.

    Raises:
        LedgerError: the ledger can't be opened.
        OSError: the audit's file can't be opened.
    """
    counter = counter_of(loaded)
    rulebook = Rulebook(loaded, {}, since=clock())

    def when_away(tenant: str) -> WhenUnavailable:
        return when_unavailable(rulebook.loaded.settings, tenant)

    async with ledger_of(loaded, clock, when_away=when_away) as ledger:
        known = experiences(ledger.notes(LEARNT))
        rulebook.learn(known)
        with observing(rulebook, ledger, clock, version("llm-extproc"), common) as watching:
            desk = Desk(
                rulebook,
                ledger,
                clock,
                observers=watching.observers,
                audit=watching.audit,
                tally=watching.metrics,
                known=known,
            )
            metrics = watching.metrics
            meeting = Meeting(clock, metrics.observed)
            watch = Watcher(meeting.see, metrics.observed).watch
            parking = Parking(desk, ledger, meeting, metrics)
            grants = Grants(rulebook, ledger, clock)
            yield Service(
                rulebook,
                counter,
                ledger,
                desk,
                parking,
                watching,
                servicer_of(rulebook, counter, ledger, metrics.decided, watch),
                Decisions(
                    _exchanges(rulebook, counter), ledger, new_reservation, metrics.decided, watch
                ),
                Intake(parking, metrics),
                grants,
                BudgetService(
                    rulebook, ledger, counter, grants, clock=clock, tell=watching.audit.changed
                ),
            )
            await parking.leave()


async def serve(  # noqa: PLR0913  # all but two have a default
    loaded: Loaded,
    *,
    on_ready: Callable[[str], None],
    source: Source | None = None,
    transport: Transport = "h2",
    drain_seconds: float = DRAIN_SECONDS,
    part: Part | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. `on_ready` is told each address in use.

    Where there is a `source` its changes come into force, at SIGHUP too. With a `part` this process
    is one of several that share the port.

    Raises:
        LedgerError: the ledger can't be opened.
        RuntimeError: the filter's address can't be bound.
        OSError: the admin's address can't be bound, or the audit's file not opened.
        SelfTestError: an over-budget request would not be refused.
    """
    settings = loaded.settings
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        common = part.common if part is not None else ALONE
        service = await stack.enter_async_context(assembled(loaded, common))
        await see_refusals(service)
        # Not before: the test goes by the limits of the settings.
        service.grants.refresh()
        readiness = Readiness(service.rulebook, service.ledger)
        views = views_of(service.rulebook, service.ledger, service.observing, readiness, clock)
        showing = part.show(service, views) if part is not None else _shown(views, on_ready)
        await stack.enter_async_context(showing)
        address = settings.listen.address
        budget_api = settings.budget_api if part is None or part.serves_budgets else None
        await stack.enter_async_context(looking_after(budget_api, service.budgets, on_ready))
        port = await stack.enter_async_context(
            _listening(service, transport, drain_seconds, is_port_shared=part is not None)
        )
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        routines = (_learn(service), _settle_due(service), _watch_loop(service))
        working = [tasks.create_task(routine) for routine in routines]
        if source is not None:
            reloading = _reloading(service, source)
            loop.add_signal_handler(signal.SIGHUP, reloading.ask)
            working.append(tasks.create_task(reloading.run()))
        # What lives from here on lives as long as the process: don't trace it at every turn.
        gc.collect()
        gc.freeze()
        readiness.phase = ""
        on_ready(f"listening on {address}:{port}")
        await stopping.wait()
        readiness.phase = "draining"
        _log.info("draining for up to %g s", drain_seconds)
        for task in working:
            task.cancel()


@asynccontextmanager
async def _shown(views: Views, on_ready: Callable[[str], None]) -> AsyncIterator[None]:
    admin = views.settings().settings.admin
    async with administering(views, admin.address, admin.port) as port:
        on_ready(f"admin on {admin.address}:{port}")
        yield


def _listening(
    service: Service, transport: Transport, drain_seconds: float, *, is_port_shared: bool
) -> AbstractAsyncContextManager[int]:
    settings = service.rulebook.loaded.settings
    listen = settings.listen
    address = f"{listen.address}:{listen.port}"
    body_bytes = settings.limits.request_body_bytes
    if transport == "h2":
        return h2.serving(
            service.decisions,
            service.intake,
            address=address,
            request_body_bytes=body_bytes,
            drain_seconds=drain_seconds,
            age_seconds=listen.connection_age_seconds,
            is_port_shared=is_port_shared,
        )
    return serving(
        service.servicer,
        service.intake,
        address=address,
        request_body_bytes=body_bytes,
        drain_seconds=drain_seconds,
        age_seconds=listen.connection_age_seconds,
        is_port_shared=is_port_shared,
    )


async def see_refusals(service: Service) -> None:
    """See that the service refuses whom it must, before anybody is told that it is there.

    Raises:
        SelfTestError: it does not.
    """
    loaded, rules = service.rulebook.loaded, service.rulebook.rules
    now = clock()
    # Time stands still: a budget of a second would otherwise have room again before it is asked.
    ledger = partial(empty_ledger, loaded, lambda: now)
    _log.info("self-test: %s", await self_test(loaded.settings, rules, service.counter, ledger))


def _reloading(service: Service, source: Source) -> Reloading:
    counted = service.observing.metrics.reloaded
    return Reloading(service.rulebook, source, service.counter, clock, counted)


async def _learn(service: Service) -> None:
    """Bring what was learnt into force, now and then, and write audit lines that had to wait."""
    while True:
        await asyncio.sleep(LEARN_SECONDS)
        service.rulebook.learn(service.desk.known)
        service.grants.refresh()
        service.observing.audit.flush()


async def _settle_due(service: Service) -> None:
    """Settle the records that need not wait any more for what was seen of their answers."""
    while True:
        await asyncio.sleep(SETTLE_SECONDS)
        await service.parking.settle_due()


async def _watch_loop(service: Service) -> None:
    """Measure how late the event loop wakes us up: so late is everybody else served."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        service.observing.metrics.loop_lag(max(0.0, loop.time() - due))
