"""Deaths at the worst moments. Each has a service and books of its own, and its own numbers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from chaos.client import Client, Ending
from chaos.editing import records_to
from chaos.findings import Findings, Seen, compare
from chaos.holding import Inquiry, question, settled
from chaos.ledger_file import read
from chaos.load import Load
from chaos.stand import Models, OverdueError, Proxy, Service, proxy, settings_in, until
from chaos.tap import Tap
from chaos.traffic import STEADY, Call, calls

RESERVATION_SECONDS: Final = 8
HELD_SECONDS: Final = RESERVATION_SECONDS + 20.0
KILLS: Final = 5
GRACE_SECONDS: Final = 2
"""Istio's agent lets a drained Envoy live for so long: its `terminationDrainDuration`."""

_WINDOW_SECONDS: Final = 2
"""Of the budget `moment` in `policy.yaml`."""

Numbers = Mapping[str, int]
Say = Callable[[str], None]


@asynccontextmanager
async def _service(folder: Path) -> AsyncIterator[Service]:
    settings = settings_in(folder / "service", reservation_seconds=RESERVATION_SECONDS)
    async with Service(settings).running() as service:
        yield service


async def unacknowledged(folder: Path, models: Models, say: Say) -> Numbers:
    """Kill the service after it has committed a batch and before Envoy hears of it.

    Envoy brings the batch again: its records are charged once.
    """
    endings: list[Ending] = []
    unheard = 0
    async with _service(folder) as service, Tap.on(service.port) as tap:
        edit = records_to(tap.port)
        with proxy(folder / "envoy", service.port, models, edit=edit) as envoy:
            for number in range(KILLS):
                tap.is_deaf = True
                endings += await _made(25, envoy, prefix=f"u{number}-", seed=number)
                heard = envoy.stats()["logs_written"]
                await _committed(envoy, service, endings)
                unheard += envoy.stats()["logs_written"] == heard
                await service.kill()
                tap.is_deaf = False
                tap.cut()
                await service.start()
                await settled(envoy, service, endings)
                say(f"killed between commit and acknowledgement: {number + 1} of {KILLS}")
            findings = await _judged(envoy, service, models, endings)
    return {"kills": unheard} | _numbers(findings)


async def cut_off(folder: Path, models: Models, say: Say) -> Numbers:
    """Keep records from the service while decisions go on, and gather many in each batch."""
    async with _service(folder) as service, Tap.on(service.port) as tap:
        edit = records_to(tap.port, flush_interval="1s")
        with proxy(folder / "envoy", service.port, models, edit=edit) as envoy:
            tap.is_broken = True
            endings = await _made(600, envoy, prefix="o", seed=1)
            tap.is_broken = False
            say(f"cut off from its records for {len(endings)} calls")
            await until(envoy.has_delivered_all, "Envoy keeps no records")
            dropped = envoy.stats()["logs_dropped"]
            findings = await _judged(envoy, service, models, endings)
    return {"dropped": dropped} | _numbers(findings)


async def forgotten(folder: Path, models: Models, say: Say) -> Numbers:
    """Restart the service while an answer is written, and let the window end before it does.

    Nobody remembers its reservation: it is charged all the same, once, in the window in which it
    was admitted.
    """
    call = _streamed(question("forgotten", "forgotten", **{"x-adapter-gate": "forgotten"}))
    async with _service(folder) as service:
        with proxy(folder / "envoy", service.port, models) as envoy:
            async with Client(envoy.gateway.port) as client, asyncio.TaskGroup() as tasks:
                asked = _now()
                asking = tasks.create_task(client.send(call))
                await until(lambda: call.step in models.answers(), "a model has the call")
                admitted = _now()
                await service.kill()
                await service.start()
                await until(lambda: _window(_now()) > _window(admitted), "the window is over")
                await until(lambda: _let_through(models, call), "the answer is whole")
            endings = [asking.result()]
            await settled(envoy, service, endings)
            findings = await _judged(envoy, service, models, endings)
    told = models.answers()[call.step].told
    charged = {
        start: amount
        for (_, budget, start), amount in read(service.ledger).committed.items()
        if budget == "moment" and amount
    }
    # The probe for what is held was charged as well, in a later window.
    own = {start: amount for start, amount in charged.items() if start <= admitted}
    is_right = told is not None and list(own.values()) == [told.total]
    is_right &= all(_window(asked) <= start for start in own)
    say(f"forgotten while it streamed: {told} told, charged by window {charged}")
    return {"charged_right": int(is_right)} | _numbers(findings)


