"""What `bench.scale` measures: memory and CPU against how many there are of something."""

import asyncio
import gc
import random
import sys
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final

import uvloop
import yaml

from bench.corpus import chats
from bench.load import drive, request
from bench.micro_cases import body_of, head_of, one_call
from bench.open_loop import Run, offer
from bench.processes import family_cpu_seconds, resident_bytes
from bench.size import roomy
from bench.through_envoy import Peer, answer_and_record, behind_envoy
from bench.workers import with_pool
from extproc import app
from extproc.config.loader import load_file
from extproc.exchange.machine import Exchange
from extproc.ledgers import empty_ledger
from extproc.server.h2.decision import Decisions
from extproc.server.rulebook import rules_of
from tests.valkeys import running

BODY_BYTES: Final = 2048
PART_BYTES: Final = 1024
REQUESTS: Final = 300
STREAMS_PER_CONNECTION: Final = 4
"""That are sent beside streams that wait."""

Figures = Mapping[str, float]


def settings(directory: Path, *, tenants: int, budgets: int) -> Path:
    """Write settings with so many tenants, each with so many budgets of its own."""
    tree = roomy()
    each = [
        {"id": f"b{i}", "limit": 10**12, "unit": "tokens", "window": {"seconds": 60 + i}}
        for i in range(budgets)
    ]
    tenant = {"plan": "premium", **({"budgets": each} if each else {})}
    tree["tenants"] = {"rich": tenant} | {f"t{i}": tenant for i in range(1, tenants)}
    path = directory / f"{tenants}-{budgets}.yaml"
    dumper = yaml.SafeDumper
    dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]  # each in full
    path.write_text(yaml.dump(tree, Dumper=dumper))
    return path


class Tenants:
    """The rules and a ledger for so many, in this process."""

    def __init__(self, path: Path, *, tenants: int) -> None:
        self._tenants = tenants
        self._draw = random.Random(tenants)  # noqa: S311  # not for secrets
        gc.collect()
        tracemalloc.start()
        loaded = load_file(path)
        rules = rules_of(loaded)
        ledger = empty_ledger(loaded, app.clock)
        gc.collect()
        self.settings_bytes = tracemalloc.get_traced_memory()[0]
        counter = app.counter_of(loaded)
        self._decisions = Decisions(
            lambda name: Exchange(rules, counter, reservation=name),
            ledger,
            app.new_reservation,
            lambda *_: None,
        )
        self._body = body_of(next(chats(BODY_BYTES)))
        self._call(0)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1, tenants):
            self._call(number)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
        self.request_bytes = used / max(1, tenants - 1)
        """Of a tenant's first request: its accounts, and a reservation that is open."""
        tracemalloc.stop()

    def _call(self, number: int) -> None:
        headers = {
            ":method": "POST",
            ":path": "/v1/chat/completions",
            "content-type": "application/json",
            "x-tenant-id": f"t{number}" if number else "rich",
        }
        one_call(self._decisions, (head_of(headers), self._body))

    def us(self, number: int) -> float:
        """Return the µs of CPU of a call, by tenants that are drawn, the mean of so many."""
        chosen = [self._draw.randrange(self._tenants) for _ in range(number)]
        began = time.process_time()
        for one in chosen:
            self._call(one)
        return 1e6 * (time.process_time() - began) / number


def waiting(directory: Path, numbers: list[int], *, rounds: int) -> list[Figures]:
    """Hold streams open in the service, whose bodies are half there; measure it beside them."""
    path = settings(directory, tenants=10, budgets=1)
    with behind_envoy(command(path), directory=directory) as peer:
        uvloop.run(
            drive(peer.envoy.port, list(islice(chats(BODY_BYTES, seed=9), 300)), connections=8)
        )
        return uvloop.run(_waiting(peer, numbers, rounds))


