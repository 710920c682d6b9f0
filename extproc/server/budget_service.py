"""Our own gRPC interface for looking after budgets: what each call does.

Who may call is not asked here, but before: see `budget_serving`.
"""

import asyncio
import json
import math
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final, NamedTuple

import grpc

from extproc.budgets_api import budgets_pb2 as pb
from extproc.exchange import actions
from extproc.exchange.events import RequestBody, RequestHeaders
from extproc.exchange.machine import Exchange
from extproc.exchange.trail import outcome_of, trail_of
from extproc.ledger.notes import INSTANT_MAX
from extproc.ledger.port import OpenLedger
from extproc.llm.prompt import TextCounter
from extproc.policy.budgets import CHARGE_MAX, Budget, Reserve
from extproc.policy.grants import REASON_CHARS_MAX, Grant
from extproc.server.budget_states import States, grant_shown
from extproc.server.grants import RESET, Failure, Grants, reset_id
from extproc.server.rulebook import Rulebook

PAGE_TENANTS_DEFAULT: Final = 100
PAGE_TENANTS_MAX: Final = 500
WATCHED_TENANTS_MAX: Final = 100
WATCHES_MAX: Final = 16
WATCH_SECONDS: Final = 1.0
"""From one look at watched budgets to the next."""

ID_CHARS_MAX: Final = 64
TENANTS_PER_TURN: Final = 20
"""Looked up in one go; then whoever waits for a decision has its turn."""

Tell = Callable[[Mapping[str, Any]], None]
"""Is told of each change to a budget, once it is kept: for the audit."""


class Refusal(NamedTuple):
    """Why a call is not done."""

    code: grpc.StatusCode
    text: str


_FAILURES: Final[Mapping[Failure, Refusal]] = {
    "too_many": Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "too many grants are in force: take some back"
    ),
    "too_much": Refusal(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"all grants of a budget may add up to {CHARGE_MAX} and not more",
    ),
    "taken": Refusal(grpc.StatusCode.ALREADY_EXISTS, "another grant has this id"),
    "unavailable": Refusal(
        grpc.StatusCode.UNAVAILABLE, "the ledger can't keep it at present; nothing has changed"
    ),
}


