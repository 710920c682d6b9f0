"""Which settlements are committed together."""

from collections.abc import Sequence
from typing import Final

from extproc.policy.budgets import Settled, Settlement

SETTLEMENTS_PER_CALL_MAX: Final = 200


Chunk = tuple[str, list[int]]
"""A tenant, and the places of its settlements in the batch."""


def chunks_of(settlements: Sequence[Settlement]) -> list[Chunk]:
    """Which of them go together: those of one tenant, as many as one call takes."""
    by_tenant: dict[str, list[int]] = {}
    for index, settlement in enumerate(settlements):
        by_tenant.setdefault(settlement.tenant, []).append(index)
    return [
        (tenant, indexes[first : first + SETTLEMENTS_PER_CALL_MAX])
        for tenant, indexes in by_tenant.items()
        for first in range(0, len(indexes), SETTLEMENTS_PER_CALL_MAX)
    ]


def in_order(chunks: Sequence[Chunk], answers: Sequence[Sequence[Settled]]) -> tuple[Settled, ...]:
    """How the settlements were taken, in the order of the batch."""
    found: dict[int, Settled] = {}
    for (_, places), answer in zip(chunks, answers, strict=True):
        found.update(zip(places, answer, strict=True))
    return tuple([found[place] for place in range(len(found))])
