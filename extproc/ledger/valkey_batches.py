"""Which settlements are committed together."""

from collections.abc import Sequence
from typing import Final

from extproc.policy.budgets import Settlement

SETTLEMENTS_PER_CALL_MAX: Final = 200


def chunks_of(settlements: Sequence[Settlement]) -> list[tuple[str, list[int]]]:
    """Which of them go together: those of one tenant, as many as one call takes."""
    by_tenant: dict[str, list[int]] = {}
    for index, settlement in enumerate(settlements):
        by_tenant.setdefault(settlement.tenant, []).append(index)
    return [
        (tenant, indexes[first : first + SETTLEMENTS_PER_CALL_MAX])
        for tenant, indexes in by_tenant.items()
        for first in range(0, len(indexes), SETTLEMENTS_PER_CALL_MAX)
    ]
