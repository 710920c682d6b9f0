"""`meter: observe` through real Envoys: what is seen of answers, and what is charged for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from extproc.exchange.sightings import EVENT_BYTES
from extproc.server.meeting import PARK_SECONDS
from tests.conformance.harness import CHAT, DEADLINE_SECONDS, Mesh, chat, head, mark, running, until
from tests.conformance.test_meter import BY_NAME, SMALL_BYTES, WORD, head_of, split
from tests.meter.answers import ANSWERS, EVENTS, JSON, SHORT, Answer
from tests.meter.observing import PROMPT_TOKENS, World, listening, observing, world
from tests.meter.stand import Got, Stand, stand


@pytest.fixture(scope="module")
def observer(tmp_path_factory: pytest.TempPathFactory, envoy_version: str) -> Iterator[Stand]:
    with stand(envoy_version, tmp_path_factory.mktemp("observe"), rewire=observing) as shared:
        yield shared


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, envoy_version: str) -> Iterator[Stand]:
    """One that soon tells of an answer that was broken off."""
    rewire = partial(observing, deferred_seconds=0.3)
    with stand(envoy_version, tmp_path_factory.mktemp("hasty"), rewire=rewire) as shared:
        yield shared


@pytest.fixture
def folder(observer: Stand) -> Iterator[Path]:
    """Where Envoy looks for the service; no ledger is there yet."""
    yield observer.folder
    forget(observer.folder)


@pytest.fixture
def hasty_folder(hasty: Stand) -> Iterator[Path]:
    yield hasty.folder
    forget(hasty.folder)


def forget(folder: Path) -> None:
    for file in folder.glob("ledger.db*"):
        file.unlink()


def settled_in(log: Path) -> list[dict[str, Any]]:
    """The lines of the audit, in the order in which requests began."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return sorted(lines, key=lambda line: line["started"])


