"""Row B7: when GPT-4 fails, the next model serves, before an answer began and never after.

The mesh is `istio/` as it is; where a test must wait for a time, all times are shorter by a factor.
"""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.harness import Answer, Mesh, chat, mark, running, until
from tests.conformance.quick import quicker

GPT4 = {"x-adapter-only": "gpt4-adapter"}
FACTOR = 60
"""90 s for a try are 1.5 s, an ejection of 120 s lasts two."""


@pytest.fixture(scope="module")
def quick(
    tmp_path_factory: pytest.TempPathFactory, adapters: Mapping[str, int], envoy_version: str
) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("fallback")
    wiring = {"edit": quicker(FACTOR)}
    telemetry = {"audit": "stdout"}
    with running(folder, adapters, envoy_version, wiring=wiring, telemetry=telemetry) as mesh:
        yield mesh


async def served_by_gpt4(mesh: Mesh) -> None:
    """Wait until the circuit is closed; then count of GPT-4's errors in a row is zero."""

    async def is_back() -> bool:
        return (await mesh.send(chat())).served_by == "gpt4-adapter"

    await until(is_back)


async def tried(mesh: Mesh, step: str) -> list[str]:
    return [entry.adapter for entry in await mesh.books(step)]


async def bill_of(mesh: Mesh, step: str) -> dict[str, Any]:
    """The audit's line about this request."""
    (record,) = await mesh.log.wait_for(step, count=1)
    found: list[dict[str, Any]] = []

    async def is_written() -> bool:
        said = (mesh.folder / "service.log").read_text().splitlines()
        lines = (json.loads(line) for line in said if line.startswith("{"))
        found.extend(each for each in lines if each["reservation"] == record.llm["reservation"])
        return bool(found)

    await until(is_written)
    return found[0]


def model_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["model"])


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_gpt4_cannot_serve_gpt35_does(quick: Mesh, status: int) -> None:
    await served_by_gpt4(quick)
    step = mark()

    answer = await quick.send(
        chat(temperature=0.5), step=step, headers=GPT4 | {"x-adapter-status": str(status)}
    )

    assert (answer.status, answer.served_by) == (200, "gpt35-adapter")
    assert model_of(answer) == "gpt-3.5-turbo"
    assert answer.headers["x-llm-tier"] == "premium"
    assert answer.headers["x-llm-fallback-from"] == "gpt-4"
    assert await tried(quick, step) == ["gpt4-adapter", "gpt35-adapter"]


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_what_no_other_model_would_mend_is_not_tried_again(quick: Mesh, status: int) -> None:
    await served_by_gpt4(quick)
    step = mark()

    answer = await quick.send(chat(), step=step, headers=GPT4 | {"x-adapter-status": str(status)})

    assert (answer.status, answer.served_by) == (status, "gpt4-adapter")
    assert await tried(quick, step) == ["gpt4-adapter"]


async def test_the_first_model_keeps_the_name_that_the_client_gave(quick: Mesh) -> None:
    await served_by_gpt4(quick)

    answer = await quick.send(chat(model="gpt-3.5-turbo"))

    assert (answer.served_by, model_of(answer)) == ("gpt4-adapter", "gpt-3.5-turbo")
    assert "x-llm-fallback-from" not in answer.headers


async def test_the_local_model_serves_when_both_fail(quick: Mesh) -> None:
    await served_by_gpt4(quick)
    step = mark()
    both = {"x-adapter-only": "gpt4-adapter,gpt35-adapter", "x-adapter-status": "429"}

    answer = await quick.send(chat(), step=step, headers=both)

    assert (answer.status, answer.served_by) == (200, "local-llama")
    assert model_of(answer) == "local-llama"
    assert await tried(quick, step) == ["gpt4-adapter", "gpt35-adapter", "local-llama"]


