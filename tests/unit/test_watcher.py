"""extproc/server/watcher.py and extproc/wire/observed.py: what is seen of a stream."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Self

import pytest
from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue, Metadata
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
)
from google.protobuf.struct_pb2 import Struct

from extproc.exchange.sightings import Sighting
from extproc.llm.sse import AnswerMeter, Seen
from extproc.server import watcher
from extproc.server.watcher import SLICE_BYTES, Watcher
from tests.meter.answers import ANSWERS, EVENTS, SHORT, Answer

WANTED: Mapping[str, Any] = {"outcome": "routed", "meter": "observe", "reservation": "r1"}
SHORT_SEEN = Seen('{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}', "", 1, len(SHORT))


class World:
    def __init__(self) -> None:
        self.seen: list[Sighting] = []
        self.cases: Counter[str] = Counter()
        self.watcher = Watcher(self.seen.append, self._count)

    def _count(self, case: str) -> None:
        self.cases[case] += 1

    def watch(self, *messages: ProcessingRequest) -> None:
        """Watch a stream that ends after these."""
        asyncio.run(self.watcher.watch(messages[0], each(messages[1:])))


async def each(messages: Iterable[ProcessingRequest]) -> AsyncIterator[ProcessingRequest]:
    for message in messages:
        yield message


class Unread:
    """Nobody asks it for anything."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ProcessingRequest:
        raise AssertionError


def head(
    *more: tuple[str, bytes],
    status: bytes = b"200",
    content_type: str = EVENTS,
    noted: Mapping[str, Any] | None = WANTED,
    is_last: bool = False,
) -> ProcessingRequest:
    pairs = ((":status", status), ("content-type", content_type.encode()), *more)
    headers = [HeaderValue(key=key, raw_value=value) for key, value in pairs]
    message = ProcessingRequest(
        response_headers=HttpHeaders(headers=HeaderMap(headers=headers), end_of_stream=is_last),
        observability_mode=True,
    )
    if noted is not None:
        llm = Struct()
        llm.update(noted)
        message.metadata_context.CopyFrom(Metadata(filter_metadata={"llm": llm}))
    return message


def chunk(data: bytes, *, is_last: bool = False) -> ProcessingRequest:
    return ProcessingRequest(
        response_body=HttpBody(body=data, end_of_stream=is_last), observability_mode=True
    )


TRAILERS = ProcessingRequest(response_trailers=HttpTrailers())


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
@pytest.mark.parametrize("size", [1_000, 100_000])
def test_an_answer_is_seen_to_its_end(answer: Answer, size: int) -> None:
    world = World()
    pieces = [answer.body[at : at + size] for at in range(0, len(answer.body), size)]
    encoding = answer.content_encoding
    more = [("content-encoding", encoding.encode())] if encoding else []

    world.watch(
        head(*more, content_type=answer.content_type),
        *map(chunk, pieces),
        chunk(b"", is_last=True),
    )

    assert world.seen == [Sighting("r1", answer.seen, is_whole=True)]
    assert world.cases == {"watched": 1}


@pytest.mark.parametrize(
    ("messages", "seen"),
    [
        pytest.param([head(), chunk(SHORT, is_last=True)], SHORT_SEEN, id="with the last bytes"),
        pytest.param([head(), chunk(SHORT), TRAILERS], SHORT_SEEN, id="with trailers"),
        pytest.param([head(is_last=True)], Seen(), id="with the head"),
    ],
)
def test_a_stream_is_over_as_soon_as_the_answer_is(
    messages: list[ProcessingRequest], seen: Seen
) -> None:
    async def forever() -> AsyncIterator[ProcessingRequest]:
        for message in messages[1:]:
            yield message
        await asyncio.Event().wait()

    world = World()

    async def run() -> None:
        async with asyncio.timeout(5):
            await world.watcher.watch(messages[0], forever())

    asyncio.run(run())

    assert world.seen == [Sighting("r1", seen, is_whole=True)]


def test_of_a_stream_that_is_cut_off_is_told_what_was_seen() -> None:
    world = World()

    world.watch(head(), chunk(SHORT))

    assert world.seen == [Sighting("r1", SHORT_SEEN, is_whole=False)]
    assert world.cases == {"cut_off": 1}


def test_of_a_stream_that_is_cancelled_too() -> None:
    world = World()

    async def run() -> None:
        is_read = asyncio.Event()

        async def rest() -> AsyncIterator[ProcessingRequest]:
            yield chunk(SHORT)
            is_read.set()
            await asyncio.Event().wait()

        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(world.watcher.watch(head(), rest()))
            await is_read.wait()
            watching.cancel()

    asyncio.run(run())

    assert world.seen == [Sighting("r1", SHORT_SEEN, is_whole=False)]
    assert world.cases == {"cut_off": 1}


