"""Before the service says that it is ready: does it refuse who has nothing left?

The assembled parts are asked as Envoy asks, with protobuf, on a ledger of their own: the rules in
force, the machine, the counter. What must come out is told from the settings, not from the rules
that were made of them. Each tenant that is looked at is let in while its books are empty, else
nothing would be shown by a refusal; then all its budgets are used up.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from extproc.config.settings import Settings
from extproc.exchange.machine import Exchange, Rules
from extproc.ledger.port import OpenLedger
from extproc.llm.errors import Fault
from extproc.llm.prompt import TextCounter
from extproc.policy.budgets import Budget, Claim, Reserve
from extproc.policy.decide import REJECT
from extproc.policy.tenants import Tenant
from extproc.selftest_envoy import Answer, Envoy, SelfTestError, chat, introduced
from extproc.server.h2.decision import Decision, Decisions

TENANTS_MAX: Final = 20
"""Looked at: the first of each kind, by plan and by what its budgets are like."""

TENANTS_SEARCHED_MAX: Final = 5_000
"""For different kinds: a hundredth of a second."""

MODELS_MAX: Final = 10
"""That are asked for, until one takes something of a tenant's budgets."""

_REFUSALS: Final = frozenset(
    {Fault.RATE_LIMITED, Fault.BUDGET_EXHAUSTED, Fault.TENANT_SUSPENDED, Fault.BUDGET_TOO_SMALL}
)
_UNSUITED: Final = frozenset(
    {Fault.UNKNOWN_MODEL, Fault.CONTEXT_EXCEEDED, Fault.BUDGET_TOO_SMALL, Fault.TENANT_SUSPENDED}
)
"""With these even who has everything left may be refused: the model asked for is not for them."""

_GARBAGE: Final = b'{"model": '


async def self_test(
    settings: Settings,
    rules: Rules,
    counter: TextCounter,
    new_ledger: Callable[[], OpenLedger],
) -> str:
    """See that over-budget requests are refused; say in one line what was seen.

    Raises:
        SelfTestError: one was not, or another request that must be refused.
    """
    test = _Test(settings, rules, counter, new_ledger)
    seen = skipped = 0
    for name in _chosen(settings):
        if await test.tenant(name):
            seen += 1
        else:
            skipped += 1
    await test.strangers()
    if seen:
        return f"{seen} kinds of tenants are refused or downgraded once their budgets are used up"
    if skipped:
        return f"of {skipped} kinds of tenants none takes anything of its budgets with a short chat"
    return "no tenant has a budget: nothing is limited"


def _chosen(settings: Settings) -> Iterator[str]:
    """One tenant of each kind."""
    kinds: dict[object, str] = {}
    for name, tenant in islice(settings.tenants.items(), TENANTS_SEARCHED_MAX):
        if tenant.budgets:
            kinds.setdefault((tenant.plan, tuple(map(_kind, tenant.budgets))), name)
    return islice(kinds.values(), TENANTS_MAX)


def _kind(budget: Budget) -> tuple[object, ...]:
    limited = (budget.unit, budget.models, budget.tiers, budget.on_exhausted, budget.reserve)
    return (*limited, budget.window is None, budget.limit_units == 0)


class _Test:
    def __init__(
        self,
        settings: Settings,
        rules: Rules,
        counter: TextCounter,
        new_ledger: Callable[[], OpenLedger],
    ) -> None:
        self._settings = settings
        self._rules = rules
        self._counter = counter
        self._new_ledger = new_ledger
        self._asked = 0

    async def tenant(self, name: str) -> bool:
        """Use up what a tenant has. False if none of our requests takes anything of it.

        Raises:
            SelfTestError: it is let in all the same.
        """
        tenant = self._settings.tenants[name]
        if tenant.is_suspended:
            answer = await self._ask(name, self._new_ledger())
            if answer.fault != Fault.TENANT_SUSPENDED:
                raise _error(answer, name, "is suspended")
            return True
        for model in islice(self._settings.models, MODELS_MAX):
            before = await self._ask(name, self._new_ledger(), model)
            if before.fault and before.fault not in _UNSUITED:
                raise _error(before, name, "has all its budgets left")
            _check_held(name, tenant, before)
            if before.held:
                await self._use_up(name, tenant, model, before)
                return True
        return False

    async def strangers(self) -> None:
        """See that nothing gets in that can't be told or read.

        Raises:
            SelfTestError: it does.
        """
        if self._settings.unknown_tenant == REJECT:
            answer = await self._ask(None, self._new_ledger())
            if answer.fault != Fault.UNKNOWN_TENANT:
                raise _error(answer, "nobody", "is no tenant")
        for name, tenant in self._settings.tenants.items():
            if not tenant.is_suspended:
                answer = await self._ask(name, self._new_ledger(), body=_GARBAGE)
                if answer.fault != Fault.MALFORMED_REQUEST:
                    raise _error(answer, name, "sent what can't be read")
                return

    async def _use_up(self, name: str, tenant: Tenant, model: str, before: Answer) -> None:
        ledger = self._new_ledger()
        await ledger.reserve(Reserve(self._reservation(), name, tuple(_whole(tenant.budgets))))
        after = await self._ask(name, ledger, model)
        if after.fault in _REFUSALS:
            return
        held = [budget for budget in tenant.budgets if budget.id in before.held]
        must_refuse = any(budget.on_exhausted == "refuse" for budget in held)
        if after.fault or after.held or must_refuse:
            raise _error(after, name, "has used up its budgets")
        _check_held(name, tenant, after)

    async def _ask(
        self, name: str | None, ledger: OpenLedger, model: str = "", *, body: bytes = b""
    ) -> Answer:
        """Send one short chat, as Envoy does."""
        rules, head = introduced(self._rules, name)
        envoy = Envoy(head, body or chat(model))
        decisions = Decisions(
            lambda reservation: Exchange(rules, self._counter, reservation=reservation),
            ledger,
            self._reservation,
            lambda *_: None,
        )
        envoy.ask(Decision(decisions, envoy))
        return envoy.answer()

    def _reservation(self) -> str:
        self._asked += 1
        return f"{self._asked:032x}"


def _check_held(name: str, tenant: Tenant, answer: Answer) -> None:
    """See that a request that was let go has taken of every budget that it counts against.

    But of money: what costs nothing takes nothing.
    """
    for budget in tenant.budgets if not answer.fault else ():
        is_covered = budget.covers(tier=answer.tier, model=answer.model)
        if is_covered and budget.unit != "usd" and budget.id not in answer.held:
            raise _error(answer, name, f"took nothing of budget {budget.id!r}")


def _whole(budgets: Sequence[Budget]) -> Iterator[Claim]:
    """All that there is. A limit of 0 has nothing, and takes no claim."""
    for budget in budgets:
        limit = budget.limit_units
        if limit:
            yield Claim(budget.id, budget.unit, limit, budget.window, limit, limit)


def _error(answer: Answer, name: str, why: str) -> SelfTestError:
    became = f"refused with {answer.fault}" if answer.fault else f"let go to tier {answer.tier!r}"
    return SelfTestError(f"self-test failed: {name!r} {why}, and its request was {became}")
