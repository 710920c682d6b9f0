"""Refusals, as the official SDKs understand them: which exception, after how many attempts."""

import asyncio
import datetime as dt
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from extproc.demo.accesslog import Record
from extproc.demo.clients import STEP_HEADER, Sdks, sdks
from tests.conformance.harness import CHAT, Mesh, chat, mark, running

LIMIT_BYTES = 8_388_608
NARROW_BYTES = 65_536
RATE_LIMITED = (openai.RateLimitError, anthropic.RateLimitError)
LONG = "and then it said again what it had said before, " * 2000
MESSAGES: list[Any] = [{"role": "user", "content": "Say hello."}]
OPENAI: Mapping[str, Any] = {"model": "gpt-4", "messages": MESSAGES}
ANTHROPIC: Mapping[str, Any] = {"model": "gpt-4", "messages": MESSAGES, "max_tokens": 60}


@asynccontextmanager
async def calling(mesh: Mesh, tenant: str) -> AsyncIterator[Sdks]:
    """Both SDKs with the tenant's key, and their own number of retries."""
    both = sdks(mesh.gateway.url, f"sk-{tenant}")
    async with aclosing(both):
        yield both


async def ask_openai(both: Sdks, step: str, **more: Any) -> None:
    chats: Any = both.openai.chat.completions
    await chats.create(extra_headers={STEP_HEADER: step}, **{**OPENAI, **more})


async def ask_anthropic(both: Sdks, step: str, **more: Any) -> None:
    messages: Any = both.anthropic.messages
    await messages.create(extra_headers={STEP_HEADER: step}, **{**ANTHROPIC, **more})


class Refusal(NamedTuple):
    """A tenant, a change of the call, and what comes of it in each SDK."""

    tenant: str
    more: Mapping[str, Any]
    status: int
    reason: str
    openai_error: type[openai.APIStatusError]
    openai_code: str | None
    anthropic_error: type[anthropic.APIStatusError]
    anthropic_type: str


REFUSALS = {
    "an unknown key": Refusal(
        "nobody",
        {},
        401,
        "unknown_tenant",
        openai.AuthenticationError,
        "invalid_api_key",
        anthropic.AuthenticationError,
        "authentication_error",
    ),
    "wrong types": Refusal(
        "acme",
        {"messages": [{"role": "user", "content": 7}]},
        400,
        "malformed_request",
        openai.BadRequestError,
        None,
        anthropic.BadRequestError,
        "invalid_request_error",
    ),
    "a prompt over the context": Refusal(
        "acme",
        {"messages": [{"role": "user", "content": LONG}]},
        400,
        "context_exceeded",
        openai.BadRequestError,
        "context_length_exceeded",
        anthropic.BadRequestError,
        "invalid_request_error",
    ),
    "more than the budget can ever hold": Refusal(
        "small",
        {"max_tokens": 100},
        400,
        "budget_too_small",
        openai.BadRequestError,
        "budget_too_small",
        anthropic.BadRequestError,
        "invalid_request_error",
    ),
    "an unknown model": Refusal(
        "acme",
        {"model": "gpt-99"},
        404,
        "unknown_model",
        openai.NotFoundError,
        "model_not_found",
        anthropic.NotFoundError,
        "not_found_error",
    ),
    "a suspended tenant": Refusal(
        "suspended",
        {},
        429,
        "tenant_suspended",
        openai.RateLimitError,
        "insufficient_quota",
        anthropic.RateLimitError,
        "rate_limit_error",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_openais_sdk_raises_what_it_should_at_the_first_attempt(
    mesh: Mesh, refusal: Refusal
) -> None:
    step = mark()

    async with calling(mesh, refusal.tenant) as both:
        with pytest.raises(refusal.openai_error) as raised:
            await ask_openai(both, step, **refusal.more)

    assert (raised.value.status_code, raised.value.code) == (refusal.status, refusal.openai_code)
    await check_refused_once(mesh, step, refusal)


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_anthropics_sdk_raises_what_it_should_at_the_first_attempt(
    mesh: Mesh, refusal: Refusal
) -> None:
    step = mark()

    async with calling(mesh, refusal.tenant) as both:
        with pytest.raises(refusal.anthropic_error) as raised:
            await ask_anthropic(both, step, **refusal.more)

    body: Any = raised.value.body
    assert (raised.value.status_code, body["type"]) == (refusal.status, "error")
    assert body["error"]["type"] == refusal.anthropic_type
    await check_refused_once(mesh, step, refusal)


async def check_refused_once(mesh: Mesh, step: str, refusal: Refusal) -> None:
    records = await mesh.log.wait_for(step, count=1)
    assert [(r.code, r.details) for r in records] == [(refusal.status, f"llm_{refusal.reason}")]
    assert records[0].llm["reason"] == refusal.reason
    assert await mesh.books(step) == []


@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic], ids=["openai", "anthropic"])
async def test_a_quota_that_is_gone_is_not_tried_again(mesh: Mesh, ask: Any) -> None:
    step = mark()

    async with calling(mesh, "spent") as both:
        with suppress(*RATE_LIMITED):  # the other SDK's test may have spent it
            await ask(both, mark(), max_tokens=100)
        with pytest.raises(RATE_LIMITED) as raised:
            await ask(both, step, max_tokens=100)

    records = await mesh.log.wait_for(step, count=1)
    assert [r.details for r in records] == ["llm_budget_exhausted"]
    headers = headers_of(raised.value)
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers
    assert headers["x-llm-budget-policy"] == "year"