async def _waiting(peer: Peer, numbers: list[int], rounds: int) -> list[Figures]:
    server = peer.server
    assert server is not None  # noqa: S101  # it was asked for
    service, envoy = server.process.pid, peer.envoy.child.process.pid
    held: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    part = request(next(chats(BODY_BYTES)))[:PART_BYTES]
    found: list[Figures] = []
    for number in numbers:
        while len(held) < number:
            transport, _ = await loop.create_connection(
                asyncio.Protocol, "127.0.0.1", peer.envoy.port
            )
            transport.write(part)
            held.append(transport)
        await _until_quiet(service)
        figures: dict[str, float] = {
            "streams": number,
            "service_bytes": resident_bytes(service),
            "envoy_bytes": resident_bytes(envoy),
        }
        for turn in range(rounds):
            bodies = list(islice(chats(BODY_BYTES, seed=number + turn), REQUESTS))
            before = family_cpu_seconds(service)
            await drive(peer.envoy.port, bodies, connections=8)
            used = family_cpu_seconds(service) - before
            figures[f"us_{turn}"] = round(1e6 * used / REQUESTS, 1)
        found.append(figures)
    for transport in held:
        transport.close()
    return found


async def _until_quiet(pid: int) -> None:
    """Wait until a process has next to nothing to do: 2 ms in 100, or 5 s."""
    for _ in range(50):
        before = family_cpu_seconds(pid)
        await asyncio.sleep(0.1)
        if family_cpu_seconds(pid) - before < 2e-3:
            return


def command(path: Path, *, workers: int = 1) -> tuple[str, ...]:
    """Say how the service is run."""
    more = ("--workers", str(workers)) if workers > 1 else ()
    return (sys.executable, "-m", "extproc", "serve", "--settings", str(path), "--port", "0", *more)


def workers(
    directory: Path, numbers: Sequence[int], *, rounds: int, requests: int
) -> dict[str, Any]:
    """Serve by so many processes that share a Valkey: what they take together, and get done.

    Envoy has a connection for each `STREAMS_PER_CONNECTION` requests, so that each gets some.
    """
    found: dict[str, dict[str, list[float]]] = {}
    path = settings(directory, tenants=10, budgets=1)
    with ExitStack() as stack:
        valkey = stack.enter_context(running())
        tree = yaml.safe_load(path.read_text())
        tree["ledger"] = {"kind": "valkey", "url": valkey.url}
        path.write_text(yaml.safe_dump(tree))
        edit = with_pool({"streams": STREAMS_PER_CONNECTION})
        peers = {}
        for number in numbers:
            home = directory / f"workers-{number}"
            home.mkdir()
            one = behind_envoy(command(path, workers=number), directory=home, edit=edit)
            peers[number] = stack.enter_context(one)
        for turn in range(rounds):
            for number, peer in peers.items():
                assert peer.server is not None  # noqa: S101  # it was asked for
                pid = peer.server.process.pid
                bodies = list(islice(chats(BODY_BYTES, seed=turn), requests))
                before = family_cpu_seconds(pid)
                answers = uvloop.run(drive(peer.envoy.port, bodies, connections=64))
                used = family_cpu_seconds(pid) - before
                kept = found.setdefault(str(number), {})
                kept.setdefault("us", []).append(round(1e6 * used / requests, 1))
                kept.setdefault("per_second", []).append(round(requests / answers.seconds))
                kept.setdefault("bytes", []).append(resident_bytes(pid))
    return found


def soak(directory: Path, *, seconds: float, per_second: float) -> dict[str, Any]:
    """Serve at a steady rate; note the service's memory each second, from a second on."""
    path = settings(directory, tenants=10, budgets=2)
    with behind_envoy(command(path), directory=directory, edit=answer_and_record) as peer:
        assert peer.server is not None  # noqa: S101  # it was asked for
        pid = peer.server.process.pid
        bodies = islice(chats(BODY_BYTES, seed=3), round(seconds * per_second))
        requests = [request(body) for body in bodies]

        async def run() -> tuple[Run, list[int]]:
            sent = asyncio.ensure_future(
                offer(
                    peer.envoy.port,
                    requests,
                    per_second=per_second,
                    seed=5,
                    seconds=2 * seconds + 30,
                )
            )
            memory = []
            while not sent.done():
                await asyncio.wait([sent], timeout=1.0)
                memory.append(resident_bytes(pid))
            return await sent, memory

        done, memory = uvloop.run(run())
    return {
        "seconds": seconds,
        "per_second": per_second,
        "requests": len(done.answers),
        "refused": sum(one.status != 200 for one in done.answers),
        "bytes": memory,
    }
