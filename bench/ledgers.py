"""What a reservation costs: in memory, from a lease, and as one question to a Valkey each.

    python -m bench.ledgers

Then how many commands a Valkey gets for 1,000 requests, each reserved and settled, at some requests
a second of so many tenants. All in one process and one Valkey on this machine.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Final

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


async def commands(ledger: ValkeyLedger, tenants: int) -> float:
    """Calls for 1,000 requests, reserved one by one and settled in batches."""
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


async def main() -> None:
    memory = await each(MemoryLedger(clock, 600.0), "m", pause=0)
    print(f"reserve, three budgets: memory             {memory:8.1f} us")
    with valkeys.running() as server:
        async with shared(server.url, Rules()) as ledger:
            await warm(ledger)
            leased = await each(ledger, "l", pause=0.01)
            print(f"                        from a lease       {leased:8.1f} us")
        server.flush()
        async with shared(server.url, None) as ledger:
            asked = await each(ledger, "q", pause=0)
            print(f"                        one script each    {asked:8.1f} us")
        for tenants in (1, 10, 100):
            found = []
            for leases in (Rules(), None):
                server.flush()
                async with shared(server.url, leases) as ledger:
                    found.append(await commands(ledger, tenants))
            print(
                f"calls per 1,000 requests, {tenants:3} tenants: "
                f"{found[0]:6.0f} with leases, {found[1]:6.0f} without"
            )


if __name__ == "__main__":
    asyncio.run(main())
