"""What `bench.micro` times. Collected by its name alone, so no run of the tests comes here.

A stage works on what the stage before it left, and on a text that was never seen before. A
scenario is a whole call as our own transport hands it to us, from bytes to bytes; its text is
known after the first round, as that of an earlier turn is.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pytest
from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
)
from pytest_benchmark.fixture import BenchmarkFixture

from bench.corpus import chats
from extproc import app
from extproc.config.loader import load_file
from extproc.exchange.actions import ReadBody
from extproc.exchange.events import Event
from extproc.exchange.machine import Exchange
from extproc.ledgers import empty_ledger
from extproc.llm.dialects import Dialect
from extproc.llm.parse import parse_request
from extproc.llm.prompt import count_prompt
from extproc.llm.request import LlmRequest
from extproc.policy.budgets import Answer, Reserve
from extproc.server.h2.decision import Decision, Decisions
from extproc.wire.decode import decode
from extproc.wire.encode import encode
from tests.scenarios.harness import Bare
from tests.scenarios.table import SCENARIOS, SETTINGS, Call, Scenario

ROUNDS_VARIABLE: Final = "LLM_EXTPROC_BENCH_ROUNDS"
ROUNDS: Final = int(os.environ.get(ROUNDS_VARIABLE, "1"))
BODY_BYTES: Final = 2048
HEADERS: Final = {
    ":authority": "llm.example.com",
    ":path": "/v1/chat/completions",
    ":method": "POST",
    ":scheme": "http",
    "content-type": "application/json",
    "content-length": str(BODY_BYTES),
    "user-agent": "OpenAI/Python 3.54.0",
    "accept": "application/json",
    "x-stainless-lang": "python",
    "x-tenant-id": "rich",
    "x-forwarded-proto": "http",
    "x-request-id": "b5b1d6f2-6c5c-4a39-9f0a-1f2d3c4b5a69",
}
"""As Envoy sends them for OpenAI's SDK."""


class Heard:
    """Stands in for a call of our transport: takes answers, sends nothing."""

    is_late = False

    def __init__(self) -> None:
        self.is_open = True
        self.answers: list[bytes] = []

    def expect(self) -> None:
        """It comes at once."""

    def expect_no_more(self) -> None:
        """It has come."""

    def took(self, seconds: float) -> None:
        """Nobody waits for that."""

    def send(self, message: bytes) -> None:
        """Take it."""
        self.answers.append(message)

    def finish(self, *status: object) -> None:
        """Be over."""
        del status
        self.is_open = False


def head_of(headers: Mapping[str, str], *, is_all: bool = False) -> bytes:
    """The message in which Envoy shows a request's headers."""
    pairs = [HeaderValue(key=key, raw_value=value.encode()) for key, value in headers.items()]
    head = HttpHeaders(headers=HeaderMap(headers=pairs), end_of_stream=is_all)
    data: bytes = ProcessingRequest(request_headers=head).SerializeToString()
    return data


def body_of(body: bytes) -> bytes:
    """The message with its body."""
    whole = HttpBody(body=body, end_of_stream=True)
    data: bytes = ProcessingRequest(request_body=whole).SerializeToString()
    return data


BARE: Final = Bare(SETTINGS)
BODIES: Final[Iterator[bytes]] = chats(BODY_BYTES)
HEAD: Final = head_of(HEADERS)


def reserve(ask: Reserve) -> Answer:
    """Ask the ledger, by hand: in memory it never waits."""
    try:
        BARE.ledger.reserve(ask).send(None)
    except StopIteration as answer:
        found: Answer = answer.value
        return found
    raise AssertionError