def owed(answer: Answer) -> int:
    """What an answer costs, in tokens."""
    if answer.numbers is not None:
        return answer.numbers[2]
    if answer.content_type != JSON:
        return PROMPT_TOKENS + answer.events
    return PROMPT_TOKENS - (-len(answer.body) // 4)


async def sent(
    observer: Stand, it: World, name: str, answer: Answer, pieces: Sequence[bytes]
) -> Got:
    """Send an answer; each piece has passed before the next."""
    llm = await it.admit(name, stream=answer.content_type != JSON)
    async with observer.upstream() as upstream, upstream.exchange(llm=llm) as exchange:
        await exchange.begin(*head_of(answer))
        for piece in filter(None, pieces):
            await exchange.pass_on(piece)
        return await exchange.finish()


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
async def test_an_answer_is_charged_what_it_says_and_not_touched(
    observer: Stand, folder: Path, answer: Answer
) -> None:
    size = 65_536 if len(answer.body) > SMALL_BYTES else max(len(answer.body) // 5, 1)
    async with world(folder) as it:
        got = await sent(observer, it, "r1", answer, split(answer.body, size))
        noted = (await it.settled("r1")).outcome.noted

        assert (got.body, got.is_whole) == (answer.body, True)
        assert (
            noted.usage,
            noted.usage_start,
            noted.events,
            noted.bytes,
            noted.meter_error,
        ) == answer.seen
        assert await it.charged() == owed(answer)
        await it.comes_to(watched=1, met=1)


# --- The two ways by which it comes


@pytest.mark.parametrize("comes_first", ["record", "sighting"])
async def test_record_and_sighting_meet_whichever_comes_first(
    observer: Stand, folder: Path, comes_first: str
) -> None:
    async with world(folder) as it:
        it.holds_sightings = comes_first == "record"
        if comes_first == "sighting":
            it.lets_records_in.clear()
        await sent(observer, it, "r1", BY_NAME["chat"], [BY_NAME["chat"].body])
        await it.until(lambda: it.meeting.size == ((1, 0) if it.holds_sightings else (0, 1)))
        assert it.told == {}

        it.lets_records_in.set()
        for sighting in it.sightings:
            it.meeting.see(sighting)

        summary = await it.settled("r1")
        assert summary.bill is not None
        assert (summary.bill.source, await it.charged()) == ("usage", 22)
        await it.comes_to(watched=1, met=1)
        assert it.notes() == []


@pytest.mark.parametrize("relayed", [(), ("x-test-relayed: 1",)], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("trailers", ["", "x-checksum: 1\r\n"], ids=["", "trailers"])
async def test_http2_and_trailers_are_observed_to_the_end(
    observer: Stand, folder: Path, relayed: tuple[str, ...], trailers: str
) -> None:
    async with world(folder) as it:
        llm = await it.admit("r1")
        async with (
            observer.upstream() as upstream,
            upstream.exchange(llm=llm, port="front", headers=relayed) as exchange,
        ):
            await exchange.begin(f"content-type: {EVENTS}")
            await exchange.pass_on(SHORT)
            got = await exchange.finish(trailers)

        assert (got.body, got.is_whole) == (SHORT, True)
        await it.settled("r1")
        assert await it.charged() == 8
        # Not after Envoy's `deferred_close_timeout`, which would say `cut_off`.
        await it.comes_to(watched=1, met=1)
        await it.until(lambda: observer.stat("cluster.llm-extproc.upstream_rq_active") == 0)


async def test_an_answer_that_its_client_abandons_is_charged_what_was_seen(
    hasty: Stand, hasty_folder: Path
) -> None:
    async with world(hasty_folder) as it:
        llm = await it.admit("r1")
        async with hasty.upstream() as upstream, upstream.exchange(llm=llm) as exchange:
            await exchange.begin(f"content-type: {EVENTS}")
            for _ in range(5):
                await exchange.pass_on(WORD)
            exchange.hang_up()
            await it.until(lambda: it.meeting.size == (1, 0))
            summary = await it.settled("r1")

        assert summary.bill is not None
        assert (summary.bill.source, summary.outcome.is_aborted) == ("estimated", True)
        assert await it.charged() == PROMPT_TOKENS + 5
        await it.comes_to(cut_off=1, met=1)


async def test_an_answer_that_its_upstream_breaks_off_is_charged_what_was_seen(
    hasty: Stand, hasty_folder: Path
) -> None:
    async with world(hasty_folder) as it:
        llm = await it.admit("r1")
        async with hasty.upstream() as upstream, upstream.exchange(llm=llm) as exchange:
            await exchange.begin(f"content-type: {EVENTS}")
            await exchange.pass_on(WORD)
            got = await exchange.break_off()

        summary = await it.settled("r1")
        assert (got.is_whole, summary.outcome.is_aborted) == (False, True)
        assert await it.charged() == PROMPT_TOKENS + 1


# --- What is not observed


@pytest.mark.parametrize(
    ("status", "noted"),
    [
        pytest.param(200, {"meter": "lua"}, id="a record that waits for nothing"),
        pytest.param(200, {"outcome": "refused"}, id="a refusal"),
        pytest.param(429, {}, id="an error"),
    ],
)
async def test_nobody_watches_what_no_record_asks_for(
    observer: Stand, folder: Path, status: int, noted: Mapping[str, str]
) -> None:
    async with world(folder) as it:
        llm = await it.admit("r1", noted)
        async with observer.upstream() as upstream, upstream.exchange(llm=llm) as exchange:
            await exchange.begin(f"content-type: {EVENTS}", status=status)
            for _ in range(3):
                await exchange.pass_on(WORD * 1_000)
            got = await exchange.finish()

        assert (got.body, got.is_whole) == (WORD * 3_000, True)
        await it.settled("r1")
        await it.comes_to(not_wanted=1)
        assert it.meeting.size == (0, 0)


async def test_an_answer_of_envoy_itself_waits_for_nothing(observer: Stand, folder: Path) -> None:
    async with world(folder) as it:
        llm = await it.admit("r1")
        async with (
            observer.upstream() as upstream,
            upstream.exchange(llm=llm, headers=["x-test-gone: 1"]) as exchange,
        ):
            await exchange.read_head()
            await exchange.rest()

        summary = await it.settled("r1")
        assert summary.bill is not None
        assert (summary.bill.source, await it.charged()) == ("zero", 0)


# --- A service that is not there


async def test_without_the_service_answers_stream_and_are_charged_by_their_length(
    observer: Stand, folder: Path
) -> None:
    failed = "http.gateway.ext_proc.observe.failure_mode_allowed"
    before = observer.stat(failed)
    async with world(folder) as it:
        llm = await it.admit("r1")
    async with observer.upstream() as upstream, upstream.exchange(llm=llm) as exchange:
        await exchange.begin(f"content-type: {EVENTS}")
        for _ in range(10):
            await exchange.pass_on(WORD)
        got = await exchange.finish()

    assert (got.body, got.is_whole) == (WORD * 10, True)
    assert observer.stat(failed) > before
    async with world(folder) as it:
        await it.until(lambda: it.meeting.size == (1, 0))
        it.clock.now += PARK_SECONDS
        summary = await it.settled("r1")
        assert summary.outcome.noted.meter_error == "unobserved"
        assert await it.charged() == PROMPT_TOKENS + len(got.body) // EVENT_BYTES
        await it.comes_to(unobserved=1)


async def test_a_service_that_dies_in_the_middle_does_not_disturb_the_answer(
    observer: Stand, folder: Path
) -> None:
    async with observer.upstream() as upstream, AsyncExitStack() as stack:
        async with world(folder) as it:
            llm = await it.admit("r1")
            exchange = await stack.enter_async_context(upstream.exchange(llm=llm))
            await exchange.begin(f"content-type: {EVENTS}")
            await exchange.pass_on(WORD)
            await it.until(lambda: it.begun == 1)
        for _ in range(10):
            await exchange.pass_on(WORD)
        got = await exchange.finish()

    assert (got.body, got.is_whole) == (WORD * 11, True)
    async with world(folder) as it:
        await it.until(lambda: it.meeting.size == (1, 0))
        it.clock.now += PARK_SECONDS
        await it.settled("r1")
        assert await it.charged() == PROMPT_TOKENS + len(got.body) // EVENT_BYTES


@pytest.mark.parametrize(
    ("ends", "owes", "cases"),
    [
        pytest.param(
            "killed", PROMPT_TOKENS + len(SHORT) // EVENT_BYTES, "unobserved", id="killed"
        ),
        pytest.param("in peace", 8, "met", id="in peace"),
    ],
)
async def test_a_restart_between_sighting_and_record(
    observer: Stand, folder: Path, ends: str, owes: int, cases: str
) -> None:
    async with world(folder) as it:
        it.lets_records_in.clear()
        await sent(observer, it, "r1", BY_NAME["chat, short"], [SHORT])
        await it.until(lambda: it.meeting.size == (0, 1))
        if ends == "in peace":
            await it.parking.leave()
    assert it.told == {}

    async with world(folder) as it:
        if ends == "killed":
            await it.until(lambda: it.meeting.size == (1, 0))
            it.clock.now += PARK_SECONDS
        await it.settled("r1")
        assert await it.charged() == owes
        await it.comes_to(**{cases: 1})
        await it.until(lambda: not it.notes())


async def test_a_restart_between_record_and_sighting(observer: Stand, folder: Path) -> None:
    async with world(folder) as it:
        it.holds_sightings = True
        await sent(observer, it, "r1", BY_NAME["chat, short"], [SHORT])
        await it.until(lambda: it.meeting.size == (1, 0))

    async with world(folder) as it:
        assert it.meeting.size == (1, 0)
        assert it.told == {}
        it.clock.now += PARK_SECONDS
        await it.settled("r1")
        assert await it.charged() == PROMPT_TOKENS + len(SHORT) // EVENT_BYTES
        assert it.notes() == []


async def test_a_service_that_does_not_read_does_not_hold_up_an_answer_of_usual_length(
    observer: Stand, folder: Path
) -> None:
    async def wait(_: AsyncIterator[bytes]) -> None:
        await gate.wait()

    gate = asyncio.Event()
    llm = "outcome=routed;meter=observe;tier=premium;reservation=r1"
    async with (
        listening(folder, wait),
        observer.upstream() as upstream,
        upstream.exchange(llm=llm) as exchange,
    ):
        await exchange.begin(f"content-type: {EVENTS}")
        for _ in range(100):
            await exchange.pass_on(WORD * 200)
        got = await exchange.finish()
        gate.set()

    assert (got.body, got.is_whole) == (WORD * 20_000, True)


# --- The whole mesh


async def leave_after_three_events(mesh: Mesh, step: str) -> None:
    """Ask for a stream, and close the connection in the middle of it."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_SECONDS)) as session,
        session.post(
            mesh.gateway.url + CHAT,
            data=chat(stream=True, max_tokens=1_000),
            headers=head(step) | {"x-adapter-pause-ms": "20"},
        ) as response,
    ):
        for _ in range(3):
            await response.content.readuntil(b"\n\n")
        response.close()


async def test_the_mesh_settles_what_it_observes(
    tmp_path: Path, adapters: Mapping[str, int], envoy_version: str
) -> None:
    day = {"id": "day", "limit": 100_000, "unit": "tokens", "window": {"calendar": "day"}}
    changes: dict[str, Any] = {
        "tenants": {"acme": {"plan": "premium", "budgets": [day]}},
        "meter": "observe",
    }
    step = mark()
    with running(tmp_path, adapters, envoy_version, wiring={"meter": "observe"}, **changes) as mesh:
        pause = {"x-adapter-pause-ms": "1"}
        await leave_after_three_events(mesh, step)
        whole = await mesh.send(chat(max_tokens=7), step=step)
        asked: dict[str, Any] = {"stream_options": {"include_usage": True}}
        told = await mesh.send(chat(stream=True, max_tokens=5, **asked), step=step, headers=pause)
        untold = await mesh.send(chat(stream=True, max_tokens=5), step=step, headers=pause)
        records = await mesh.log.wait_for(step, count=4)

        async def are_settled() -> bool:
            return len(settled_in(mesh.service.log)) == 4

        await until(are_settled)

    assert b'"usage"' in told.body
    assert b'"usage"' not in untold.body
    assert not [name for name in whole.headers if name.startswith("x-llm")]
    assert {record.llm["meter"] for record in records} == {"observe"}
    left, *others = settled_in(mesh.service.log)
    charged = [(line["source"], line["charges"][0]["amount"]) for line in others]
    # The mock's own count; then the prompt as we counted it, and six events with output.
    assert charged == [("usage", 9), ("usage", 7), ("estimated", 16)]
    assert (left["source"], left["aborted"], left["meter_error"]) == ("estimated", True, "")
    assert left["completion_tokens"] >= 3
