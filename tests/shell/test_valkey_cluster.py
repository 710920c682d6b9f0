"""A Valkey Cluster of three nodes: a tenant's keys are on one, tenants are on all."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from extproc.ledger.lease_messages import Rules
from extproc.ledger.valkey import ValkeyLedger
from extproc.ledger.valkey_link import Patience
from extproc.policy.budgets import Claim, Denied, Reserve, Reserved, Settlement
from tests import valkeys

NODES: Final = 3
SLOTS: Final = 16384
TENANTS: Final = tuple(f"tenant{number}" for number in range(30))
clock = time.time  # noqa: TID251  # that of the machine, as the store has it


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[valkeys.Server]]:
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    with ExitStack() as running:
        nodes = [running.enter_context(valkeys.running(*options)) for _ in range(NODES)]
        for index, node in enumerate(nodes):
            first, last = SLOTS * index // NODES, SLOTS * (index + 1) // NODES - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        valkeys.wait_until(lambda: all(_is_whole(node) for node in nodes))
        yield nodes


def _is_whole(node: valkeys.Server) -> bool:
    with node.client as client:
        info: dict[str, str] = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(NODES)


@pytest.mark.parametrize("leases", [None, Rules(busy_requests=0)])
def test_all_of_a_tenants_budgets_are_decided_in_one_place(
    cluster: list[valkeys.Server], leases: Rules | None
) -> None:
    async def main() -> None:
        claims = (
            Claim("slots", "concurrent_requests", 5, None, 1, 1),
            Claim("more", "concurrent_requests", 9, None, 1, 1),
        )
        patience = Patience(decision=5.0, record=5.0, connect=5.0)
        name = "leased" if leases else "asked"
        async with ValkeyLedger.open(
            cluster[1].url, clock, 600.0, leases=leases, patience=patience, is_cluster=True
        ) as ledger:
            asks = [
                Reserve(f"{name}-{tenant}-{i}", f"{name}-{tenant}", claims)
                for tenant in TENANTS
                for i in range(6)
            ]
            answers = await asyncio.gather(*map(ledger.reserve, asks))
            kinds = [type(answer) for answer in answers]
            assert kinds == [*[Reserved] * 5, Denied] * len(TENANTS)
            settlements = [Settlement(ask.reservation, ask.tenant, ()) for ask in asks]
            taken = await ledger.settle(settlements, {"a note": "is kept"})
            assert list(taken) == [*["settled"] * 5, "unknown"] * len(TENANTS)
            assert ledger.health() == ""
            assert ledger.notes("a ") == {"a note": "is kept"}

    asyncio.run(main())
    assert all(node.command("DBSIZE") > 0 for node in cluster)