class Way:
    """One request with a body of its own, and what the stages do with it."""

    def __init__(self) -> None:
        self.body = next(BODIES)
        self.message = body_of(self.body)
        self.exchange = Exchange(BARE.rules, BARE.counter, reservation=app.new_reservation())

    def headers(self, message: bytes = HEAD) -> Event:
        """Decode the first message."""
        return decode(ProcessingRequest.FromString(message), self.exchange.headers_read)

    def whole(self, message: bytes = b"") -> Event:
        """Decode the second."""
        return decode(ProcessingRequest.FromString(message or self.message))

    def parsed(self, body: bytes = b"") -> LlmRequest:
        """Parse the body."""
        request = parse_request(Dialect.OPENAI_CHAT, body or self.body)
        assert isinstance(request, LlmRequest)  # noqa: S101  # else nothing is measured
        return request

    def counted(self, request: LlmRequest) -> None:
        """Count its tokens."""
        model = BARE.rules.policy.models["gpt-4"]
        count_prompt(
            request, BARE.counter, model="gpt-4", encoding=model.encoding, scale=model.scale
        )

    def asked(self) -> Reserve:
        """Go as far as what the ledger is asked. The text is known by then."""
        work, subject = _decide(self)
        ask = work(subject)
        assert isinstance(ask, Reserve)  # noqa: S101  # as above
        return ask


Work = tuple[Callable[..., object], object]
"""What a stage does, and to what."""


def _nothing_known(way: Way) -> Work:
    return way.counted, way.parsed()


def _known(way: Way) -> Work:
    request = way.parsed()
    way.counted(request)
    return way.counted, request


def _decide(way: Way) -> Work:
    way.counted(way.parsed())
    way.exchange.receive(way.headers())
    return way.exchange.receive, way.whole()


def _conclude(way: Way) -> Work:
    return way.exchange.receive, reserve(way.asked())


def _answer(way: Way) -> Work:
    return encode, way.exchange.receive(reserve(way.asked()))


STAGES: Final[Mapping[str, Callable[[Way], Work]]] = {
    "decode headers": lambda way: (way.headers, HEAD),
    "who, and may it": lambda way: (way.exchange.receive, way.headers(HEAD)),
    "answer headers": lambda _: (encode, ReadBody()),
    "decode body": lambda way: (way.whole, way.message),
    "parse": lambda way: (way.parsed, way.body),
    "count, new": _nothing_known,
    "count, known": _known,
    "parse, count (known), decide": _decide,
    "reserve": lambda way: (reserve, way.asked()),
    "conclude": _conclude,
    "answer body": _answer,
}


@pytest.mark.parametrize("name", STAGES)
def test_stage(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = "stages"
    benchmark.name = name
    benchmark.pedantic(  # type: ignore[no-untyped-call]  # it has no types
        lambda work, subject: work(subject),
        setup=lambda: (STAGES[name](Way()), {}),
        rounds=ROUNDS,
        warmup_rounds=10,
    )


def messages_of(call: Call) -> tuple[bytes, bytes]:
    headers = {":method": call.method, ":path": call.path, **call.all_headers()}
    return head_of(headers, is_all=not call.body), body_of(call.body)


def one_call(decisions: Decisions, messages: tuple[bytes, bytes]) -> Heard:
    """Hand over the headers and, if we ask for it, the body."""
    heard: Any = Heard()
    decision = Decision(decisions, heard)
    for message in messages:
        if heard.is_open:
            decision.on_message(message)
    told: Heard = heard
    return told


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(benchmark: BenchmarkFixture, scenario: Scenario) -> None:
    loaded = load_file(SETTINGS)
    outcomes: list[str] = []

    def fresh() -> tuple[tuple[Decisions, tuple[bytes, bytes]], Mapping[str, object]]:
        decisions = Decisions(
            lambda name: Exchange(BARE.rules, BARE.counter, reservation=name),
            empty_ledger(loaded, app.clock),
            app.new_reservation,
            lambda _, reason, __: outcomes.append(reason),
        )
        for call in scenario.before:
            one_call(decisions, messages_of(call))
        return (decisions, messages_of(scenario.call)), {}

    benchmark.group = "scenarios"
    benchmark.name = scenario.name
    benchmark.pedantic(  # type: ignore[no-untyped-call]  # it has no types
        one_call, setup=fresh, rounds=ROUNDS, warmup_rounds=3
    )
    assert outcomes[-1] == scenario.reason  # noqa: S101  # a test, though it measures