class BudgetService:
    """Answers each call with a message or a `Refusal`. `by` says by what right it is made."""

    def __init__(  # noqa: PLR0913  # it is where all of them meet
        self,
        rulebook: Rulebook,
        ledger: OpenLedger,
        counter: TextCounter,
        grants: Grants,
        *,
        clock: Callable[[], float],
        tell: Tell,
    ) -> None:
        self._rulebook = rulebook
        self._ledger = ledger
        self._counter = counter
        self._grants = grants
        self._clock = clock
        self._tell = tell
        self._states = States(rulebook, ledger, grants, clock)
        self._watches = 0

    @property
    def request_body_bytes_max(self) -> int:
        """Of a request that is to be explained."""
        return self._rulebook.rules.request_body_bytes

    async def get(self, ask: pb.GetRequest, _: str) -> pb.Budget | Refusal:
        """One budget."""
        return await self._states.one(ask.tenant, ask.budget) or _unknown(ask.tenant, ask.budget)

    async def list(self, ask: pb.ListRequest, _: str) -> pb.ListResponse | Refusal:
        """One page of tenants, with all their budgets."""
        if not 0 <= ask.page_size <= PAGE_TENANTS_MAX:
            return _invalid(f"page_size: from 1 to {PAGE_TENANTS_MAX}")
        size = ask.page_size or PAGE_TENANTS_DEFAULT
        names = self._states.names(
            prefix=ask.tenant_prefix, after=ask.page_token, count_max=size + 1
        )
        found: list[pb.Budget] = []
        for number, name in enumerate(names[:size], 1):
            found += await self._states.of(name)
            if number % TENANTS_PER_TURN == 0:
                await asyncio.sleep(0)
        has_more = len(names) > size
        return pb.ListResponse(budgets=found, next_page_token=names[size - 1] if has_more else "")

    async def watch(
        self, ask: pb.WatchRequest, _: str
    ) -> AsyncGenerator[pb.Budget | Refusal, None]:
        """All budgets of the tenants, then those that have changed; a refusal is the last."""
        names = list(dict.fromkeys(ask.tenants)) or self._states.names(
            prefix="", after="", count_max=WATCHED_TENANTS_MAX + 1
        )
        if len(names) > WATCHED_TENANTS_MAX:
            yield _invalid(f"tenants: name 1 to {WATCHED_TENANTS_MAX}")
            return
        for name in names:
            if not self._states.has(name):
                yield _unknown(name, "")
                return
        if self._watches >= WATCHES_MAX:
            yield Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many are watching")
            return
        self._watches += 1
        try:
            told: dict[tuple[str, str], pb.Budget] = {}
            while True:
                for name in names:
                    for budget in await self._states.of(name):
                        key = (name, budget.budget)
                        if told.get(key) != budget:
                            told[key] = budget
                            yield budget
                await asyncio.sleep(WATCH_SECONDS)
        finally:
            self._watches -= 1

    async def adjust(self, ask: pb.AdjustRequest, by: str) -> pb.AdjustResponse | Refusal:
        """Add a grant, or take one back."""
        budget = self._changeable(ask.tenant, ask.budget, ask.reason)
        if isinstance(budget, Refusal):
            return budget
        if ask.withdraw:
            return await self._withdraw(ask, by)
        now = self._clock()
        if not 0 < ask.amount <= CHARGE_MAX:
            return _invalid(f"amount: from 1 to {CHARGE_MAX}")
        if not (math.isfinite(ask.until) and now < ask.until <= INSTANT_MAX):
            return _invalid("until: an instant later than now, in seconds since 1970")
        if not _is_id(ask.id):
            return _invalid("id: up to 64 of a-z, 0-9 and -, not beginning with 'reset-'")
        grant = Grant(
            id=ask.id or secrets.token_hex(8),
            tenant=ask.tenant,
            budget=ask.budget,
            amount=ask.amount,
            until=ask.until,
            reason=ask.reason.strip(),
            by=by,
            at=now,
        )
        return await self._add(grant, "granted")

    async def reset(self, ask: pb.ResetRequest, by: str) -> pb.AdjustResponse | Refusal:
        """Grant what was charged in the present window again, until it ends."""
        budget = self._changeable(ask.tenant, ask.budget, ask.reason)
        if isinstance(budget, Refusal):
            return budget
        shown = await self._states.one(ask.tenant, ask.budget)
        if shown is None:
            return _unknown(ask.tenant, ask.budget)
        if not shown.HasField("window"):
            return _not_now("nothing is ever charged to it: it is about what is in flight")
        if not shown.committed:
            return _not_now("nothing is charged in the present window")
        grant = Grant(
            id=reset_id(ask.tenant, ask.budget, shown.window.end),
            tenant=ask.tenant,
            budget=ask.budget,
            amount=min(shown.committed, CHARGE_MAX),
            until=shown.window.end,
            reason=ask.reason.strip(),
            by=by,
            at=self._clock(),
            is_reset=True,
        )
        return await self._add(grant, "reset")

    async def explain(self, ask: pb.ExplainRequest, _: str) -> pb.ExplainResponse | Refusal:
        """Decide as the filter does, over the budgets as they stand; hold nothing."""
        if len(ask.body) > self.request_body_bytes_max:
            return _invalid(f"body: at most {self.request_body_bytes_max} bytes")
        exchange = Exchange(
            self._rulebook.rules, self._counter, reservation=f"explained-{secrets.token_hex(8)}"
        )
        headers = {name.lower(): value for name, value in ask.headers.items()}
        headers = {":method": "POST", **headers, ":path": ask.path}
        head = RequestHeaders(headers, not ask.body, {"": dict(ask.claims)}, ask.peer_uri)
        action = exchange.receive(head)
        while not isinstance(action, actions.Verdict):
            if isinstance(action, Reserve):
                action = exchange.receive(await self._ledger.peek(action))
            else:
                action = exchange.receive(RequestBody(ask.body))
        trail = trail_of(exchange.decision) if exchange.decision is not None else {}
        told = trail | {"outcome": outcome_of(action)}
        return pb.ExplainResponse(explanation_json=json.dumps(told))

    def _changeable(self, tenant: str, budget_id: str, reason: str) -> Budget | Refusal:
        budget = self._states.budget(tenant, budget_id)
        if budget is None:
            return _unknown(tenant, budget_id)
        if not reason.strip() or not reason.isprintable() or len(reason) > REASON_CHARS_MAX:
            return _invalid(f"reason: one line of up to {REASON_CHARS_MAX} characters")
        if budget.limit == 0:
            return _not_now("its limit is 0, which only the settings can change")
        return budget

    async def _withdraw(self, ask: pb.AdjustRequest, by: str) -> pb.AdjustResponse | Refusal:
        if ask.amount or ask.until or ask.id:
            return _invalid("withdraw: amount, until and id must be left out")
        grant = self._grants.find(ask.withdraw)
        if grant is None or (grant.tenant, grant.budget) != (ask.tenant, ask.budget):
            return Refusal(grpc.StatusCode.NOT_FOUND, "the budget has no such grant")
        failure = await self._grants.withdraw(grant)
        return await self._told(grant, "withdrawn", failure, by=by, reason=ask.reason.strip())

    async def _add(self, grant: Grant, change: str) -> pb.AdjustResponse | Refusal:
        try:
            failure = await self._grants.add(grant)
        except ValueError:
            return _invalid("reason: too long to be kept")
        return await self._told(grant, change, failure, by=grant.by, reason=grant.reason)

    async def _told(
        self, grant: Grant, change: str, failure: Failure | None, *, by: str, reason: str
    ) -> pb.AdjustResponse | Refusal:
        if failure is not None:
            return _FAILURES[failure]
        self._tell(
            {
                "at": self._clock(),
                "change": change,
                "tenant": grant.tenant,
                "budget": grant.budget,
                "grant": grant.id,
                "amount": grant.amount,
                "until": grant.until,
                "reason": reason,
                "by": by,
            }
        )
        shown = await self._states.one(grant.tenant, grant.budget)
        return pb.AdjustResponse(budget=shown, grant=grant_shown(grant))


def _is_id(text: str) -> bool:
    allowed = text.isascii() and all(c.islower() or c.isdigit() or c == "-" for c in text)
    return allowed and len(text) <= ID_CHARS_MAX and not text.startswith(RESET)


def _unknown(tenant: str, budget: str) -> Refusal:
    what = f"tenant {tenant!r} has no budget {budget!r}" if budget else f"no tenant {tenant!r}"
    return Refusal(grpc.StatusCode.NOT_FOUND, what)


def _invalid(text: str) -> Refusal:
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, text)


def _not_now(text: str) -> Refusal:
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, text)
