"""What very many tenants cost: those that the settings know, and those that ask.

The service itself is started over a Valkey, once with all tenants and once with one. Then one
ledger holds a reservation of three budgets for each of those that ask.
"""

import asyncio
import gc
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.reload import memory_mb, settings_of
from extproc.config.loader import load
from extproc.config.reading import share
from extproc.demo.process import child
from extproc.ledger.valkey import ValkeyLedger
from extproc.policy.budgets import Claim, Reserve, Reserved
from extproc.policy.tenants import Tenant
from tests.valkeys import Server

KNOWN: Final = 100_000
ACTIVE: Final = 10_000
AT_ONCE: Final = 20
SAMPLE: Final = 5_000
"""Tenants whose objects are weighed one by one: reading all once more would take long."""

START_SECONDS_MAX: Final = 170.0


def started(url: str, tenants: int) -> tuple[float, int]:
    """Seconds until the service listens, and MB of memory it has then."""
    text = settings_of(tenants, 0).replace("{kind: memory}", f"{{kind: valkey, url: '{url}'}}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "settings.yaml")
        path.write_text(text)
        program = [sys.executable, "-m", "extproc", "serve", "--settings", str(path)]
        began = time.perf_counter()
        with child("service", program, directory=Path(folder)) as service:
            service.wait_for(
                lambda: "listening" in service.log.read_text() or None, seconds=START_SECONDS_MAX
            )
            return time.perf_counter() - began, memory_mb(service.process.pid)


def bytes_known() -> float:
    """Bytes of one tenant with two budgets, as a reload keeps it: all objects of its own."""
    tenants = load(settings_of(SAMPLE, 0), read_file=str).settings.tenants
    packed = msgspec.msgpack.encode(list(tenants.items()))
    decoder = msgspec.msgpack.Decoder(list[tuple[str, Tenant]])
    del tenants
    gc.collect()
    tracemalloc.start()
    kept = dict(decoder.decode(packed))
    common: dict[object, object] = {}
    for tenant in kept.values():
        share(tenant, common)
    gc.collect()
    found, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found / len(kept)


async def active(
    opened: Callable[[], Any], server: Server, claims: tuple[Claim, ...]
) -> dict[str, float]:
    """Bytes of an active tenant, here and in the server, while its reservation is held."""
    ledger: ValkeyLedger
    async with opened() as ledger:
        await ledger.reserve(Reserve("first", "first", claims))
        gc.collect()
        ours, theirs = resident_bytes(), used_bytes(server)
        began = time.perf_counter()
        for first in range(0, ACTIVE, AT_ONCE):
            asks = [
                ledger.reserve(Reserve(f"r{number}", f"tenant{number}", claims))
                for number in range(first, first + AT_ONCE)
            ]
            for answer in await asyncio.gather(*asks):
                if not isinstance(answer, Reserved):
                    raise TypeError(answer)
        taken = time.perf_counter() - began
        gc.collect()
        return {
            "active_tenants": ACTIVE,
            "seconds": round(taken, 1),
            "our_bytes_a_tenant": round((resident_bytes() - ours) / ACTIVE),
            "valkey_bytes_a_tenant": round((used_bytes(server) - theirs) / ACTIVE),
            "valkey_used_memory_mb": round(used_bytes(server) / 1e6, 1),
        }


def used_bytes(server: Server) -> int:
    """What the server says that it uses."""
    with server.client as client:
        return int(client.info("memory")["used_memory"])


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def known(url: str) -> dict[str, float]:
    """What tenants cost that the settings know, and that may never ask."""
    one_seconds, one_mb = started(url, 1)
    seconds, mb = started(url, KNOWN)
    return {
        "known_tenants": KNOWN,
        "start_seconds": round(seconds, 1),
        "start_seconds_with_one": round(one_seconds, 1),
        "service_mb": mb,
        "service_mb_with_one": one_mb,
        "service_bytes_a_tenant": round((mb - one_mb) * (1 << 20) / KNOWN),
        "objects_bytes_a_tenant": round(bytes_known()),
    }
