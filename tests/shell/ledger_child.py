"""A process of its own that keeps a ledger. Run it with a path and what to do."""

import asyncio
import resource
import signal
import sys

from extproc.ledger.port import LedgerError
from extproc.ledger.sqlite import SqliteLedger
from extproc.policy.budgets import Charge, Reserve, Settlement
from tests.ledger_books import DAY, NOON, RESERVATION_SECONDS, UNDISTURBED, Clock, money, tokens

PER_BATCH = 20


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def batch(number: int) -> list[Settlement]:
    """Each settlement uses one token, and as many micro-dollars as its batch has."""
    return [
        Settlement(
            f"{number}-{part}",
            "acme",
            (Charge("minute", NOON, 1), Charge("day", DAY.span(NOON).start, number)),
        )
        for part in range(PER_BATCH)
    ]


async def settle_forever(path: str, first: int) -> None:
    """Say the number of each batch once it is settled; the one before comes a second time."""
    clock = Clock()
    async with SqliteLedger.open(path, clock, RESERVATION_SECONDS, pace=UNDISTURBED) as ledger:
        for number in range(first, sys.maxsize):
            for settlement in batch(number)[::2]:
                claims = (tokens(2, of=10**9), money(number, of=10**15))
                await ledger.reserve(Reserve(settlement.reservation, "acme", claims))
            before = batch(number - 1) if number else []
            new, again = await asyncio.gather(
                ledger.settle(batch(number), {"last": str(number)}), ledger.settle(before)
            )
            assert set(new) <= {"settled", "unknown", "repeated"}, new
            assert set(again) <= {"repeated"}, again
            say(f"{number}")


async def fill(path: str, more: int) -> None:
    """Settle until the file may not grow, by so many bytes; then be allowed to write again."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    clock = Clock()
    async with SqliteLedger.open(path, clock, RESERVATION_SECONDS, pace=UNDISTURBED) as ledger:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (more, hard))
        number = 0
        while set(await ledger.settle(batch(number))) == {"unknown"}:
            say(f"{number}")
            number += 1
        say(ledger.health())
        assert set(await ledger.settle(batch(number))) == {"unavailable"}
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert set(await ledger.settle(batch(0))) == {"repeated"}
        assert set(await ledger.settle(batch(number))) == {"unknown"}
        assert ledger.health() == ""
        say(f"{number}")


async def hold(path: str, _: int) -> None:
    """Have the ledger open until nobody listens."""
    async with SqliteLedger.open(path, Clock(), RESERVATION_SECONDS):
        say("open")
        await asyncio.to_thread(sys.stdin.read)


async def full(path: str, size: int) -> None:
    """Open it where no file may be larger."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    async with SqliteLedger.open(path, Clock(), RESERVATION_SECONDS):
        say("open")


if __name__ == "__main__":
    work = {"settle": settle_forever, "fill": fill, "hold": hold, "full": full}[sys.argv[2]]
    try:
        asyncio.run(work(sys.argv[1], int(sys.argv[3])))
    except LedgerError as error:
        say(str(error))
        sys.exit(1)
