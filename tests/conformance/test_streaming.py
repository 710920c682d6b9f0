"""Answers stream as if the filter were not there, and bodies are what they were."""

import hashlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.conformance.harness import CHAT, DEADLINE_SECONDS, Mesh, chat, head, mark

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("path", "body", "last", "after"),
    [
        pytest.param(CHAT, {"messages": MESSAGES}, b'"stop"', b"data: [DONE]\n\n", id="chat"),
        pytest.param("/v1/completions", {"prompt": "Hi"}, b'"stop"', b"data: [DONE]\n\n", id="old"),
        pytest.param("/v1/responses", {"input": "Hi"}, b"response.completed", b"", id="responses"),
        pytest.param(
            "/v1/messages",
            {"messages": MESSAGES, "max_tokens": 500},
            b"message_stop",
            b"",
            id="messages",
        ),
    ],
)
async def test_each_event_arrives_before_the_next_is_sent(
    mesh: Mesh, path: str, body: dict[str, object], last: bytes, after: bytes
) -> None:
    step = mark()
    events: list[bytes] = []

    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_SECONDS)) as session,
        session.post(
            mesh.gateway.url + path,
            data=json.dumps({"model": "gpt-4", "stream": True, **body}),
            headers=head(step) | {"x-adapter-gate": step},
        ) as response,
    ):
        assert response.headers["content-type"] == "text/event-stream"
        while not events or last not in events[-1]:
            # The adapter writes one event when its gate opens, and no more.
            await mesh.open_gate(step)
            events.append(await response.content.readuntil(b"\n\n"))
        # The usage that the service asked for is an event too, which the client never sees.
        await mesh.open_gate(step)
        rest = await response.read()

    (record,) = await mesh.log.wait_for(step, count=1)
    assert (record.code, record.llm["stream"], rest) == (200, True, after)
    assert len(events) > 20
    assert all(event.count(b"data: ") == 1 for event in events)


ODD = (
    b'{ "messages" : [{"content":"\\u00e9\\ud83d\\ude00 \xe2\x82\xac","role":"user"}],\r\n'
    b'\t"model":"gpt-4", "seed":12345678901234567890, "x":1.50e+2 }\n'
)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(ODD, id="odd but sound JSON"),
        pytest.param(chat("hello " * 5_000), id="30 kB"),
        pytest.param(chat() + b" " * 3_000_000, id="more than Envoy buffers by default"),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["content-length", "chunked"])
async def test_the_body_reaches_the_upstream_unchanged(
    mesh: Mesh, body: bytes, is_chunked: bool
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    step = mark()

    answer = await mesh.send(pieces() if is_chunked else body, step=step)

    entry = await mesh.the_entry(step)
    assert answer.status == 200
    assert (entry.body_bytes, entry.body_sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert entry.header("content-length") == (None if is_chunked else str(len(body)))
