"""What a reservation costs: in memory, from a lease, and as one question to a Valkey each.

    python -m bench.ledgers

Then how many scripts are called and how many commands a Valkey gets for 1,000 requests, each
reserved and settled, at some requests a second of so many tenants; what tenants cost that are known
and that are active (`ledger_scale`); and all of it once more as a line of JSON. All in one process
and one Valkey on this machine, in less than three minutes where that has a core for itself.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from statistics import median
from typing import Final

from bench import ledger_scale
from extproc.ledger.lease_messages import Rules
from extproc.ledger.memory import MemoryLedger
from extproc.ledger.port import OpenLedger
from extproc.ledger.valkey import ValkeyLedger
from extproc.ledger.valkey_link import Patience
from extproc.policy.budgets import Answer, Charge, Claim, Reserve, Reserved, Settlement
from extproc.policy.windows import Window
from tests import valkeys

clock = time.time  # noqa: TID251  # that of the machine, as the store has it
DAY: Final = Window(calendar="day")
MINUTE: Final = Window(seconds=60)
PATIENCE: Final = Patience(decision=5.0, record=5.0)
CLAIMS: Final = (
    Claim("minute", "tokens", 10**12, MINUTE, 900, 900),
    Claim("day", "usd", 10**12, DAY, 4_000, 4_000),
    Claim("slots", "concurrent_requests", 10**9, None, 1, 1),
)
ROUNDS: Final = 5
ASKS: Final = 2000
PER_SECOND: Final = 1000
SECONDS: Final = 3.0
SETTLE_EVERY_SECONDS: Final = 0.2


@asynccontextmanager
async def shared(url: str, leases: Rules | None) -> AsyncIterator[ValkeyLedger]:
    async with ValkeyLedger.open(url, clock, 600.0, leases=leases, patience=PATIENCE) as ledger:
        yield ledger


def must_be_reserved(answer: Answer) -> Reserved:
    if not isinstance(answer, Reserved):
        raise TypeError(answer)
    return answer


async def each(ledger: OpenLedger, prefix: str, *, pause: float) -> float:
    """Microseconds of one reservation after the other, the median of some rounds."""
    found = []
    for number in range(ROUNDS):
        asks = [Reserve(f"{prefix}{number}-{i}", "acme", CLAIMS) for i in range(ASKS)]
        taken = 0.0
        for first in range(0, ASKS, 20):
            began = time.perf_counter()
            for ask in asks[first : first + 20]:
                must_be_reserved(await ledger.reserve(ask))
            taken += time.perf_counter() - began
            if pause:
                await asyncio.sleep(pause)  # as between requests: what waits goes out
        found.append(taken / ASKS * 1e6)
    return median(found)


async def warm(ledger: ValkeyLedger) -> None:
    """Have it see that the budgets are busy."""
    for number in range(500):
        await ledger.reserve(Reserve(f"w{number}", "acme", CLAIMS))
        await asyncio.sleep(0.001)


def processed(server: valkeys.Server) -> int:
    """How many commands the server has carried out, those of its scripts among them."""
    with server.client as client:
        return int(client.info("stats")["total_commands_processed"])


async def calls(ledger: ValkeyLedger, tenants: int) -> float:
    """Scripts called for 1,000 requests, reserved one by one and settled in batches."""
    before = ledger.calls
    count = int(PER_SECOND * SECONDS)
    began = time.perf_counter()
    due: list[Settlement] = []
    settled_at = began
    for number in range(count):
        name, tenant = f"c{tenants}-{number}", f"tenant{number % tenants}"
        answer = await ledger.reserve(Reserve(name, tenant, CLAIMS))
        starts = must_be_reserved(answer).window_starts
        charges = zip(("minute", "day", "slots"), starts, strict=True)
        due.append(Settlement(name, tenant, tuple([Charge(b, s, 500) for b, s in charges])))
        if time.perf_counter() - settled_at >= SETTLE_EVERY_SECONDS:
            await ledger.settle(due)
            due, settled_at = [], time.perf_counter()
        wait = began + number / PER_SECOND - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
    await ledger.settle(due)
    return 1000 * (ledger.calls - before) / count


async def reservations(server: valkeys.Server) -> dict[str, float]:
    """Microseconds of one reservation of three budgets, by what decides it."""
    found = {"memory": await each(MemoryLedger(clock, 600.0), "m", pause=0)}
    async with shared(server.url, Rules()) as ledger:
        await warm(ledger)
        found["lease"] = await each(ledger, "l", pause=0.01)
    server.flush()
    async with shared(server.url, None) as ledger:
        found["script"] = await each(ledger, "q", pause=0)
    for what, about in (
        ("memory", "memory"),
        ("lease", "from a lease"),
        ("script", "one script each"),
    ):
        print(f"reserve, three budgets: {about:18s} {found[what]:8.1f} us", flush=True)
    return {name: round(microseconds, 1) for name, microseconds in found.items()}


async def loads(server: valkeys.Server) -> list[dict[str, float]]:
    """Calls and commands for 1,000 requests of so many tenants, with leases and without."""
    rows = []
    for tenants in (1, 10, 100):
        row: dict[str, float] = {"tenants": tenants}
        for way, leases in (("leases", Rules()), ("scripts", None)):
            server.flush()
            before = processed(server)
            async with shared(server.url, leases) as ledger:
                row[f"calls_with_{way}"] = round(await calls(ledger, tenants))
            done = 1000 * (processed(server) - before) / (PER_SECOND * SECONDS)
            row[f"commands_with_{way}"] = round(done)
        rows.append(row)
        print(
            f"for 1,000 requests, {tenants:3} tenants: {row['calls_with_leases']:6.0f} calls and"
            f" {row['commands_with_leases']:6.0f} commands with leases,"
            f" {row['calls_with_scripts']:6.0f} and {row['commands_with_scripts']:6.0f} without",
            flush=True,
        )
    return rows


async def main() -> None:
    with valkeys.running() as server:
        found: dict[str, object] = {
            "reserve_us": await reservations(server),
            "per_1000_requests": await loads(server),
        }
        server.flush()
        opened = partial(shared, server.url, Rules())
        found["active"] = active = await ledger_scale.active(opened, server, CLAIMS)
        print(f"active tenants: {active}", flush=True)
        server.flush()
        found["known"] = known = ledger_scale.known(server.url)
        print(f"known tenants: {known}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
