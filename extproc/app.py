"""The composition root: settings become one object graph, and nothing is global."""

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Callable

import msgspec

from extproc.config.loader import Loaded
from extproc.exchange.machine import Exchange, Rules
from extproc.ledger.memory import MemoryLedger
from extproc.llm.prompt import TextCounter
from extproc.policy.decide import Policy
from extproc.server.lifecycle import DRAIN_SECONDS, serving
from extproc.server.servicer import Servicer
from extproc.tokens.counter import Counter

_log = logging.getLogger(__name__)


def with_port(loaded: Loaded, port: int) -> Loaded:
    """The same settings, listening elsewhere."""
    settings = loaded.settings
    listen = msgspec.structs.replace(settings.listen, port=port)
    return loaded._replace(settings=msgspec.structs.replace(settings, listen=listen))


def rules_of(loaded: Loaded) -> Rules:
    """What exchanges are decided by, from what the file says."""
    settings = loaded.settings
    policy = Policy(
        identity=settings.identity,
        keys=loaded.keys,
        unknown_tenant=settings.unknown_tenant,
        unknown_model=settings.unknown_model,
        models=settings.models,
        tiers=settings.tiers,
        plans=settings.plans,
        tenants=settings.tenants,
        complexity=settings.complexity,
    )
    return Rules(policy, settings.rewrite_model, settings.limits.request_body_bytes)


def counter_of(loaded: Loaded) -> Counter:
    """A counter with every encoding that the models need already loaded."""
    counter = Counter(prompt_exact_bytes=loaded.settings.limits.prompt_exact_bytes)
    counter.warm({model.encoding for model in loaded.settings.models.values()})
    return counter


def ledger_of(loaded: Loaded, *, clock: Callable[[], float] = time.time) -> MemoryLedger:  # noqa: TID251  # the one clock
    """The ledger that the settings ask for."""
    return MemoryLedger(clock, reservation_seconds=loaded.settings.ledger.reservation_seconds)


def servicer_of(rules: Rules, counter: TextCounter, ledger: MemoryLedger) -> Servicer:
    """The gRPC service over these parts."""

    def new_exchange(reservation: str) -> Exchange:
        return Exchange(rules, counter, reservation=reservation)

    return Servicer(new_exchange, ledger, new_reservation)


def new_reservation() -> str:
    """128 random bits: never a client's own id, which it could send again to dodge the charge."""
    return os.urandom(16).hex()


async def serve(
    loaded: Loaded, *, on_ready: Callable[[str], None], drain_seconds: float = DRAIN_SECONDS
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. `on_ready` is told the address in use."""
    settings = loaded.settings
    servicer = servicer_of(rules_of(loaded), counter_of(loaded), ledger_of(loaded))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    address = settings.listen.address
    async with serving(
        servicer,
        address=f"{address}:{settings.listen.port}",
        request_body_bytes=settings.limits.request_body_bytes,
        drain_seconds=drain_seconds,
    ) as port:
        # What lives from here on lives as long as the process: don't trace it at every turn.
        gc.collect()
        gc.freeze()
        on_ready(f"{address}:{port}")
        await stopping.wait()
        _log.info("draining for up to %g s", drain_seconds)
