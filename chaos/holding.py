"""What is held, asked of a service as any client may ask: what does its answer say is left?

A reservation holds all of its claims or none, so that one budget tells of each tenant whether
anything is held: the tightest, which answers and refusals name.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Final

from chaos.client import Client, Ending
from chaos.ledger_file import Contents, read
from chaos.stand import OverdueError, Proxy, Service, until
from chaos.traffic import CHAT, Call
from extproc.demo.clients import STEP_HEADER

SETTLED_SECONDS: Final = 20.0

_BODY: Final = json.dumps(
    {
        "model": "gpt-3.5-turbo",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 1,
    }
).encode()


def question(step: str, tenant: str, **headers: str) -> Call:
    """The smallest call there is."""
    return Call(step, tenant, CHAT, _BODY, {STEP_HEADER: step, **headers})


class Inquiry:
    """Asks until nothing is held. Its calls cost something as well: `endings` has them."""

    def __init__(
        self, proxy: Proxy, service: Service, tenants: Sequence[str], *, prefix: str = "held"
    ) -> None:
        self._proxy = proxy
        self._service = service
        self._tenants = tenants
        self._steps = (f"{prefix}{number}" for number in count())
        self.endings: list[Ending] = []
        self.held: Mapping[str, int] = {}
        """What was held when it was last asked, by tenant, in the unit of its tightest budget."""

    async def nothing_is_held(self, *, seconds: float) -> None:
        """Return once no tenant has anything held.

        Raises:
            OverdueError: somebody still has.
        """
        try:
            await until(self._is_free, "nothing is held any more", seconds=seconds)
        except OverdueError as error:
            msg = f"{error}: {self.held}"
            raise OverdueError(msg) from error

    async def _is_free(self) -> bool:
        before = read(self._service.ledger)
        async with Client(self._proxy.gateway.port) as client:
            asked = [
                await client.send(question(next(self._steps), tenant)) for tenant in self._tenants
            ]
        self.endings += asked
        await settled(self._proxy, self._service, asked)
        log = {record.step: record.llm for record in self._proxy.log.records}
        self.held = {
            ending.call.tenant: _held(ending, before, log[ending.call.step].get("reserved", ""))
            for ending in asked
        }
        return all(held <= 0 for held in self.held.values())


async def settled(
    proxy: Proxy, service: Service, endings: Iterable[Ending], *, seconds: float = SETTLED_SECONDS
) -> None:
    """Return once all records are acknowledged, and the reservations of these calls settled.

    Raises:
        OverdueError: they are not: some are lost.
    """
    endings = list(endings)
    whole = {ending.call.step for ending in endings if ending.is_whole}
    steps = {ending.call.step for ending in endings}

    def is_settled() -> bool:
        found = proxy.reservations()
        wanted = {reservation for step, reservation in found.items() if step in steps}
        return (
            proxy.has_delivered_all()
            and whole <= {record.step for record in proxy.log.records}
            and wanted <= read(service.ledger).settled
        )

    await until(is_settled, "all is settled", seconds=seconds)


def _held(ending: Ending, before: Contents, reserved: str) -> int:
    """What others held of the tightest budget when this was asked."""
    budget, limit, left = (
        ending.header(f"x-llm-budget-{name}") for name in ("policy", "limit", "remaining")
    )
    if budget is None or limit is None or left is None:
        msg = f"{ending.call.tenant} was not told of a budget: {ending.head.decode()}"
        raise AssertionError(msg)
    own = [int(hold.split()[2]) for hold in reserved.split(";") if hold.split()[:1] == [budget]]
    return int(limit) - int(left) - sum(own) - before.charged(ending.call.tenant, budget)
