"""What the self-test asks with: one request as Envoy brings it, and what became of it."""

import json
from hashlib import sha256
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

from extproc.exchange.holds import holds_of
from extproc.exchange.machine import Rules
from extproc.exchange.names import METADATA_NAMESPACE
from extproc.policy.identity import JWT_NAMESPACE, IdentitySource
from extproc.server.h2 import answers
from extproc.server.h2.decision import Decision
from extproc.server.h2.heads import Head

PATH: Final = "/v1/chat/completions"

_KEY: Final = "self-test"
_HEADER: Final = "x-self-test"


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


def chat(model: str) -> bytes:
    """Make the body of a small chat with this model."""
    message = {"role": "user", "content": "Hi"}
    return json.dumps({"model": model or "any", "max_tokens": 1, "messages": [message]}).encode()


def introduced(rules: Rules, name: str | None) -> tuple[Rules, ProcessingRequest]:
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


class Envoy:
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
