"""Models keep their own books: after 2,000 mixed requests the ledger has the very same sums.

Seeds are drawn anew for each run, and told where a test fails: `chaos.traffic.calls(seed)` draws
the same requests again.
"""

import asyncio
import random
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

from chaos.client import Client, Ending
from chaos.dues import UNITS, sums
from chaos.findings import Findings, Seen, compare
from chaos.holding import Inquiry, question, settled
from chaos.ledger_file import Contents, read
from chaos.load import Load
from chaos.stand import Models, Proxy, Service, models, proxy, settings_in, until
from chaos.traffic import FICKLE, STEADY, TENANTS, TIGHT, Call, calls

CALLS = 2000
CLIENTS = 32
RESERVATION_SECONDS = 3
HELD_SECONDS = 20.0
SLOTS = 2


class Accounted(NamedTuple):
    """All that is known once the dust has settled, and the service has ended."""

    seed: int
    seen: Seen
    ledger: Contents
    findings: Findings
    slots: tuple[int, ...]
    """The statuses of calls that together take one slot more than there is."""

    def refused(self, tenant: str) -> int:
        """How many of a tenant's calls had no budget; models refuse some in the same way."""
        return sum(
            ending.status == 429 and "x-adapter-status" not in ending.call.headers
            for ending in self.seen.endings
            if ending.call.tenant == tenant
        )


@pytest.fixture(scope="module")
def mocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    with models(tmp_path_factory.mktemp("accounting") / "models") as running:
        yield running


@pytest.fixture(scope="module")
def accounted(tmp_path_factory: pytest.TempPathFactory, mocks: Models) -> Accounted:
    return asyncio.run(_accounted(tmp_path_factory.mktemp("accounting"), mocks))


async def _accounted(folder: Path, mocks: Models) -> Accounted:
    seed = random.SystemRandom().randrange(1 << 24)
    settings = settings_in(folder / "service", reservation_seconds=RESERVATION_SECONDS)
    async with Service(settings).running() as service:
        with proxy(folder / "envoy", service.port, mocks) as envoy:
            load = Load(envoy.gateway.port, calls(seed), clients=CLIENTS)
            await load.run(calls_max=CALLS)
            await settled(envoy, service, load.endings)
            inquiry = Inquiry(envoy, service, sorted(set(TENANTS)))
            await inquiry.nothing_is_held(seconds=HELD_SECONDS)
            slots = await _all_slots(envoy, mocks)
            await settled(envoy, service, slots)
            reservations = envoy.reservations()
    endings = [*chain(load.endings, inquiry.endings, slots)]
    seen = Seen(endings, mocks.answers(), reservations, mocks.prices)
    ledger = read(service.ledger)
    statuses = tuple(sorted(ending.status for ending in slots))
    return Accounted(seed, seen, ledger, compare(seen, ledger), statuses)


async def _all_slots(envoy: Proxy, mocks: Models) -> list[Ending]:
    """Take all slots of a tenant at once and ask for one more; then let all answers end."""
    steps = [f"slot{number}" for number in range(SLOTS)]
    gated = [question(step, "tight-slots", **{"x-adapter-gate": step}) for step in steps]
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(_sent(envoy, call)) for call in gated]
        await until(lambda: set(steps) <= mocks.answers().keys(), "all slots are taken")
        refused = await _sent(envoy, question("slotless", "tight-slots"))
        for step in steps:
            mocks.let_through(step)
    return [*(task.result() for task in asking), refused]


async def _sent(envoy: Proxy, call: Call) -> Ending:
    async with Client(envoy.gateway.port) as client:
        return await client.send(call)


def test_what_is_owed_is_charged_to_every_tenant_in_every_unit(accounted: Accounted) -> None:
    assert accounted.findings.differences == (), f"seed {accounted.seed}"


@pytest.mark.parametrize("tenant", [*STEADY, *TIGHT])
def test_who_stays_to_the_end_owes_an_exact_sum(accounted: Accounted, tenant: str) -> None:
    owed = sums(accounted.seen.endings, accounted.seen.answers, accounted.seen.prices)

    charged = {unit: accounted.ledger.charged(tenant, unit) for unit in UNITS}
    assert charged == {unit: owed[tenant, unit].low for unit in UNITS}, f"seed {accounted.seed}"
    assert all(owed[tenant, unit].is_exact for unit in UNITS)
    assert charged["tokens"] > 0


@pytest.mark.parametrize("tenant", FICKLE)
def test_who_leaves_owes_a_sum_that_is_known_within_a_quarter(
    accounted: Accounted, tenant: str
) -> None:
    owed = sums(accounted.seen.endings, accounted.seen.answers, accounted.seen.prices)

    low, high = owed[tenant, "tokens"]
    assert low < high < low * 1.25, f"seed {accounted.seed}"


def test_every_completed_request_is_settled_once(accounted: Accounted) -> None:
    findings = accounted.findings

    assert (findings.lost, findings.charged_twice) == (0, 0), f"seed {accounted.seed}"
    assert findings.completed > CALLS / 2


def test_tight_budgets_refuse_and_are_not_exceeded(accounted: Accounted) -> None:
    ledger = accounted.ledger

    assert ledger.charged("tight-requests", "few-requests") == 60
    # By no more than the last prompts had more words than our count of them had tokens.
    assert ledger.charged("tight-tokens", "few-tokens") <= 3000 * 1.05
    assert ledger.charged("tight-usd", "little-usd") <= 20_000 * 1.05
    for tenant in ("tight-requests", "tight-tokens", "tight-usd"):
        assert accounted.refused(tenant) > 0, f"seed {accounted.seed}"


def test_who_is_downgraded_pays_for_the_model_that_served(accounted: Accounted) -> None:
    best = accounted.ledger.charged("thrifty", "best")

    assert 0 < best <= 30_000 * 1.05
    assert best < accounted.ledger.charged("thrifty", "usd")


def test_all_slots_are_free_again(accounted: Accounted) -> None:
    assert accounted.slots == (200,) * SLOTS + (429,)