async def test_when_all_fail_the_client_gets_the_last_answer_and_pays_nothing(quick: Mesh) -> None:
    await served_by_gpt4(quick)
    step = mark()

    answer = await quick.send(chat(), step=step, headers={"x-adapter-status": "429"})

    assert answer.status == 429
    assert len(await tried(quick, step)) == 3
    assert (await bill_of(quick, step))["cost_micro_usd"] == 0


async def test_a_stream_falls_back_before_its_first_byte(quick: Mesh) -> None:
    await served_by_gpt4(quick)
    step = mark()
    body = chat(stream=True, max_tokens=20)

    answer = await quick.send(body, step=step, headers=GPT4 | {"x-adapter-status": "429"})

    events = [line for line in answer.body.split(b"\n\n") if line]
    assert (answer.status, answer.served_by) == (200, "gpt35-adapter")
    assert answer.headers["content-type"] == "text/event-stream"
    assert events[-1] == b"data: [DONE]"
    assert {json.loads(event[6:])["model"] for event in events[:-1]} == {"gpt-3.5-turbo"}
    # The usage that we asked for at the second model was taken off as at the first.
    assert not any(b'"usage"' in event and b'"choices": []' in event for event in events)
    assert (await bill_of(quick, step))["source"] == "usage"


async def test_nothing_is_tried_again_once_an_answer_began(quick: Mesh) -> None:
    await served_by_gpt4(quick)
    step = mark()

    with pytest.raises(Exception, match=r"payload|disconnected|reset"):
        await quick.send(chat(stream=True), step=step, headers=GPT4 | {"x-adapter-reset": "2"})

    assert await tried(quick, step) == ["gpt4-adapter"]


async def test_a_model_that_says_nothing_is_given_up(quick: Mesh) -> None:
    await served_by_gpt4(quick)
    step, began = mark(), time.monotonic()

    answer = await quick.send(chat(), step=step, headers=GPT4 | {"x-adapter-delay-ms": "10000"})

    assert (answer.status, answer.served_by) == (200, "gpt35-adapter")
    assert await tried(quick, step) == ["gpt4-adapter", "gpt35-adapter"]
    assert time.monotonic() - began >= 90 / FACTOR


async def test_whoever_serves_is_paid(quick: Mesh) -> None:
    """GPT-3.5's price, though GPT-4's was reserved."""
    await served_by_gpt4(quick)
    step = mark()

    headers = GPT4 | {"x-adapter-status": "429"}
    answer = await quick.send(chat(), step=step, tenant="priced", headers=headers)

    usage = json.loads(answer.body)["usage"]
    micro_usd = usage["prompt_tokens"] * 0.5 + usage["completion_tokens"] * 1.5
    line = await bill_of(quick, step)
    assert (line["source"], line["model"]) == ("usage", "gpt-3.5-turbo")
    assert line["cost_micro_usd"] == pytest.approx(micro_usd, abs=1)


async def test_an_open_circuit_goes_to_the_next_model_without_a_try(quick: Mesh) -> None:
    await served_by_gpt4(quick)
    failing = GPT4 | {"x-adapter-status": "503"}
    for _ in range(3):
        assert (await quick.send(chat(), headers=failing)).served_by == "gpt35-adapter"
    step, began = mark(), time.monotonic()

    answer = await quick.send(chat(), step=step)

    assert (answer.served_by, answer.headers["x-llm-fallback-from"]) == ("gpt35-adapter", "gpt-4")
    assert await tried(quick, step) == ["gpt35-adapter"]
    await served_by_gpt4(quick)
    assert time.monotonic() - began >= 0.5 * 120 / FACTOR


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that nobody listens to, and nobody else gets."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def test_a_model_that_cannot_be_reached_is_passed_over(
    tmp_path: Path, adapters: Mapping[str, int], envoy_version: str, dead_port: int
) -> None:
    gone = dict(adapters) | {"gpt4-adapter": dead_port}
    with running(tmp_path, gone, envoy_version) as mesh:
        answer = await mesh.send(chat())

    assert (answer.status, answer.served_by) == (200, "gpt35-adapter")
    assert answer.headers["x-llm-fallback-from"] == "gpt-4"
