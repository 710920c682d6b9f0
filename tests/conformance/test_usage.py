"""Every stream tells its usage to us, and to those clients that asked for it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.harness import CHAT, Mesh, chat, mark, running

MONTHLY: Mapping[str, Any] = {
    "metered": {
        "plan": "premium",
        "budgets": [
            {"id": "month", "limit": 5, "unit": "usd", "window": {"calendar": "month"}},
            {"id": "minute", "limit": 9000, "unit": "tokens", "window": {"seconds": 60}},
        ],
    }
}


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The JSON of each event."""
    lines = [line.removeprefix(b"data: ") for line in body.splitlines() if line]
    assert lines[-1] == b"[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="no options"),
        pytest.param({"stream_options": {"include_usage": False}}, id="a client's false"),
        pytest.param({"stream_options": None}, id="null"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_a_client_that_did_not_ask_sees_no_usage_event_and_we_do(
    mesh: Mesh, path: str, options: dict[str, Any]
) -> None:
    step = mark()
    body = chat(stream=True, max_tokens=5, **options)
    if path != CHAT:
        body = json.dumps(
            {"model": "gpt-4", "prompt": "Hi", "max_tokens": 5, "stream": True, **options}
        ).encode()

    answer = await mesh.send(body, step=step, path=path, headers={"x-adapter-pause-ms": "1"})

    # As a naive client does it.
    said = "".join(
        choice.get("text") or choice["delta"].get("content") or ""
        for choice in (event["choices"][0] for event in events_of(answer.body))
    )
    assert len(said.split()) == 5
    (record,) = await mesh.log.wait_for(step, count=1)
    assert json.loads(record.llm["usage"])["completion_tokens"] == 5
    assert record.llm["completion_tokens_used"] == 5


async def test_a_client_that_asked_gets_it(mesh: Mesh) -> None:
    step = mark()
    body = chat(stream=True, max_tokens=5, stream_options={"include_usage": True})

    answer = await mesh.send(body, step=step, headers={"x-adapter-pause-ms": "1"})

    last = events_of(answer.body)[-1]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 5)
    assert (await mesh.the_entry(step)).body_bytes == len(body)


async def test_answers_come_in_plain_text_so_that_they_can_be_read(mesh: Mesh) -> None:
    step = mark()

    await mesh.send(chat(), step=step, headers={"accept-encoding": "gzip, br"})

    assert (await mesh.the_entry(step)).header("accept-encoding") is None


async def test_an_answer_says_how_budgets_stood_when_it_was_let_go(
    tmp_path: Path, adapters: Mapping[str, int], envoy_version: str
) -> None:
    with running(tmp_path, adapters, envoy_version, tenants=MONTHLY) as mesh:
        answer = await mesh.send(chat(max_tokens=100), tenant="metered")
        plain = await mesh.send(b"{}", tenant="metered", path="/v1/files")

    told = {name: value for name, value in answer.headers.items() if name.startswith("x-llm")}
    reset = told.pop("x-llm-budget-reset")
    assert told == {
        "x-llm-tier": "premium",
        "x-llm-budget-policy": "minute",
        "x-llm-budget-limit": "9000",
        "x-llm-budget-remaining": "8890",
    }
    assert 1 <= int(reset) <= 60
    assert answer.headers["ratelimit"] == f'"minute";r=8890;t={reset}'
    assert answer.headers["ratelimit-policy"] == '"minute";q=9000;w=60;llm-unit="tokens"'
    assert not any(name.startswith(("x-llm", "ratelimit")) for name in plain.headers)
