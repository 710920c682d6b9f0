"""What is behind Envoy, asked directly: the models' own books, and what the service knows."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from extproc.demo.figures import Figures, figures_of
from extproc.telemetry import metric_names

POLL_SECONDS: Final = 0.02
WAIT_SECONDS: Final = 15.0
"""Far longer than records take to come: whoever waits so long is told that they did not."""


class Backstage(NamedTuple):
    """Where to ask. `control` is the adapters' port, `admins` those of the service's replicas."""

    http: aiohttp.ClientSession
    control: str
    admins: Callable[[], Sequence[str]]

    async def has_reached_a_model(self, mark: str) -> bool:
        """Whether a model has the whole request of this step."""
        entries = await self._get(f"{self.control}/books?step={mark}")
        return any(entry["is_complete"] for entry in entries)

    async def let_through(self, gate: str) -> None:
        """Let an answer that waits be given."""
        async with self.http.post(f"{self.control}/gates/{gate}") as response:
            response.raise_for_status()

    async def figures(self) -> Figures:
        """What both say at present."""
        books = await self._get(f"{self.control}/served")
        told = [await self._get(f"{admin}/budgets.json") for admin in self.admins()]
        return figures_of(books, told)

    async def is_settled(self) -> bool:
        """Whether nothing is held any more: everything that is finished is charged."""
        return not any(standing.reserved for standing in (await self.figures()).standings)

    async def is_charged(self) -> bool:
        """Whether what was charged is what was served, whatever is held besides."""
        return not (await self.figures()).mischarged()

    async def agrees(self) -> bool:
        """Whether what was charged is what was served, and nothing is held."""
        return not (await self.figures()).differences()

    async def answers(self, tenant: str) -> int:
        """How many answers the models say they gave a tenant."""
        served = (await self.figures()).served
        return sum(one.answers for one in served if one.tenant == tenant)

    async def asked(self, mark: str) -> int:
        """How many requests of this step have reached a model."""
        return len(await self._get(f"{self.control}/books?step={mark}"))

    async def held(self, tenant: str) -> float:
        """What is set aside for a tenant, of all its budgets, as any replica has it."""
        standings = (await self.figures()).standings
        return sum(one.reserved for one in standings if one.tenant == tenant)

    async def decisions(self, admin: str) -> int:
        """How many calls a replica says it decided."""
        return int(await self._metric(admin, metric_names.DECISIONS))

    async def is_ledger_up(self, admin: str) -> bool:
        """Whether a replica says that it can commit."""
        return bool(await self._metric(admin, metric_names.LEDGER_UP))

    async def _metric(self, admin: str, name: str) -> float:
        """The sum of a metric over its labels."""
        async with self.http.get(f"{admin}/metrics") as response:
            response.raise_for_status()
            families = text_string_to_metric_families(await response.text())
        found = (sample for family in families for sample in family.samples)
        return sum(one.value for one in found if one.name.removesuffix("_total") == name)

    async def _get(self, url: str) -> Any:  # noqa: ANN401  # JSON
        async with self.http.get(url) as response:
            response.raise_for_status()
            return await response.json()


async def holds_soon(
    holds: Callable[[], Awaitable[bool]], *, seconds: float = WAIT_SECONDS
) -> bool:
    """Look again and again until it holds; False if it does not within so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await holds():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)  # other processes tell nobody
    return True
