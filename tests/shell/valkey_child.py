"""A process of its own that shares a Valkey: run it with a URL, how many to ask for, and claims.

A claim is `budget:amount:limit`. It is ready when it says so, asks for all at once when it reads a
line, says how many were let in, and ends, giving its leases back, when it reads another.
"""

import asyncio
import sys
import time
import uuid

from extproc.ledger.lease_messages import Rules
from extproc.ledger.valkey import ValkeyLedger
from extproc.ledger.valkey_link import Patience
from extproc.policy.budgets import Answer, Claim, Denied, Reserve, Reserved
from extproc.policy.windows import Window

clock = time.time  # noqa: TID251  # a process of its own
DAY = Window(calendar="year")
PATIENT = Patience(decision=20.0, record=20.0, connect=5.0)


def claim(text: str) -> Claim:
    budget, amount, limit = text.split(":")
    return Claim(budget, "tokens", int(limit), DAY, int(amount), int(amount))


async def line() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(url: str, count: int, claims: tuple[Claim, ...]) -> None:
    async with ValkeyLedger.open(
        url, clock, 600.0, leases=Rules(busy_requests=1), patience=PATIENT
    ) as ledger:
        say("ready")
        await line()
        first = count // 2
        answers: list[Answer] = []
        for part in (first, count - first):
            asks = [Reserve(uuid.uuid4().hex, "acme", claims) for _ in range(part)]
            answers += await asyncio.gather(*map(ledger.reserve, asks))
        assert all(isinstance(answer, Reserved | Denied) for answer in answers), answers
        say(str(sum(isinstance(answer, Reserved) for answer in answers)))
        await line()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), tuple(map(claim, sys.argv[3:]))))