@pytest.mark.parametrize(
    ("first", "case"),
    [
        pytest.param(head(noted=None), "not_wanted", id="no metadata"),
        pytest.param(head(noted={}), "not_wanted", id="none of ours"),
        pytest.param(head(noted={**WANTED, "meter": 3}), "not_wanted", id="no text"),
        pytest.param(head(noted={**WANTED, "meter": "lua"}), "not_wanted", id="another meter"),
        pytest.param(head(noted={**WANTED, "outcome": "refused"}), "not_wanted", id="a refusal"),
        pytest.param(head(status=b"199"), "not_wanted", id="199"),
        pytest.param(head(status=b"300"), "not_wanted", id="300"),
        pytest.param(head(status="2\u00b2\u00b2".encode()), "not_wanted", id="no number"),
        pytest.param(head(status=b"0200"), "not_wanted", id="a number too long"),
        pytest.param(head((":status", b"200")), "not_wanted", id="two statuses"),
        pytest.param(head(noted={**WANTED, "reservation": ""}), "unnamed", id="no name"),
        pytest.param(head(noted={**WANTED, "reservation": 7}), "unnamed", id="a number"),
        pytest.param(head(noted={**WANTED, "reservation": "r" * 65}), "unnamed", id="a long name"),
        pytest.param(chunk(SHORT), "malformed", id="no head"),
        pytest.param(TRAILERS, "malformed", id="only trailers"),
        pytest.param(ProcessingRequest(), "malformed", id="nothing"),
    ],
)
def test_what_is_not_watched_is_let_go_at_once(first: ProcessingRequest, case: str) -> None:
    world = World()
    rest = each([]) if first == ProcessingRequest() else Unread()

    asyncio.run(world.watcher.watch(first, rest))

    assert (world.seen, world.cases) == ([], {case: 1})


def test_a_request_that_is_sent_in_vain_is_passed_over() -> None:
    world = World()
    request = ProcessingRequest(request_headers=HttpHeaders(), observability_mode=True)
    body = ProcessingRequest(request_body=HttpBody(body=b"{}"), observability_mode=True)

    world.watch(request, body, head(status=b"204", is_last=True))
    world.watch(request, body, body, head(status=b"204", is_last=True))

    assert [sighting.is_whole for sighting in world.seen] == [True]
    assert world.cases == {"watched": 1, "malformed": 1}


def test_messages_of_other_kinds_in_between_do_no_harm() -> None:
    world = World()

    world.watch(
        head(), chunk(SHORT[:50]), ProcessingRequest(), head(), chunk(SHORT[50:], is_last=True)
    )

    assert world.seen == [Sighting("r1", SHORT_SEEN, is_whole=True)]


def test_a_header_may_come_as_text() -> None:
    world = World()
    message = head()
    for header in message.response_headers.headers.headers:
        header.value, header.raw_value = header.raw_value.decode(), b""

    world.watch(message, chunk(SHORT, is_last=True))

    assert world.seen == [Sighting("r1", SHORT_SEEN, is_whole=True)]


def test_an_encoding_in_two_headers_is_one() -> None:
    world = World()

    world.watch(
        head(("content-encoding", b"identity"), ("content-encoding", b"gzip"), ("x", b"\xff")),
        chunk(b"\x1f\x8b", is_last=True),
    )

    assert world.seen == [Sighting("r1", Seen(bytes=2, error="encoded"), is_whole=True)]


def test_a_bug_in_the_meter_ends_the_stream_well_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(AnswerMeter):
        def take(self, chunk: bytes) -> None:
            super().take(chunk)
            if b"BUG" in chunk:
                msg = "a secret"
                raise ValueError(msg)

    monkeypatch.setattr(watcher, "AnswerMeter", Broken)
    world = World()

    world.watch(head(), chunk(SHORT), chunk(b"BUG"), chunk(SHORT, is_last=True))

    expected = SHORT_SEEN._replace(bytes=len(SHORT) + 3, error="bug")
    assert world.seen == [Sighting("r1", expected, is_whole=False)]
    assert world.cases == {"failed": 1}
    assert "watch.failed ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_beyond_so_many_streams_answers_go_by_unobserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "STREAMS_MAX", 2)
    world = World()

    async def run() -> None:
        gate = asyncio.Event()

        async def rest() -> AsyncIterator[ProcessingRequest]:
            await gate.wait()
            yield chunk(b"", is_last=True)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(world.watcher.watch(head(), rest()))
            await asyncio.sleep(0)
            await world.watcher.watch(head(), rest())
            assert world.cases == {"too_many": 1}
            gate.set()
        await world.watcher.watch(head(), rest())

    asyncio.run(run())

    assert world.cases == {"too_many": 1, "watched": 3}


def test_a_long_chunk_is_read_in_slices_between_which_others_have_their_turn() -> None:
    world = World()
    turns = 0

    async def run() -> None:
        nonlocal turns
        data = b"x" * (SLICE_BYTES * 10)
        is_over = False

        async def watch() -> None:
            nonlocal is_over
            await world.watcher.watch(head(), each([chunk(data, is_last=True)]))
            is_over = True

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch())
            while not is_over:
                await asyncio.sleep(0)
                turns += 1

    asyncio.run(run())

    assert turns >= 9
    assert world.seen[0].seen.bytes == SLICE_BYTES * 10
