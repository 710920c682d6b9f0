"""The whole state in one answer: what the page shows, and what a script may ask for."""

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Final, Literal

import msgspec

from extproc.admin.amounts import State, TenantShown, tenant_shown
from extproc.admin.ranking import Ranker, by_name, chosen
from extproc.admin.views import Books, Reload, Views
from extproc.policy.budgets import DecidedBy
from extproc.telemetry.recent import ModelPace, Recent, TierUse
from extproc.telemetry.recent_slots import Quantiles

TENANTS_DEFAULT: Final = 100
TENANTS_MAX: Final = 500
"""In one answer. The rest is in the next one."""

ROWS_MAX: Final = 100
"""Models and tiers of the settings that are shown although nobody uses them."""

TEXT_CHARS_MAX: Final = 256
BUDGETS_PER_TURN: Final = 100
"""Budgets that are looked up in one go: about a millisecond."""

NOTHING: Final = Quantiles(None, None, None)


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tenants, and in what order."""

    tenant: Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)] = ""
    """A part of the name."""
    state: State | None = None
    sort: Literal["used", "name"] = "used"
    limit: Annotated[int, msgspec.Meta(ge=1, le=TENANTS_MAX)] = TENANTS_DEFAULT
    cursor: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0
    """The `next` of the answer before."""


class TenantsShown(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the tenants. `next` is None on the last one."""

    total: int
    states: dict[str, int]
    matching: int
    next: int | None
    rows: list[TenantShown]


class LedgerShown(msgspec.Struct, frozen=True, kw_only=True):
    """How the ledger is. `problem` is empty while all is well."""

    problem: str
    without_store: Mapping[DecidedBy, int]
    """How many reservations each `when_unavailable` has answered since the service began."""
    reservations_held: int
    reservations_expired: int
    accounts: int


class SettingsShown(msgspec.Struct, frozen=True, kw_only=True):
    """Since when the settings are in force, and how the last reload went."""

    in_force_since: float
    last_reload: dict[str, Any] | None
    needs_restart: tuple[str, ...]


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment. Instants are in seconds since 1970."""

    at: float
    counting_since: float
    """When this process began to count what is said of the last minutes."""
    not_ready: str
    ledger: LedgerShown
    settings: SettingsShown
    tenants: TenantsShown
    models: list[dict[str, Any]]
    tiers: list[dict[str, Any]]
    hops: list[dict[str, Any]]
    refusals: dict[str, int]
    news: list[dict[str, Any]]


def query_of(parameters: Mapping[str, str]) -> Query | str:
    """Read a query; what is wrong with it where it can't be read."""
    try:
        return msgspec.convert(dict(parameters), Query, strict=False)
    except msgspec.ValidationError as error:
        return str(error)


class Overviews:
    """Makes overviews, one at a time, and never for long at a stretch."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._ranker = Ranker()
        self._turn = asyncio.Lock()

    async def overview(self, query: Query, recent: Recent | None = None) -> Overview:
        """Look at everything now; at `recent`, if it is given, instead of what we saw ourselves."""
        views = self._views
        recent = recent or views.recent
        async with self._turn:
            tenants = await self._tenants(query, recent)
        books = views.budgets()
        in_force = views.settings()
        return Overview(
            at=views.clock(),
            counting_since=recent.since,
            not_ready=views.is_ready(),
            ledger=_ledger_shown(books),
            settings=SettingsShown(
                in_force_since=in_force.since,
                last_reload=reload_shown(in_force.last_reload),
                needs_restart=in_force.needs_restart,
            ),
            tenants=tenants,
            models=_models_shown(recent, books),
            tiers=_tiers_shown(recent, books),
            hops=[
                hop._asdict() | {"latency_seconds": _tailed(hop.latency_seconds, "p95")}
                for hop in recent.hops()
            ],
            refusals=recent.refusals(),
            news=[one._asdict() for one in recent.news()],
        )

    async def _tenants(self, query: Query, recent: Recent) -> TenantsShown:
        views = self._views
        books = views.budgets()
        ranked = await self._ranker.ranked(books)
        names = ranked.names if query.sort == "used" else await by_name(ranked)
        if query.tenant or query.state:
            names = await chosen(names, ranked, text=query.tenant, state=query.state)
        end = query.cursor + query.limit
        now = views.clock()
        rows: list[TenantShown] = []
        looked_up = 0
        for name in names[query.cursor : end]:
            rows.append(await tenant_shown(books, name, now, recent.burn))
            looked_up += len(rows[-1].budgets)
            if looked_up >= BUDGETS_PER_TURN:
                looked_up = 0
                await asyncio.sleep(0)
        if query.sort == "used":
            rows.sort(key=lambda row: -row.used_share)
        return TenantsShown(
            total=len(ranked.names),
            states=ranked.counts(),
            matching=len(names),
            next=end if end < len(names) else None,
            rows=rows,
        )


def reload_shown(reload: Reload | None) -> dict[str, Any] | None:
    """Say how the last reload went."""
    if reload is None:
        return None
    return {"at": reload.at, "is_in_force": not reload.problems, "problems": reload.problems}


def _ledger_shown(books: Books) -> LedgerShown:
    size = books.ledger.size
    return LedgerShown(
        problem=books.ledger.health(),
        without_store=books.ledger.without_store,
        reservations_held=size.held,
        reservations_expired=books.ledger.expired,
        accounts=size.accounts,
    )


def _models_shown(recent: Recent, books: Books) -> list[dict[str, Any]]:
    """The models that were called, most tokens first, then those that only the settings know."""
    seen = sorted(recent.models(), key=lambda pace: (-pace.tokens_per_second, pace.model))
    known = {pace.model for pace in seen}
    idle = [
        ModelPace(name, 0, 0, 0.0, 0.0, NOTHING, NOTHING)
        for name in islice(books.policy.models, ROWS_MAX)
        if name not in known
    ]
    return [
        pace._asdict()
        | {
            "stream_tokens_per_second": _tailed(pace.stream_tokens_per_second, "p5"),
            "first_token_seconds": _tailed(pace.first_token_seconds, "p95"),
        }
        for pace in (*seen, *idle)
    ]


def _tiers_shown(recent: Recent, books: Books) -> list[dict[str, Any]]:
    """The tiers, in the order of their priority."""
    used = {tier.tier: tier for tier in recent.tiers()}
    known = books.policy.tiers
    names = sorted(islice(known, ROWS_MAX), key=lambda name: known[name].priority)
    names += [name for name in used if name not in known]
    return [
        used.get(name, TierUse(name, 0, 0))._asdict()
        | {"model": known[name].model if name in known else None}
        for name in names
    ]


def _tailed(quantiles: Quantiles, tail: str) -> dict[str, float | None]:
    return {"now": quantiles.now, "median": quantiles.median, tail: quantiles.tail}
