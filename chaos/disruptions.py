"""What is done to a process while it works: killed, stopped for a while, asked to end."""

import asyncio
import functools
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol

from chaos.stand import until

Disruption = Literal["killed", "stopped", "terminated"]
STOPPED_SECONDS: Final = (0.5, 1.0, 2.0, 3.0)
CALLS_BETWEEN: Final = (5, 60)
"""At the least and at the most, so that the moments are random."""


class Victim(Protocol):
    """A process that can be begun again."""

    async def start(self) -> None:
        """Begin anew, and serve."""

    async def kill(self) -> None:
        """End it with SIGKILL."""

    async def terminate(self) -> None:
        """Ask it to end, and wait."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""


def drawn(dice: random.Random, wanted: dict[Disruption, int]) -> list[Disruption]:
    """So many of each, in random order."""
    order = list(Counter(wanted).elements())
    dice.shuffle(order)
    return order


async def disrupt(
    victim: Victim,
    order: Sequence[Disruption],
    dice: random.Random,
    calls_made: Callable[[], int],
    say: Callable[[str], None],
) -> None:
    """Do it all, one after the other, each after a random number of further calls.

    Raises:
        OverdueError: calls do not go on.
    """
    for number, disruption in enumerate(order, 1):
        wanted = calls_made() + dice.randint(*CALLS_BETWEEN)
        await until(functools.partial(_are_made, calls_made, wanted), "calls go on")
        say(f"{number} of {len(order)}: {disruption} after {calls_made()} calls")
        match disruption:
            case "killed":
                await victim.kill()
                await victim.start()
            case "terminated":
                await victim.terminate()
                await victim.start()
            case "stopped":
                victim.signal(signal.SIGSTOP)
                await asyncio.sleep(dice.choice(STOPPED_SECONDS))
                victim.signal(signal.SIGCONT)


def _are_made(calls_made: Callable[[], int], wanted: int) -> bool:
    return calls_made() >= wanted
