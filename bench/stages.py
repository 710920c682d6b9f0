"""Microseconds per stage of the pipeline, 2 KB chats that were never seen before.

.venv/bin/python -m bench.stages
"""

import statistics
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
)

from bench.corpus import chats
from extproc import app
from extproc.exchange.actions import ReadBody
from extproc.exchange.machine import Exchange
from extproc.ledger.port import Ledger
from extproc.llm.body import Malformed
from extproc.llm.dialects import Dialect
from extproc.llm.parse import parse_request
from extproc.llm.prompt import count_prompt
from extproc.llm.request import LlmRequest
from extproc.policy.budgets import Reserve
from extproc.wire.decode import decode
from extproc.wire.encode import encode
from tests.scenarios.harness import Bare
from tests.scenarios.table import SETTINGS

REQUESTS = 2000
ROUNDS = 5
BODY_BYTES = 2048

HEADERS = {
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


class Stages:
    """One request's way, stage by stage, over the same messages that Envoy sends."""

    def __init__(self, bodies: list[bytes]) -> None:
        self.bare = Bare(SETTINGS)
        self.bodies = bodies
        pairs = [HeaderValue(key=key, raw_value=value.encode()) for key, value in HEADERS.items()]
        head = HttpHeaders(headers=HeaderMap(headers=pairs))
        self.head = ProcessingRequest(request_headers=head).SerializeToString()
        self.bodies_on_the_wire = [
            ProcessingRequest(
                request_body=HttpBody(body=body, end_of_stream=True)
            ).SerializeToString()
            for body in bodies
        ]

    def run(self) -> dict[str, float]:
        """Return each stage's mean, in µs. Each stage works on what the stage before it left."""
        bare, model = self.bare, self.bare.rules.policy.models["gpt-4"]
        found: dict[str, float] = {}

        def stage(name: str, work: Callable[[Any], Any], things: list[Any]) -> list[Any]:
            begin = time.perf_counter()
            results = [work(thing) for thing in things]
            found[name] = (time.perf_counter() - begin) / len(things) * 1e6
            return results

        heads = stage(
            "decode headers",
            lambda data: decode(ProcessingRequest.FromString(data)),
            [self.head] * len(self.bodies),
        )
        exchanges = [
            Exchange(bare.rules, bare.counter, reservation=app.new_reservation()) for _ in heads
        ]
        stage(
            "who, and may it",
            lambda pair: pair[0].receive(pair[1]),
            list(zip(exchanges, heads, strict=True)),
        )
        stage("answer headers", lambda _: encode(ReadBody()), exchanges)
        bodies = stage(
            "decode body",
            lambda data: decode(ProcessingRequest.FromString(data)),
            self.bodies_on_the_wire,
        )
        requests = stage(
            "parse", lambda body: parse_request(Dialect.OPENAI_CHAT, body), self.bodies
        )
        stage("count", lambda request: count(bare, request, model), requests)
        asks = stage(
            "parse, count (known), decide",
            lambda pair: pair[0].receive(pair[1]),
            list(zip(exchanges, bodies, strict=True)),
        )
        answers = stage("reserve", lambda ask: reserve(bare.ledger, ask), asks)
        routes = stage(
            "conclude",
            lambda pair: pair[0].receive(pair[1]),
            list(zip(exchanges, answers, strict=True)),
        )
        stage("answer body", encode, routes)
        return found


def count(bare: Bare, request: LlmRequest | Malformed, model: Any) -> None:  # noqa: ANN401
    assert isinstance(request, LlmRequest)  # noqa: S101
    count_prompt(request, bare.counter, model="gpt-4", encoding=model.encoding, scale=model.scale)


def reserve(ledger: Ledger, ask: object) -> object:
    """Drive the coroutine by hand: in memory it never waits."""
    assert isinstance(ask, Reserve)  # noqa: S101
    try:
        ledger.reserve(ask).send(None)
    except StopIteration as answer:
        return answer.value
    raise AssertionError


def main() -> None:
    """Print the table: the median of several rounds, fresh bodies in each."""
    rounds = [
        Stages(list(islice(chats(BODY_BYTES, seed=number), REQUESTS))).run()
        for number in range(ROUNDS)
    ]
    print(f"\nStages, {BODY_BYTES} B chats never seen before, median of {ROUNDS} x {REQUESTS}, µs")
    total = 0.0
    for name in rounds[0]:
        value = statistics.median(found[name] for found in rounds)
        total += value
        print(f"  {name:<30}{value:8.1f}")
    print(f"  {'all (parse stands twice)':<30}{total:8.1f}")


if __name__ == "__main__":
    main()
