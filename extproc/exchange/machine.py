"""One exchange: what is decided at the headers, what at the body, what the ledger said."""

from collections.abc import Generator
from functools import cached_property
from typing import Any, assert_never

import msgspec

from extproc.exchange import answers, attempts, names
from extproc.exchange.actions import Action, PassThrough, ReadBody, Reject
from extproc.exchange.events import AttemptHeaders, Event, RequestBody, RequestHeaders
from extproc.exchange.phases import AFTER, Phase, check
from extproc.exchange.screening import SCREENED, is_upgrade, screen, too_large
from extproc.llm.body import Malformed, Splice, spliced
from extproc.llm.dialects import Dialect, dialect_of
from extproc.llm.errors import Fault
from extproc.llm.parse import parse_request
from extproc.llm.prompt import TextCounter
from extproc.llm.request import LlmRequest
from extproc.policy.budgets import Answer, Denied, Reserve, Reserved, Unavailable
from extproc.policy.decide import Admitted, Decision, Inquiry, Policy, admit, decide
from extproc.policy.identity import Evidence
from extproc.policy.refusals import Refused, refuse_overloaded


class Rules(msgspec.Struct, frozen=True, dict=True):
    """All that an exchange is decided by. One value: a reload swaps the reference to it."""

    policy: Policy
    rewrite_model: bool
    asks_for_usage: bool
    """Whether streams are made to end with their usage: somebody takes it off again."""
    is_observed: bool
    """Whether answers are copied to us, so that a record waits for what we saw of its answer."""
    request_body_bytes: int

    @cached_property
    def headers_read(self) -> frozenset[str]:
        """Names of the request headers that anything here looks at."""
        policy = self.policy
        sources = {source.header for source in policy.identity if source.header is not None}
        keys = {source.api_key.header for source in policy.identity if source.api_key is not None}
        rules = [rule for plan in policy.plans.values() for rule in plan]
        conditions = {name for rule in rules if rule.when for name in rule.when.headers or ()}
        return frozenset({*SCREENED, *names.REQUEST_HEADERS, *sources, *keys, *conditions})


class Exchange:
    """The decision about one HTTP request.

    Feed it events with `receive`; do what the action says; feed back the answer to a
    `Reserve`. After one of `actions.Final` it is over.
    """

    def __init__(self, rules: Rules, counter: TextCounter, *, reservation: str) -> None:
        self._rules = rules
        self._counter = counter
        self._reservation = reservation
        self._phase = Phase.START
        self._head: RequestHeaders
        self._dialect: Dialect
        self._admitted: Admitted
        self._body = b""
        self._attempt_model = ""
        """Of an attempt whose host serves another model than was meant."""
        self._deciding: Generator[Reserve, Answer, Decision]
        self.decision: Decision | None = None
        """What was decided, once it was: for those who explain and observe."""

    @property
    def headers_read(self) -> frozenset[str]:
        """Names of the headers that make a difference; others may be left out of the events."""
        return self._rules.headers_read

    def receive(self, event: Event) -> Action:
        """Take one event; return what to do about it.

        Raises:
            ProtocolError: the event is not allowed now. Nothing has changed.
        """
        check(self._phase, event)
        action = self._act(event)
        self._phase = AFTER[type(action)]
        return action

    def _act(self, event: Event) -> Action:
        match event:
            case RequestHeaders():
                return self._on_headers(event)
            case AttemptHeaders():
                return self._on_attempt(event)
            case RequestBody() if self._attempt_model:
                return attempts.replace(event.data, self._attempt_model)
            case RequestBody():
                return self._on_body(event)
            case Reserved() | Denied() | Unavailable():
                return self._go_on(event)
            case _:
                assert_never(event)

    def _on_headers(self, head: RequestHeaders) -> Action:
        headers = head.headers
        dialect = dialect_of(headers.get(":path", ""))
        is_call = headers.get(":method", "").upper() == "POST" or is_upgrade(headers)
        if dialect is None or not is_call:
            return self._pass_through(head)
        self._dialect = dialect
        admitted = admit(self._rules.policy, Evidence(headers, head.jwt, head.peer_uri))
        if isinstance(admitted, Refused):
            return answers.reject(dialect, admitted, {})
        self._admitted = admitted
        if head.is_late:
            return self._reject(refuse_overloaded(self._reservation))
        refused = screen(headers, body_bytes_max=self._rules.request_body_bytes)
        if refused is None and head.end_of_stream:
            message = "$: the body is empty; expected a JSON object"
            refused = Refused(Fault.MALFORMED_REQUEST, message)
        if refused is not None:
            return self._reject(refused)
        self._head = head
        return ReadBody()

    def _on_attempt(self, head: AttemptHeaders) -> Action:
        self._attempt_model = attempts.model_of_attempt(self._rules.policy.models, head)
        return attempts.attempt(head, self._attempt_model)

    def _pass_through(self, head: RequestHeaders) -> PassThrough:
        """Take our own headers off: where the proxy's stripper is missing, still nobody gains.

        One that an identity source reads is vouched for by whoever stands in front.
        """
        trusted = {source.header for source in self._rules.policy.identity}
        return PassThrough(
            tuple(
                name
                for name in names.REQUEST_HEADERS
                if name in head.headers and name not in trusted
            )
        )

    def _on_body(self, event: RequestBody) -> Action:
        limit = self._rules.request_body_bytes
        if len(event.data) > limit:
            return self._reject(too_large(limit))
        request = parse_request(self._dialect, event.data)
        if isinstance(request, Malformed):
            message = f"The body is malformed. {request}"
            param = request.path.removeprefix("$.") if request.path != "$" else None
            return self._reject(Refused(Fault.MALFORMED_REQUEST, message, param=param))
        self._body = event.data
        headers = self._head.headers
        path = headers.get(":path", "")
        inquiry = Inquiry(self._admitted, headers, path, request, self._reservation)
        self._deciding = decide(self._rules.policy, inquiry, self._counter)
        return self._go_on(None)

    def _go_on(self, answer: Answer | None) -> Action:
        """Let the decision run until it asks the ledger again or is made."""
        try:
            # A generator that has not started takes None, and nothing but None.
            return self._deciding.send(answer)  # type: ignore[arg-type]
        except StopIteration as finished:
            self.decision = finished.value
            return self._conclude(finished.value)

    def _conclude(self, decision: Decision) -> Action:
        outcome = decision.outcome
        if isinstance(outcome, Refused):
            return self._reject(outcome, answers.metadata_of(decision))
        budgets = self._rules.policy.tenants[decision.admitted.tenant].budgets
        return answers.route(
            decision,
            outcome,
            reservation=self._reservation,
            warnings=answers.warnings_of(budgets, outcome.balances),
            rewrite=self._rewrite(decision.request, outcome.model),
            is_observed=self._rules.is_observed,
        )

    def _rewrite(self, request: LlmRequest, model: str) -> answers.Rewrite | None:
        usage_splice = request.usage_splice if self._rules.asks_for_usage else None
        splices = [] if usage_splice is None else [usage_splice]
        if self._rules.rewrite_model and request.model != model:
            splices.append(Splice(request.model_span, msgspec.json.encode(model)))
        if not splices:
            return None
        return answers.Rewrite(spliced(self._body, splices), usage_splice is not None)

    def _reject(self, refused: Refused, metadata: dict[str, Any] | None = None) -> Reject:
        known = metadata or {"tenant": self._admitted.tenant}
        return answers.reject(self._dialect, refused, known)
