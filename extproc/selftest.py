"""Before the service says that it is ready: does it refuse who has nothing left?

The assembled parts are asked as Envoy asks, with protobuf, on a ledger of their own: the rules in
force, the machine, the counter. What must come out is told from the settings, not from the rules
that were made of them. Each tenant that is looked at is let in while its books are empty, else
nothing would be shown by a refusal; then all its budgets are used up.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any, Final, NamedTuple

from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
)
from google.protobuf.json_format import MessageToDict
from msgspec import structs

from extproc.config.settings import Settings
from extproc.exchange.holds import holds_of
from extproc.exchange.machine import Exchange, Rules
from extproc.exchange.names import METADATA_NAMESPACE
from extproc.ledger.port import OpenLedger
from extproc.llm.errors import Fault
from extproc.llm.prompt import TextCounter
from extproc.policy.budgets import Budget, Claim, Reserve
from extproc.policy.decide import REJECT
from extproc.policy.identity import JWT_NAMESPACE, IdentitySource
from extproc.policy.tenants import Tenant
from extproc.server.h2 import answers
from extproc.server.h2.decision import Decision, Decisions
from extproc.server.h2.heads import Head

TENANTS_MAX: Final = 20
"""Looked at: the first of each kind, by plan and by what its budgets are like."""

TENANTS_SEARCHED_MAX: Final = 5_000
"""For different kinds: a hundredth of a second."""

MODELS_MAX: Final = 10
"""That are asked for, until one takes something of a tenant's budgets."""

PATH: Final = "/v1/chat/completions"

_KEY: Final = "self-test"
_HEADER: Final = "x-self-test"
_REFUSALS: Final = frozenset(
    {Fault.RATE_LIMITED, Fault.BUDGET_EXHAUSTED, Fault.TENANT_SUSPENDED, Fault.BUDGET_TOO_SMALL}
)
_UNSUITED: Final = frozenset(
    {Fault.UNKNOWN_MODEL, Fault.CONTEXT_EXCEEDED, Fault.BUDGET_TOO_SMALL, Fault.TENANT_SUSPENDED}
)
"""With these even who has everything left may be refused: the model asked for is not for them."""

_GARBAGE: Final = b'{"model": '


class SelfTestError(Exception):
    """The service would not do what the settings say. The text, one line, says what."""


class Answer(NamedTuple):
    """What became of a request: the fault it was refused with, or where it went and what it took.

    `held` are ids of budgets that something was taken of.
    """

    fault: str
    tier: str = ""
    model: str = ""
    held: frozenset[str] = frozenset()


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
        rules, head = _introduced(self._rules, name)
        envoy = _Envoy(head, body or _chat(model))
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


def _chat(model: str) -> bytes:
    message = {"role": "user", "content": "Hi"}
    return json.dumps({"model": model or "any", "max_tokens": 1, "messages": [message]}).encode()


def _introduced(rules: Rules, name: str | None) -> tuple[Rules, ProcessingRequest]:
    """The head of a request that tells a tenant, and rules that understand it.

    They are those in force, but for what we can't have: a key, or a certificate.
    """
    policy, headers, jwt = rules.policy, {":method": "POST", ":path": PATH}, {}
    source = next((one for one in policy.identity if one.spiffe is None), None)
    if name is None:
        pass
    elif source is None:
        headers[_HEADER] = name
        policy = policy._replace(identity=(IdentitySource(header=_HEADER),))
    elif source.header is not None:
        headers[source.header] = name
    elif source.api_key is not None:
        headers[source.api_key.header] = f"{source.api_key.scheme} {_KEY}".strip()
        policy = policy._replace(keys={**policy.keys, sha256(_KEY.encode()).hexdigest(): name})
    else:
        jwt[source.jwt_claim] = name
    head = ProcessingRequest(
        request_headers=HttpHeaders(
            headers=HeaderMap(
                headers=[
                    HeaderValue(key=key, raw_value=value.encode()) for key, value in headers.items()
                ]
            )
        )
    )
    if jwt:
        head.metadata_context.filter_metadata[JWT_NAMESPACE].update({_KEY: jwt})
    return structs.replace(rules, policy=policy), head


class _Envoy:
    """Sends one request, and takes the answers; to the decision it is the call."""

    head = Head(b"", ())
    is_open = True
    is_late = False

    def __init__(self, head: ProcessingRequest, body: bytes) -> None:
        self._head = head
        self._body = ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=True))
        self._answers: list[ProcessingResponse] = []

    def ask(self, decision: Decision) -> None:
        """Send the head, and the body if it is asked for."""
        decision.on_message(self._head.SerializeToString())
        if self._answers and self._answers[0].HasField("request_headers"):
            decision.on_message(self._body.SerializeToString())

    def expect(self) -> None:
        """It comes at once."""

    def expect_no_more(self) -> None:
        """It has come."""

    def took(self, seconds: float) -> None:
        """Nobody waits for that."""

    def send(self, message: bytes) -> None:
        """Take an answer."""
        self._answers.append(ProcessingResponse.FromString(message))

    def finish(self, status: int = answers.OK, text: str = "") -> None:
        """Take the end.

        Raises:
            SelfTestError: the exchange failed.
        """
        if status != answers.OK:
            message = f"self-test failed: a request ended with status {status}: {text}"
            raise SelfTestError(message)

    def pause(self) -> None:
        """Nothing more is sent in any case before there is an answer."""

    def resume(self) -> None:
        """Go on."""

    def answer(self) -> Answer:
        """What became of the request.

        Raises:
            SelfTestError: nothing, or it passed by as if it were none.
        """
        last = self._answers[-1] if self._answers else ProcessingResponse()
        if last.HasField("immediate_response"):
            return Answer(last.immediate_response.details.removeprefix("llm_"))
        if not last.HasField("request_body") or not last.HasField("dynamic_metadata"):
            message = "self-test failed: a request passed by undecided"
            raise SelfTestError(message)
        told: dict[str, Any] = MessageToDict(last.dynamic_metadata)[METADATA_NAMESPACE]
        held = {hold.budget for hold in holds_of(told["reserved"]) or () if hold.amount}
        return Answer("", told["tier"], told["model"], frozenset(held))
