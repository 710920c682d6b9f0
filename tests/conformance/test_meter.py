"""`istio/meter.lua` in real Envoys: what it notes, what it leaves alone, and what it cuts out."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from extproc.llm.sse import Seen
from tests.meter.answers import (
    ANSWERS,
    CHAT,
    CHAT_CUT,
    EVENTS,
    JSON,
    SHORT,
    SHORT_CUT,
    Answer,
    data,
)
from tests.meter.stand import DIRECT, ROUTED, Got, Stand, Upstream, stand

SMALL_BYTES = 4_000
CUTTING = ROUTED + ";strip_usage=true"
BY_NAME = {answer.name: answer for answer in ANSWERS}
WORD = data('{"choices":[{"delta":{"content":"x"}}]}')
EXTRA = data('{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}')


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory, envoy_version: str) -> Iterator[Stand]:
    with stand(envoy_version, tmp_path_factory.mktemp("meter")) as shared:
        yield shared


def seen(llm: dict[str, Any]) -> Seen:
    words = [llm.get(name, "") for name in ("usage", "usage_start", "meter_error")]
    return Seen(words[0], words[1], llm.get("events", 0), llm.get("bytes", 0), words[2])


def numbers(llm: dict[str, Any]) -> tuple[int, int, int] | None:
    names = ("prompt_tokens_used", "completion_tokens_used", "total_tokens_used")
    one, two, three = (llm.get(name) for name in names)
    return None if one is None or two is None or three is None else (one, two, three)


def head_of(answer: Answer) -> list[str]:
    lines = [f"content-type: {answer.content_type}"]
    return lines + [f"content-encoding: {answer.content_encoding}"] * bool(answer.content_encoding)


async def sent(upstream: Upstream, pieces: Sequence[bytes], *headers: str, **request: Any) -> Got:
    """Send an answer; each piece is passed on before the next."""
    async with upstream.exchange(**request) as exchange:
        await exchange.begin(*headers)
        for piece in filter(None, pieces):
            await exchange.pass_on(piece)
        return await exchange.finish()


async def sent_and_cut(upstream: Upstream, pieces: Sequence[bytes], **request: Any) -> Got:
    """Send an answer that is not passed on as it is; each piece is read before the next."""
    async with upstream.exchange(llm=CUTTING, **request) as exchange:
        await exchange.begin(f"content-type: {EVENTS}")
        for piece in filter(None, pieces):
            await exchange.send_and_see(piece)
        return await exchange.finish()


def split(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


# --- What is noted


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
async def test_an_answer_is_noted_and_not_touched(meter: Stand, answer: Answer) -> None:
    size = 65_536 if len(answer.body) > SMALL_BYTES else max(len(answer.body) // 5, 1)
    async with meter.upstream() as upstream:
        got = await sent(upstream, split(answer.body, size), *head_of(answer))

    llm = (await meter.record(got)).llm
    assert (seen(llm), numbers(llm)) == (answer.seen, answer.numbers)
    assert got.is_whole
    assert got.body == answer.body


@pytest.mark.parametrize(
    "name", ["chat, short", "CR", "byte order mark before usage", "JSON, twice"]
)
async def test_an_answer_may_be_cut_in_two_anywhere(meter: Stand, name: str) -> None:
    answer = BY_NAME[name]
    body = answer.body
    async with meter.upstream() as upstream:
        answers = [
            await sent(upstream, [body[:at], body[at:]], *head_of(answer))
            for at in range(1, len(body))
        ]

    for at, got in enumerate(answers, 1):
        assert (seen((await meter.record(got)).llm), got.body) == (answer.seen, body), at


@pytest.mark.parametrize("name", ["chat", "CRLF", "Anthropic", "several data lines"])
async def test_an_answer_may_come_byte_by_byte(meter: Stand, name: str) -> None:
    answer = BY_NAME[name]
    async with meter.upstream() as upstream:
        got = await sent(upstream, split(answer.body, 1), *head_of(answer))

    llm = (await meter.record(got)).llm
    assert (seen(llm), got.body) == (answer.seen, answer.body)
    assert ("tokens_per_second" in llm) is (llm["completion_tokens_used"] > 0)


async def test_json_with_a_length_keeps_it(meter: Stand) -> None:
    answer = BY_NAME["JSON, chat"]
    async with meter.upstream() as upstream, upstream.exchange(llm=CUTTING) as exchange:
        await exchange.begin(*head_of(answer), length=len(answer.body))
        await exchange.pass_on(answer.body)
        got = await exchange.rest()

    llm = (await meter.record(got)).llm
    assert got.headers["content-length"] == str(len(answer.body))
    assert (seen(llm), got.body) == (answer.seen, answer.body)
    assert "tokens_per_second" not in llm  # nobody saw it being made


@pytest.mark.parametrize("relayed", [(), ("x-test-relayed: 1",)], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("trailers", ["", "x-checksum: 1\r\n"], ids=["", "trailers"])
async def test_an_http2_client_and_an_http2_upstream_are_metered(
    meter: Stand, relayed: tuple[str, ...], trailers: str
) -> None:
    answer = BY_NAME["Anthropic"]
    async with (
        meter.upstream() as upstream,
        upstream.exchange(port="front", headers=relayed) as exchange,
    ):
        await exchange.begin(*head_of(answer))
        for piece in split(answer.body, 100):
            await exchange.pass_on(piece)
        got = await exchange.finish(trailers)

    record = await meter.record(got)
    assert record.protocol == "HTTP/2"
    assert (seen(record.llm), got.body) == (answer.seen, answer.body)


# --- Answers that do not end, or are none


async def test_an_abandoned_answer_leaves_what_was_counted(meter: Stand) -> None:
    async with meter.upstream() as upstream, upstream.exchange() as exchange:
        await exchange.begin(f"content-type: {EVENTS}")
        for _ in range(40):
            await exchange.pass_on(WORD)
        exchange.hang_up()
        record = await meter.record(exchange.got())

    assert "DC" in record.flags
    assert 40 - 16 < record.llm["events"] <= 40
    assert record.llm["bytes"] == record.llm["events"] * len(WORD)


@pytest.mark.parametrize("chunks", range(1, 10))
async def test_of_a_short_abandoned_answer_at_least_half_was_counted(
    meter: Stand, chunks: int
) -> None:
    async with meter.upstream() as upstream, upstream.exchange() as exchange:
        await exchange.begin(f"content-type: {EVENTS}")
        for _ in range(chunks):
            await exchange.pass_on(WORD)
        exchange.hang_up()
        record = await meter.record(exchange.got())

    assert chunks / 2 <= record.llm["events"] <= chunks


async def test_an_answer_that_is_abandoned_behind_its_usage_leaves_it(meter: Stand) -> None:
    async with meter.upstream() as upstream, upstream.exchange() as exchange:
        await exchange.begin(f"content-type: {EVENTS}")
        for _ in range(20):
            await exchange.pass_on(WORD)
        await exchange.pass_on(EXTRA)
        exchange.hang_up()
        record = await meter.record(exchange.got())

    assert seen(record.llm) == Seen(
        '{"prompt_tokens":7,"completion_tokens":1}', "", 20, 20 * len(WORD) + len(EXTRA)
    )


@pytest.mark.parametrize("llm", [ROUTED, CUTTING], ids=["", "cutting"])
async def test_an_upstream_that_breaks_off_leaves_what_came_before(meter: Stand, llm: str) -> None:
    async with meter.upstream() as upstream, upstream.exchange(llm=llm) as exchange:
        await exchange.begin(f"content-type: {EVENTS}")
        await exchange.pass_on(WORD)
        await exchange.send_and_see(EXTRA[:30])
        got = await exchange.break_off()

    record = await meter.record(got)
    assert not got.is_whole
    assert (record.llm["events"], "usage" in record.llm) == (1, False)


async def test_an_answer_of_envoy_itself_is_no_answer(meter: Stand) -> None:
    async with (
        meter.upstream() as upstream,
        upstream.exchange(headers=["x-test-gone: 1"]) as exchange,
    ):
        await exchange.read_head()
        got = await exchange.rest()

    record = await meter.record(got)
    assert (got.status, got.headers["x-llm-tier"]) == (503, "premium")
    assert record.llm == {"outcome": "routed", "tier": "premium"}


async def test_an_error_is_no_answer(meter: Stand) -> None:
    async with meter.upstream() as upstream, upstream.exchange() as exchange:
        await exchange.begin(f"content-type: {JSON}", status=429)
        await exchange.pass_on(b'{"error":{},"usage":{"prompt_tokens":1}}')
        got = await exchange.finish()

    assert got.headers["x-llm-tier"] == "premium"
    assert (await meter.record(got)).llm == {"outcome": "routed", "tier": "premium"}


# --- Requests that the policy filter did not let in


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages?beta=true"])
async def test_an_llm_call_that_nobody_judged_is_metered(meter: Stand, path: str) -> None:
    async with meter.upstream() as upstream:
        got = await sent(upstream, [SHORT], f"content-type: {EVENTS}", llm="", path=path)

    llm = (await meter.record(got)).llm
    assert (llm["unattributed"], llm["events"], llm["prompt_tokens_used"]) == (True, 1, 7)
    assert not [name for name in got.headers if "llm" in name or "ratelimit" in name]


@pytest.mark.parametrize(
    ("method", "path", "llm"),
    [
        ("GET", "/v1/chat/completions", ""),
        ("POST", "/v1/models", ""),
        ("POST", "/v1/chat/completions/x", ""),
        ("POST", "/v1/chat/completions", "outcome=refused"),
    ],
)
async def test_what_is_none_of_ours_is_left_alone(
    meter: Stand, method: str, path: str, llm: str
) -> None:
    async with meter.upstream() as upstream:
        got = await sent(
            upstream, [SHORT], f"content-type: {EVENTS}", llm=llm, path=path, method=method
        )

    assert (await meter.record(got)).llm == ({"outcome": "refused"} if llm else {})
    assert "x-llm-tier" not in got.headers
    assert got.body == SHORT


# --- Headers


BUDGET = ROUTED + ";budget_policy=minute;budget_limit=60000;budget_remaining=59000"


@pytest.mark.parametrize(
    ("llm", "expected"),
    [
        (ROUTED, {"x-llm-tier": "premium"}),
        (
            "outcome=routed;tier=standard;downgraded_from=premium",
            {"x-llm-tier": "standard", "x-llm-downgraded-from": "premium"},
        ),
        (
            ROUTED + ";model=gpt-4;served_model=gpt-3.5-turbo",
            {"x-llm-tier": "premium", "x-llm-fallback-from": "gpt-4"},
        ),
        (ROUTED + ";model=gpt-4;served_model=gpt-4", {"x-llm-tier": "premium"}),
        (
            ROUTED + ";budget_state=local_share",
            {"x-llm-tier": "premium", "x-llm-budget-state": "local_share"},
        ),
        (
            BUDGET + ";budget_window=60;budget_reset=12.25;budget_unit=tokens",
            {
                "x-llm-tier": "premium",
                "x-llm-budget-policy": "minute",
                "x-llm-budget-limit": "60000",
                "x-llm-budget-remaining": "59000",
                "x-llm-budget-reset": "13",
                "ratelimit-policy": '"minute";q=60000;w=60;llm-unit="tokens"',
                "ratelimit": '"minute";r=59000;t=13',
            },
        ),
        (
            ROUTED + ";budget_policy=month;budget_limit=9007199254740991;budget_remaining=0"
            ";budget_unit=usd;budget_reset=2678400",
            {
                "x-llm-tier": "premium",
                "x-llm-budget-policy": "month",
                "x-llm-budget-limit": "9007199254740991",
                "x-llm-budget-remaining": "0",
                "x-llm-budget-reset": "2678400",
                "ratelimit-policy": '"month";q=9007199254740991;llm-unit="micro-usd"',
                "ratelimit": '"month";r=0;t=2678400',
            },
        ),
        (
            ROUTED + ";budget_policy=calls;budget_limit=20;budget_remaining=3000000000"
            ";budget_unit=concurrent_requests",
            {
                "x-llm-tier": "premium",
                "x-llm-budget-policy": "calls",
                "x-llm-budget-limit": "20",
                "x-llm-budget-remaining": "3000000000",
                "ratelimit-policy": '"calls";q=20;qu="concurrent-requests"',
                "ratelimit": '"calls";r=3000000000',
            },
        ),
    ],
    ids=["no budget", "downgraded", "fallen back", "tried", "away", "tokens", "money", "calls"],
)
async def test_the_client_is_told_its_tier_and_budget(
    meter: Stand, llm: str, expected: dict[str, str]
) -> None:
    upstreams = ["x-llm-tier: x", "x-llm-budget-reset: x", "x-llm-downgraded-from: x"]
    upstreams += ["x-llm-fallback-from: x", "x-llm-budget-state: x"]
    upstreams += ["x-ratelimit-limit-tokens: 5"]
    async with meter.upstream() as upstream:
        got = await sent(upstream, [b"{}"], f"content-type: {JSON}", *upstreams, llm=llm)

    ours = {name: value for name, value in got.headers.items() if "llm" in name or "rate" in name}
    assert ours == {"x-ratelimit-limit-tokens": "5", **expected}


# --- Cutting


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
async def test_the_extra_event_is_cut_out_wherever_it_is_split(
    meter: Stand, line_end: bytes
) -> None:
    body, expected = SHORT.replace(b"\n", line_end), SHORT_CUT.replace(b"\n", line_end)
    async with meter.upstream() as upstream:
        answers = [await sent_and_cut(upstream, [body[:at], body[at:]]) for at in range(len(body))]

    for at, got in enumerate(answers):
        noted = seen((await meter.record(got)).llm)
        assert (got.body, noted) == (
            expected,
            BY_NAME["chat, short"].seen._replace(bytes=len(body)),
        ), at


@pytest.mark.parametrize("size", [1, 7, 5_000])
async def test_the_extra_event_is_cut_out_of_pieces(meter: Stand, size: int) -> None:
    async with meter.upstream() as upstream:
        got = await sent_and_cut(upstream, split(CHAT, size))

    assert got.body == CHAT_CUT
    assert seen((await meter.record(got)).llm) == BY_NAME["chat"].seen


@pytest.mark.parametrize(
    "name",
    [
        answer.name
        for answer in ANSWERS
        if answer.content_type == EVENTS
        and len(answer.body) < SMALL_BYTES
        and b'"choices":[],' not in answer.body
    ],
)
async def test_where_there_is_no_extra_event_nothing_is_cut(meter: Stand, name: str) -> None:
    answer = BY_NAME[name]
    async with meter.upstream() as upstream:
        got = await sent_and_cut(upstream, split(answer.body, max(len(answer.body) // 40, 1)))

    assert got.body == answer.body
    assert seen((await meter.record(got)).llm) == answer.seen


@pytest.mark.parametrize(
    "event",
    [
        pytest.param('{"choices":[],"prompt_filter_results":[]}', id="Azure's first"),
        pytest.param('{"choices":[],"usage":null}', id="null"),
        pytest.param('{"usage":{"a":1}}', id="no choices"),
        pytest.param('{"choices":[{"delta":{}}],"usage":{"a":1}}', id="a choice"),
        pytest.param('{"usage":{"a":1},"choices":["x"]}', id="a string for a choice"),
        pytest.param('{"x":{"choices":[]},"usage":{"a":1}}', id="choices of another"),
        pytest.param('{"response":{"choices":[]},"usage":{"a":1}}', id="of a response"),
        pytest.param('{"choices":[],"x":"' + "x" * 17_000 + '","usage":{"a":1}}', id="too long"),
        pytest.param('{"choices":[]}}\ndata: "usage":{"a":1}', id="no JSON"),
    ],
)
@pytest.mark.parametrize("size", [29, 100_000])
async def test_an_event_of_another_kind_is_not_cut(meter: Stand, event: str, size: int) -> None:
    body = b"\n" + WORD + data(event) + b"\n: ping\n" + WORD
    async with meter.upstream() as upstream:
        got = await sent_and_cut(upstream, split(body, max(size, len(body) // 40)))

    assert got.body == body


async def test_what_is_around_the_extra_event_stays(meter: Stand) -> None:
    before, after = b"\xef\xbb\xbf\n: ping\n\n" + WORD, b"\n\n: pong\ndata: [DONE]\n\n\n"
    async with meter.upstream() as upstream:
        got = await sent_and_cut(upstream, [before + b": x\n" + EXTRA + after])

    assert got.body == before + b": x\n" + after


async def test_only_what_may_be_the_extra_event_is_held(meter: Stand) -> None:
    async with meter.upstream() as upstream, upstream.exchange(llm=CUTTING) as exchange:
        await exchange.begin(f"content-type: {EVENTS}")
        await exchange.pass_on(b": pi")
        await exchange.pass_on(b"ng\n")
        await exchange.pass_on(WORD + b'data: {"id":1,"choices":[{')
        await exchange.pass_on(b'"delta":{}')
        await exchange.pass_on(b"}]}\n\n")
        await exchange.pass_on(b"data: [DONE]")
        await exchange.pass_on(b"\n")
        got = await exchange.finish()

    assert got.is_whole


async def test_the_other_half_of_what_was_passed_on_is_passed_on(meter: Stand) -> None:
    async with meter.upstream() as upstream, upstream.exchange(llm=CUTTING) as exchange:
        await exchange.begin(f"content-type: {EVENTS}")
        await exchange.pass_on(b'data: {"choices":["x"],')
        await exchange.pass_on(b'"choices":[],"usage":{"a":1}}\n\n')
        got = await exchange.finish()

    assert got.is_whole


@pytest.mark.parametrize("port", ["gateway", "front"])
@pytest.mark.parametrize("relayed", [(), ("x-test-relayed: 1",)], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize(
    ("rest", "expected", "with_trailers"),
    [
        (b'data: {"error":{}}', b'data: {"error":{}}', b'data: {"error":{}}'),
        (EXTRA[:-2], b"", b""),
        (EXTRA[:-1], b"", b""),
        (b": bye", b": bye", b": bye"),
        (EXTRA[:-4], EXTRA[:-4], b""),
        (b"dat", b"dat", b""),
    ],
    ids=["an error", "usage", "a line of usage", "a comment", "a piece of JSON", "a piece"],
)
async def test_an_answer_that_ends_in_an_event_loses_nothing_that_can_be_read(  # noqa: PLR0913,PLR0917  # each is a case
    meter: Stand,
    port: str,
    relayed: tuple[str, ...],
    rest: bytes,
    expected: bytes,
    with_trailers: bytes,
) -> None:
    request: dict[str, Any] = {"llm": CUTTING, "port": port, "headers": relayed}
    for trailers, wanted in (("", expected), ("x-checksum: 1\r\n", with_trailers)):
        async with meter.upstream() as upstream, upstream.exchange(**request) as exchange:
            await exchange.begin(f"content-type: {EVENTS}")
            await exchange.send_and_see(WORD + rest)
            got = await exchange.finish(trailers)

        llm = (await meter.record(got)).llm
        assert (got.body, got.is_whole) == (WORD + wanted, True)
        is_lost = wanted != expected
        assert llm.get("meter_error") == ("tail_lost" if is_lost else None)


async def test_an_answer_whose_end_comes_with_its_last_bytes_is_cut(meter: Stand) -> None:
    async with (
        meter.upstream() as upstream,
        upstream.exchange(llm=CUTTING, headers=["x-test-direct: 1"]) as exchange,
    ):
        await exchange.read_head()
        got = await exchange.rest()

    llm = (await meter.record(got)).llm
    assert got.body == WORD
    assert (llm["usage"], llm["bytes"]) == ('{"a":1}', len(DIRECT))


async def test_a_length_that_would_be_wrong_is_removed(meter: Stand) -> None:
    async with meter.upstream() as upstream, upstream.exchange(llm=CUTTING) as exchange:
        await exchange.begin(f"content-type: {EVENTS}", length=len(SHORT))
        await exchange.send_and_see(SHORT[:100])
        await exchange.send(SHORT[100:])
        got = await exchange.rest()

    assert (got.body, got.is_whole) == (SHORT_CUT, True)
    assert "content-length" not in got.headers


async def test_an_encoded_answer_is_not_cut(meter: Stand) -> None:
    async with meter.upstream() as upstream, upstream.exchange(llm=CUTTING) as exchange:
        await exchange.begin(f"content-type: {EVENTS}", "content-encoding: gzip")
        await exchange.pass_on(SHORT)
        got = await exchange.finish()

    assert got.body == SHORT
    assert (await meter.record(got)).llm["meter_error"] == "encoded"


# --- Limits


LARGE = {
    "text": (JSON, b'{"choices":[{"text":"', b'\\"usage\\": ' + b"x" * 65_525, b'"}]', b"}"),
    "numbers": (JSON, b'{"data":[', b"[" + b"-0.0123456," * 5_957 + b"0]", b"]", b"}"),
    "one event": (
        EVENTS,
        b'data: {"response":{"a":"',
        b'\\"usage\\": ' + b"x" * 65_525,
        b'","usage":{"input_tokens":3,"output_tokens":4}',
        b"}}\n\n",
    ),
    "events": (EVENTS, WORD, WORD * 2_000, EXTRA[:-3], b"}\n\n"),
}


@pytest.mark.parametrize("name", LARGE)
async def test_memory_stays_bounded_over_100_megabytes(meter: Stand, name: str) -> None:
    content_type, begin, piece, end, last = LARGE[name]
    if content_type == JSON:
        end += b',"usage":{"prompt_tokens":3,"completion_tokens":4}'
    count = 105_000_000 // len(piece)
    async with meter.upstream() as upstream, upstream.exchange() as exchange:
        await exchange.begin(f"content-type: {content_type}")
        await exchange.pass_on(begin)
        before = meter.memory_bytes()
        async with asyncio.TaskGroup() as group:
            group.create_task(exchange.read_until(len(begin) + count * len(piece)))
            for _ in range(count):
                await exchange.send(piece)
        after = meter.memory_bytes()
        await exchange.pass_on(end)
        await exchange.pass_on(last)
        got = await exchange.finish()

    llm = (await meter.record(got)).llm
    assert llm["bytes"] == len(got.body) > 100_000_000
    assert llm["events"] == got.body.count(b'"delta"')
    assert numbers(llm) in ((3, 4, 7), (7, 1, 8))
    assert after - before < 24_000_000


@pytest.mark.parametrize("llm", [ROUTED, CUTTING], ids=["", "cutting"])
async def test_a_bug_in_the_meter_does_not_reach_the_answer(
    tmp_path: Path, envoy_version: str, llm: str
) -> None:
    def broken(text: str) -> str:
        head = "local function carries_output(block)\n"
        assert head in text
        bug = '  if find(block, "BUG", 1, true) then error("bug") end\n'
        return text.replace(head, head + bug)

    pieces = [WORD, b'data: {"x":"', b'BUG"}\n\n', *split(SHORT, 20)]
    with stand(envoy_version, tmp_path, edit=broken) as meter:
        async with meter.upstream() as upstream, upstream.exchange(llm=llm) as exchange:
            await exchange.begin(f"content-type: {EVENTS}")
            for piece in pieces:
                await exchange.send_and_see(piece)
            got = await exchange.finish()

        record = await meter.record(got)
        said = meter.what_went_wrong()

    assert (got.body, got.is_whole) == (b"".join(pieces), True)
    assert (record.llm["events"], record.llm["meter_error"]) == (1, "bug")
    assert record.llm["bytes"] == len(got.body)
    assert said.count("script log: ") == 1
