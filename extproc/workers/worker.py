"""A worker: the whole service, on a port that it shares, shown through its supervisor."""

import asyncio
import logging
import os
import select
import signal
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import uvloop

from extproc.admin.answers import OwnAnswers
from extproc.admin.views import Views
from extproc.app import Part, Service, Transport, serve
from extproc.config.digests import UNREADABLE
from extproc.config.lasting import kept
from extproc.config.loader import Loaded
from extproc.config.settings import Settings
from extproc.observing import Common
from extproc.server.lifecycle import DRAIN_SECONDS
from extproc.server.reloading import Source
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.recent_parts import encoded, together
from extproc.telemetry.turns import SharedTurn
from extproc.workers.channel import Answer, Ask, Begin, Channel, Ready, first_message
from extproc.workers.figures import figures_of

LEAVE_SECONDS: Final = DRAIN_SECONDS + 10.0
"""How long a worker may live without its supervisor, whatever it is doing."""

LOG_FORMAT: Final = "%%(asctime)s %%(levelname)s %%(name)s worker %d: %%(message)s"

_log = logging.getLogger(__name__)


def work(descriptor: int, loaded: Loaded, source: Source, transport: Transport) -> None:
    """Serve as one of several until told to stop, or until the supervisor is gone.

    Raises:
        LedgerError: the ledger can't be opened.
        OSError: the audit's file can't be opened.
        RuntimeError: an address can't be bound.
        SelfTestError: an over-budget request would not be refused.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # settings are read anew once we follow them
    threading.Thread(target=_leave_with, args=(descriptor,), daemon=True).start()
    with socket.socket(fileno=descriptor) as sock:
        begin = first_message(sock)
        if begin is None:
            return
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT % begin.number, force=True)
        # Whatever can't change while the service lives is as it was when the supervisor began.
        begun, needs_restart = kept(loaded.settings, running=begin.begun, begun=begin.begun)
        if needs_restart:  # as if the file changed now: then it is told
            source = source._replace(digests=dict.fromkeys(source.digests, UNREADABLE))
        speaker = _Speaker(sock)
        uvloop.run(
            serve(
                loaded._replace(settings=as_one_of(begun, begin)),
                on_ready=speaker.tell,
                source=source._replace(settings=begun),
                transport=transport,
                part=Part(
                    speaker.showing,
                    serves_budgets=begin.budgets_port is not None,
                    common=Common(SharedTurn(begin.turn), begin.since),
                ),
            )
        )


def as_one_of(settings: Settings, begin: Begin) -> Settings:
    """The settings for one of several workers. To the ledger each of them is a replica."""
    ledger, listen, budget_api = settings.ledger, settings.listen, settings.budget_api
    if budget_api is not None and begin.budgets_port is not None:
        budget_api = msgspec.structs.replace(budget_api, port=begin.budgets_port)
    return msgspec.structs.replace(
        settings,
        listen=msgspec.structs.replace(listen, port=begin.port),
        ledger=msgspec.structs.replace(ledger, replicas=ledger.replicas * begin.workers),
        budget_api=budget_api,
    )


def _leave_with(descriptor: int) -> None:
    """Stop when the supervisor is gone: in order if that goes, at once if it doesn't.

    A thread, since the event loop may be what doesn't go.
    """
    poll = select.poll()
    poll.register(descriptor, 0)  # a hang-up is told unasked
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LEAVE_SECONDS)
    os._exit(1)


class _Speaker:
    """Tells the supervisor that we are ready, and whatever it asks."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lines: list[str] = []
        self._channel: Channel
        self._metrics: Metrics
        self._views: Views
        self._own: OwnAnswers

    def tell(self, line: str) -> None:
        """Hear what is in use; the port of the filter comes last."""
        self._lines.append(line)
        if line.startswith("listening on "):
            self._channel.send(Ready(self._lines))

    @asynccontextmanager
    async def showing(self, service: Service, views: Views) -> AsyncIterator[None]:
        """Answer the supervisor until the block ends."""
        self._metrics, self._views = service.observing.metrics, views
        self._own = OwnAnswers(views)
        self._channel = await Channel.on(self._sock)
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(tasks))
            yield
            listening.cancel()

    async def _listen(self, tasks: asyncio.TaskGroup) -> None:
        while (message := await self._channel.next()) is not None:
            if isinstance(message, Ask):
                tasks.create_task(self._hear(message))

    async def _hear(self, ask: Ask) -> None:
        try:
            answer = await self._answer(ask)
        except Exception as error:  # noqa: BLE001  # a reader of metrics must not end the service
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("admin.failed %s\n%s", type(error).__name__, where)
            answer = Answer(ask.id, 500)
        self._channel.send(answer)

    async def _answer(self, ask: Ask) -> Answer:
        match ask.what:
            case "counts" | "figures":
                is_whole = ask.what == "figures"
                not_ready = self._views.is_ready()
                return Answer(
                    ask.id, figures=figures_of(self._metrics, not_ready, is_whole=is_whole)
                )
            case "overview":
                views = self._views
                recent = await together(views.recent, ask.others, views.clock)
                return Answer(ask.id, *await self._own.overview(ask.parameters, recent))
            case "recent":
                return Answer(ask.id, body=encoded(self._views.recent))
            case "settings":
                return Answer(ask.id, *await self._own.settings(ask.parameters.get("tenant", "")))
