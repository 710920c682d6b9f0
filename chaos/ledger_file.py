"""The ledger's file, read by somebody else: what a service that starts with it would find."""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec


class Contents(NamedTuple):
    """All that is written."""

    committed: Mapping[tuple[str, str, int], int]
    """By tenant, budget and the start of its window."""
    settled: frozenset[str]
    """Reservations whose settlement has come."""
    expired: Mapping[str, tuple[tuple[str, str], ...]]
    """Reservations whose settlement has not, and whose budgets they were charged to."""
    expected: Mapping[tuple[str, str], int]
    """What these were charged, by tenant and budget."""

    def charged(self, tenant: str, budget: str) -> int:
        """What is committed in all windows together."""
        found = self.committed.items()
        return sum(amount for key, amount in found if key[:2] == (tenant, budget))

    def settled_for(self, tenant: str, budget: str) -> int:
        """The same, without what expired."""
        return self.charged(tenant, budget) - self.expected.get((tenant, budget), 0)


def read(path: Path) -> Contents:
    """Read the file as it is now. A service may be writing to it."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as file:
        file.execute("BEGIN")  # so that both tables are of one instant
        rows = file.execute("SELECT tenant, budget, window_start, committed FROM account")
        committed = {(tenant, budget, start): amount for tenant, budget, start, amount in rows}
        past = file.execute("SELECT id, charged FROM past").fetchall()
    expected: Counter[tuple[str, str]] = Counter()
    expired = {}
    for name, charged in past:
        if charged is None:
            continue
        tenant, parts = _parts(charged)
        for budget, _, amount in parts:
            expected[tenant, budget] += amount
        expired[_text(name)] = tuple((tenant, budget) for budget, _, _ in parts)
    settled = frozenset(_text(name) for name, charged in past if charged is None)
    return Contents(committed, settled, expired, expected)


def _parts(charged: str) -> tuple[str, list[tuple[str, float, int]]]:
    tenant, parts = msgspec.json.decode(charged)
    return tenant, [(budget, start, amount) for budget, start, amount in parts]


def _text(name: Any) -> str:  # noqa: ANN401  # SQLite's
    return name.hex() if isinstance(name, bytes) else str(name)
