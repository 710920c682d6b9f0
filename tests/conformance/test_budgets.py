"""Budgets hold, whatever the order in which Envoy lets go of things."""

import asyncio
from collections import Counter

from tests.conformance.harness import Mesh, chat

LIMIT = 300
AT_ONCE = 24


async def test_a_budget_admits_exactly_its_limit(mesh: Mesh) -> None:
    """Envoy drops our stream as soon as it has heard the answer: that gives nothing back."""
    statuses: Counter[int] = Counter()
    left = 2 * LIMIT

    async def call_again_and_again() -> None:
        nonlocal left
        while left:
            left -= 1
            statuses[(await mesh.send(chat(), tenant="three-hundred-a-year")).status] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(call_again_and_again())

    assert statuses == {200: LIMIT, 429: LIMIT}
