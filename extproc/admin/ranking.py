"""Which tenants are nearest to their limits, among a hundred thousand, without holding up others.

The work is done in slices, between which everybody else has a turn, and its result is kept for
longer the more it took.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from extproc.admin.amounts import State, state_of, state_of_tenant
from extproc.admin.views import Books
from extproc.ledger.port import OpenLedger
from extproc.policy.budgets import claims_on
from extproc.policy.tenants import Tenant

SLICE: Final = 2000
"""Tenants or accounts that are looked at in one go: about a millisecond."""

ACCOUNTS_AT_ONCE_MAX: Final = 20_000
"""That a ledger is asked to add up in one go: about 15 milliseconds. Beyond, tenant by tenant."""

TENANTS_PER_TURN: Final = 100
"""Asked for tenant by tenant: about a millisecond."""

KEPT_SECONDS_MIN: Final = 1.0
KEPT_SECONDS_MAX: Final = 60.0
WORK_SHARE_MAX: Final = 0.02
"""Of the time, as long as somebody looks."""

T = TypeVar("T")


class Ranked(NamedTuple):
    """Every tenant by how much is used of its fullest budget, most first; then by name."""

    names: Sequence[str]
    states: Mapping[str, State]
    """Those that are not `ok`."""

    def counts(self) -> dict[str, int]:
        """How many tenants are in each state."""
        found = {"ok": len(self.names) - len(self.states), "warn": 0, "exhausted": 0}
        found["suspended"] = 0
        for state in self.states.values():
            found[state] += 1
        return found


class _Directory(NamedTuple):
    """What follows from the settings alone."""

    tenants: Mapping[str, Tenant]
    names: Sequence[str]
    suspended: Sequence[str]


class Ranker:
    """Ranks the tenants anew when what it knows has become old."""

    def __init__(self) -> None:
        self._directory = _Directory({}, (), ())
        self._ranked = Ranked((), {})
        self._until = 0.0
        self._turn = asyncio.Lock()

    async def ranked(self, books: Books) -> Ranked:
        """The order of a moment ago, at most `KEPT_SECONDS_MAX`."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            began = loop.time()
            if books.policy.tenants is not self._directory.tenants:
                self._directory = await _directory(books.policy.tenants)
            elif began < self._until:
                return self._ranked
            self._ranked = await _ranked(self._directory, books.ledger)
            took = loop.time() - began
            kept = min(max(KEPT_SECONDS_MIN, took / WORK_SHARE_MAX), KEPT_SECONDS_MAX)
            self._until = began + took + kept
            return self._ranked


async def chosen(
    names: Sequence[str], ranked: Ranked, *, text: str, state: State | None
) -> list[str]:
    """Those whose name contains `text`, in whatever case, and that are in `state`."""
    text = text.casefold()
    found: list[str] = []
    for part in _slices(names):
        found += [
            name
            for name in part
            if (not text or text in name.casefold())
            and (state is None or ranked.states.get(name, "ok") == state)
        ]
        await asyncio.sleep(0)
    return found


async def by_name(ranked: Ranked) -> list[str]:
    """All tenants by name."""
    found: list[str] = []
    for part in _slices(ranked.names):
        found += sorted(part)
        await asyncio.sleep(0)
    found.sort()  # of sorted parts: that is quick
    return found


async def _directory(tenants: Mapping[str, Tenant]) -> _Directory:
    suspended: list[str] = []
    for part in _slices(tenants):
        suspended += [name for name in part if state_of_tenant(tenants[name].budgets, ()) != "ok"]
        await asyncio.sleep(0)
    names = await by_name(Ranked(tuple(tenants), {}))
    return _Directory(tenants, names, suspended)


async def _ranked(directory: _Directory, ledger: OpenLedger) -> Ranked:
    used = _Used(directory.tenants)
    if ledger.size.accounts <= ACCOUNTS_AT_ONCE_MAX:
        for accounts in _slices(ledger.sums()):
            for account in accounts:
                used.note(account.tenant, account.budget, account.committed + account.reserved)
            await asyncio.sleep(0)
    else:
        for tenants in _slices(directory.names, TENANTS_PER_TURN):
            for name in tenants:
                budgets = directory.tenants[name].budgets
                for budget, standing in zip(
                    budgets, await ledger.standing(name, claims_on(budgets)), strict=True
                ):
                    used.note(name, budget.id, standing.committed + standing.reserved)
            await asyncio.sleep(0)
    for name in directory.suspended:
        used.states[name] = "suspended"
    names = sorted(used.shares, key=used.shares.__getitem__, reverse=True)
    await asyncio.sleep(0)
    for part in _slices(directory.names):
        names += [name for name in part if name not in used.shares]
        await asyncio.sleep(0)
    return Ranked(names, used.states)


class _Used:
    """The share of its fullest budget that each tenant has used, and what state that is."""

    def __init__(self, tenants: Mapping[str, Tenant]) -> None:
        self._tenants = tenants
        self.shares: dict[str, float] = {}
        self.states: dict[str, State] = {}

    def note(self, tenant: str, budget_id: str, used: int) -> None:
        """Take one budget into account, if any of it is used and the settings still know it."""
        if used <= 0 or tenant not in self._tenants:
            return
        for budget in self._tenants[tenant].budgets:
            if budget.id == budget_id and budget.limit_units:
                share = used / budget.limit_units
                self.shares[tenant] = max(share, self.shares.get(tenant, 0.0))
                state = state_of(budget, used)
                if state == "exhausted" or (state == "warn" and tenant not in self.states):
                    self.states[tenant] = state


def _slices(items: Iterable[T], size: int = SLICE) -> Iterator[list[T]]:
    remaining = iter(items)
    while part := list(islice(remaining, size)):
        yield part