@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic], ids=["openai", "anthropic"])
async def test_an_sdk_waits_as_long_as_it_is_told_and_gets_through(mesh: Mesh, ask: Any) -> None:
    """Two at once into a budget of one a second: one has to wait, unless a new second began."""
    refused: list[tuple[Record, float]] = []

    async with calling(mesh, "one-a-second") as both:
        patient = both._replace(
            openai=both.openai.with_options(max_retries=9),
            anthropic=both.anthropic.with_options(max_retries=9),
        )
        while not refused:
            steps = [mark(), mark()]
            await asyncio.gather(*(ask(patient, step, max_tokens=5) for step in steps))
            attempts = [await mesh.log.wait_for(step, count=1) for step in steps]
            assert all(records[-1].code == 200 for records in attempts)
            refused = [pair for records in attempts for pair in waits(records)]

    for record, waited_seconds in refused:
        assert record.details == "llm_rate_limited"
        assert record.retry_after is not None
        assert waited_seconds >= record.retry_after


def waits(records: list[Record]) -> list[tuple[Record, float]]:
    """Each attempt that was tried again, and how long after its end."""
    return [
        (record, after.started - record.started - record.duration_ms / 1000)
        for record, after in itertools.pairwise(records)
    ]


@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic], ids=["openai", "anthropic"])
async def test_an_sdk_is_told_not_to_wait_for_an_hour(mesh: Mesh, ask: Any) -> None:
    step = mark()
    # Hours begin half an hour apart in the two: one of them has at least that much left.
    is_first_half = dt.datetime.now(dt.UTC).minute < 30
    tenant = "one-an-hour" if is_first_half else "one-an-hour-in-kolkata"

    async with calling(mesh, tenant) as both:
        with suppress(*RATE_LIMITED):  # the other SDK's test may have had it
            await ask(both, mark(), max_tokens=5)
        with pytest.raises(RATE_LIMITED) as raised:
            await ask(both, step, max_tokens=5)

    records = await mesh.log.wait_for(step, count=1)
    assert [r.details for r in records] == ["llm_rate_limited"]
    headers = headers_of(raised.value)
    assert int(headers["retry-after"]) > 60
    assert headers["x-should-retry"] == "false"
    assert headers["content-type"] == "application/json"
    assert headers["ratelimit-policy"] == '"hour";q=1;w=3600'


def headers_of(error: BaseException) -> Mapping[str, str]:
    assert isinstance(error, openai.APIStatusError | anthropic.APIStatusError)
    return error.response.headers


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


def padded(size: int) -> bytes:
    """A call that is this long and has little to count."""
    body = chat()
    return body + b" " * (size - len(body))


@pytest.mark.parametrize("is_chunked", [False, True], ids=["content-length", "chunked"])
async def test_a_body_may_be_as_large_as_the_limit(mesh: Mesh, is_chunked: bool) -> None:
    body = padded(LIMIT_BYTES)

    answer = await mesh.send(pieces(body) if is_chunked else body)

    assert answer.status == 200


@pytest.mark.parametrize("is_chunked", [False, True], ids=["content-length", "chunked"])
async def test_a_body_over_the_limit_is_refused_in_the_sdks_shape(
    mesh: Mesh, is_chunked: bool
) -> None:
    step, body = mark(), padded(LIMIT_BYTES + 1)

    answer = await mesh.send(pieces(body) if is_chunked else body, step=step)

    (record,) = await mesh.log.wait_for(step, count=1)
    assert (answer.status, record.details) == (413, "llm_request_too_large")
    assert b'"code":"request_too_large"' in answer.body
    assert await mesh.books(step) == []


async def test_a_body_that_envoy_cannot_buffer_is_refused_by_envoy(mesh: Mesh) -> None:
    step, body = mark(), padded(LIMIT_BYTES + 4_000_000)

    answer = await mesh.send(pieces(body), step=step)

    (record,) = await mesh.log.wait_for(step, count=1)
    assert (answer.status, record.details) == (413, "request_payload_too_large")
    assert await mesh.books(step) == []


@pytest.fixture(scope="module")
def narrow(
    tmp_path_factory: pytest.TempPathFactory, adapters: Mapping[str, int], envoy_version: str
) -> Iterator[Mesh]:
    """A mesh that takes small bodies only."""
    folder = tmp_path_factory.mktemp("narrow")
    limits = {"request_body_bytes": NARROW_BYTES}
    with running(folder, adapters, envoy_version, wiring=limits, limits=limits) as mesh:
        yield mesh


@pytest.mark.parametrize(
    ("ask", "error"),
    [(ask_openai, openai.APIStatusError), (ask_anthropic, anthropic.RequestTooLargeError)],
    ids=["openai", "anthropic"],
)
async def test_an_sdk_is_told_that_its_body_is_too_large(
    narrow: Mesh, ask: Any, error: Any
) -> None:
    """A body that is much larger than what sockets buffer is cut off: Envoy reads no further."""
    step, text = mark(), "x" * NARROW_BYTES

    async with calling(narrow, "acme") as both:
        with pytest.raises(error) as raised:
            await ask(both, step, messages=[{"role": "user", "content": text}])

    records = await narrow.log.wait_for(step, count=1)
    assert raised.value.status_code == 413
    assert [record.details for record in records] == ["llm_request_too_large"]


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"content-encoding": "gzip"}, 415, "unsupported_media_type"),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({}, 400, "malformed_request"),
    ],
    ids=["compressed", "not JSON by name", "not JSON"],
)
async def test_what_cannot_be_read_is_refused(
    mesh: Mesh, headers: Mapping[str, str], status: int, reason: str
) -> None:
    step = mark()

    answer = await mesh.send(b"\x1f\x8b\x08", step=step, path=CHAT, headers=headers)

    (record,) = await mesh.log.wait_for(step, count=1)
    assert (answer.status, record.details) == (status, f"llm_{reason}")
    assert await mesh.books(step) == []