async def drained(folder: Path, models: Models, say: Say) -> Numbers:
    """Drain an Envoy under load, as Istio's agent does, and end it two seconds later."""
    async with _service(folder) as service:
        with proxy(folder / "envoy", service.port, models) as envoy:
            load = Load(envoy.gateway.port, calls(2, tenants=STEADY, prefix="d"), clients=16)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.run(calls_max=10_000))
                await load.has_made(300)
                envoy.post("/drain_listeners?graceful")
                load.end()  # clients are sent elsewhere
                await asyncio.sleep(GRACE_SECONDS)
            envoy.gateway.child.process.terminate()
            await asyncio.to_thread(envoy.gateway.child.process.wait)
        # What Envoy has not delivered by now it never will.
        await service.terminate()
        seen = Seen(load.endings, models.answers(), envoy.reservations(), models.prices)
        findings = compare(seen, read(service.ledger))
    say(f"Envoy drained and ended after {len(load.endings)} calls")
    return _numbers(findings)


async def envoy_killed(folder: Path, models: Models, say: Say) -> Numbers:
    """Kill an Envoy under load: what it had not delivered expires, and is charged as expected."""
    async with _service(folder) as service:
        with proxy(folder / "envoy", service.port, models) as envoy:
            load = Load(envoy.gateway.port, calls(3, tenants=STEADY, prefix="k"), clients=16)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.run(calls_max=10_000))
                await load.has_made(300)
                envoy.gateway.child.process.kill()
        with proxy(folder / "another", service.port, models) as another:
            inquiry = Inquiry(another, service, STEADY, prefix="k-held")
            await inquiry.nothing_is_held(seconds=HELD_SECONDS)
            own = set(another.reservations().values())
        await service.terminate()
    ledger = read(service.ledger)
    reached = sum(step.startswith("k") and step[1:].isdigit() for step in models.answers())
    known = len(ledger.settled - own) + len(ledger.expired)
    charged = sum(ledger.expected.get((tenant, "requests"), 0) for tenant in STEADY)
    say(f"Envoy killed after {reached} calls: {len(ledger.expired)} expired, {charged} charged")
    return {
        "reached": reached,
        "expired": len(ledger.expired),
        "expired_and_charged": charged,
        "lost": max(0, reached - known),
    }


async def _made(number: int, envoy: Proxy, *, prefix: str, seed: int) -> list[Ending]:
    """Make so many calls, and wait for their ends."""
    drawn = calls(seed, tenants=STEADY, prefix=prefix)
    load = Load(envoy.gateway.port, drawn, clients=16)
    await load.run(calls_max=number)
    return load.endings


async def _committed(envoy: Proxy, service: Service, endings: Iterable[Ending]) -> None:
    """Return once the ledger has all of them, whether or not Envoy knows."""
    whole = {ending.call.step for ending in endings if ending.is_whole}

    def are_committed() -> bool:
        reservations = set(envoy.reservations().values())
        logged = {record.step for record in envoy.log.records}
        return whole <= logged and reservations <= read(service.ledger).settled

    await until(are_committed, "a batch is committed")


async def _judged(
    envoy: Proxy, service: Service, models: Models, endings: list[Ending]
) -> Findings:
    """Wait until nothing is held, end the service, and compare."""
    tenants = sorted({ending.call.tenant for ending in endings})
    inquiry = Inquiry(envoy, service, tenants, prefix=endings[0].call.step + "-held")
    with suppress(OverdueError):  # the comparison tells what is wrong
        await settled(envoy, service, endings)
        await inquiry.nothing_is_held(seconds=HELD_SECONDS)
    await service.terminate()
    everything = [*endings, *inquiry.endings]
    seen = Seen(everything, models.answers(), envoy.reservations(), models.prices)
    return compare(seen, read(service.ledger))


def _numbers(findings: Findings) -> dict[str, int]:
    return {
        "reached": findings.reached,
        "lost": findings.lost,
        "charged_twice": findings.charged_twice,
        "differences": len(findings.differences),
    }


def _streamed(call: Call) -> Call:
    body = b'{"model": "gpt-4", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
    return call._replace(body=body)


def _let_through(models: Models, call: Call) -> bool:
    """Let one more event through; whether that was the last."""
    models.let_through(call.headers["x-adapter-gate"])
    return models.answers()[call.step].is_whole


def _now() -> float:
    return time.time()  # noqa: TID251  # compared with what a file says


def _window(instant: float) -> int:
    return int(instant // _WINDOW_SECONDS * _WINDOW_SECONDS)
