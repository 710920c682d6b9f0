"""Exchanges on the transport, without sockets: what is decided when, told to whom, given back."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame

from extproc.exchange.machine import Exchange
from extproc.ledger.port import NO_NOTES, Ledger
from extproc.policy.budgets import Answer, Reserve, Settled, Settlement
from extproc.server.h2.asynchronous import Context, Unary
from extproc.server.h2.call import Call as H2Call
from extproc.server.h2.decision import Decision, Decisions
from tests.h2.peer import Peer, brief, message
from tests.scenarios.harness import Bare
from tests.scenarios.table import Call, chat
from tests.shell.harness import body_of, head_of

BUDGETED = Call(chat(max_tokens=5), tenant="per-minute")
HEAD = message(head_of(BUDGETED).SerializeToString())
BODY = message(body_of(BUDGETED).SerializeToString())
Pause = Callable[[], Awaitable[None]]


@pytest.fixture(scope="module")
def bare() -> Bare:
    return Bare()


async def at_once() -> None:
    """Wait for nothing."""


async def broken() -> None:
    msg = "s3cret"
    raise KeyError(msg)


class Noted:
    """A ledger that waits before it answers, and notes what was given back."""

    def __init__(self, bare: Bare, wait: Pause = at_once) -> None:
        self.inner = bare.ledger
        self.wait = wait
        self.log: list[str] = []

    async def reserve(self, ask: Reserve) -> Answer:
        self.log.append("asked")
        try:
            await self.wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        self.log.append("held")
        return await self.inner.reserve(ask)

    async def settle(
        self, settlements: Sequence[Settlement], notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        return await self.inner.settle(settlements, notes)

    async def release(self, reservation: str) -> None:
        self.log.append("released")
        await self.inner.release(reservation)


class Desk:
    """A peer whose calls are exchanges."""

    def __init__(self, bare: Bare, ledger: Ledger) -> None:
        self.told: list[tuple[str, str]] = []
        numbers = iter(range(1 << 30))
        decisions = Decisions(
            lambda name: Exchange(bare.rules, bare.counter, reservation=name),
            ledger,
            lambda: f"{id(self):016x}{next(numbers):016x}",
            lambda outcome, reason, _: self.told.append((outcome, reason)),
        )
        self.peer = Peer(method=lambda call: Decision(decisions, call))

    def status(self, frames: list[Any]) -> tuple[str, str]:
        ends = [one for one in frames if isinstance(one, HeadersFrame)]
        found = self.peer.fields(ends[-1])
        return found["grpc-status"], found.get("grpc-message", "")


def kinds(frames: list[Any]) -> list[str]:
    """What was answered."""
    answers = [one.data[5:] for one in frames if isinstance(one, DataFrame)]
    return [str(ProcessingResponse.FromString(data).WhichOneof("response")) for data in answers]


def test_an_exchange_is_decided_within_the_call_that_brings_it(bare: Bare) -> None:
    """No loop runs here: a task would fail."""
    ledger = Noted(bare)
    desk = Desk(bare, ledger)
    desk.peer.open(1)

    first = desk.peer.data(1, HEAD)
    second = desk.peer.data(1, BODY)

    assert kinds(first) == ["request_headers"]
    assert kinds(second) == ["request_body"]
    assert brief(second)[1:] == ["headers 1 end", "rst 1 0"]
    assert (desk.told, ledger.log) == ([("routed", "")], ["asked", "held"])
    assert desk.peer.woken == 0


def test_what_envoy_may_have_heard_of_is_not_given_back(bare: Bare) -> None:
    ledger = Noted(bare)
    desk = Desk(bare, ledger)
    desk.peer.open(1)
    desk.peer.data(1, HEAD)
    desk.peer.data(1, BODY)

    desk.peer.send(RstStreamFrame(1))
    desk.peer.connection.lost()

    assert (desk.told, "released" in ledger.log) == ([("routed", "")], False)


@pytest.mark.parametrize("sends", [[], [HEAD]])
def test_a_client_that_says_no_more_hears_no_more(bare: Bare, sends: list[bytes]) -> None:
    desk = Desk(bare, Noted(bare))
    desk.peer.open(1)
    for data in sends:
        desk.peer.data(1, data)

    found = desk.peer.data(1, b"", "END_STREAM")

    assert desk.status(found)[0] == "0"
    assert desk.told == [("given_up", "")]


def test_who_goes_before_the_first_message_is_not_told_of(bare: Bare) -> None:
    desk = Desk(bare, Noted(bare))
    desk.peer.open(1)
    desk.peer.send(RstStreamFrame(1))

    assert desk.told == []


@pytest.mark.parametrize(
    ("data", "status", "told"),
    [
        pytest.param(BODY, "3", [("failed", "")], id="a body before the headers"),
        pytest.param(message(b""), "3", [("failed", "")], id="a message of no kind"),
        pytest.param(message(b"\xff\xff"), "13", [], id="no protobuf"),
    ],
)
def test_a_wrong_message_ends_its_call_with_an_error(
    bare: Bare, data: bytes, status: str, told: list[tuple[str, str]]
) -> None:
    desk = Desk(bare, Noted(bare))
    desk.peer.open(1)

    assert desk.status(desk.peer.data(1, data))[0] == status
    assert desk.told == told
    assert desk.peer.bugs == []


def test_a_ledger_that_fails_at_once_is_an_error_and_gives_back(bare: Bare) -> None:
    ledger = Noted(bare, broken)
    desk = Desk(bare, ledger)
    desk.peer.open(1)
    desk.peer.data(1, HEAD)

    found = desk.peer.data(1, BODY)

    assert desk.status(found) == ("13", "internal error")
    assert (desk.told, ledger.log) == ([("failed", "")], ["asked", "released"])


def in_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20):
            await work()

    asyncio.run(run())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0)


def test_a_ledger_may_take_its_time_and_the_call_waits(bare: Bare) -> None:
    async def work() -> None:
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        ledger = Noted(bare, wait)
        desk = Desk(bare, ledger)
        desk.peer.open(1)
        desk.peer.data(1, HEAD)
        assert desk.peer.data(1, BODY) == []
        # It is not the call's turn before its ledger has answered.
        assert desk.peer.data(1, HEAD) == []
        desk.peer.open(3)
        assert kinds(desk.peer.data(3, HEAD)) == ["request_headers"]

        gate.set()
        await until(lambda: desk.peer.woken > 0)

        found = desk.peer.flush()
        assert kinds(found) == ["request_body"]
        assert brief(found)[-2:] == ["headers 1 end", "rst 1 0"]
        assert (desk.told, ledger.log) == ([("routed", "")], ["asked", "held"])

    in_loop(work)


def test_a_ledger_may_take_its_time_by_sleeping(bare: Bare) -> None:
    async def work() -> None:
        async def wait() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)

        desk = Desk(bare, Noted(bare, wait))
        desk.peer.open(1)
        desk.peer.data(1, HEAD)
        desk.peer.data(1, BODY)
        await until(lambda: desk.peer.woken > 0)

        assert kinds(desk.peer.flush()) == ["request_body"]

    in_loop(work)


def test_a_ledger_that_fails_later_is_an_error_and_gives_back(bare: Bare) -> None:
    async def work() -> None:
        async def wait() -> None:
            await asyncio.sleep(0)
            await broken()

        ledger = Noted(bare, wait)
        desk = Desk(bare, ledger)
        desk.peer.open(1)
        desk.peer.data(1, HEAD)
        desk.peer.data(1, BODY)
        await until(lambda: desk.peer.woken > 0)

        assert desk.status(desk.peer.flush()) == ("13", "internal error")
        assert (desk.told, ledger.log) == ([("failed", "")], ["asked", "released"])

    in_loop(work)


@pytest.mark.parametrize("turns", [0, 1, 5], ids="{} turns of the loop".format)
@pytest.mark.parametrize("how", ["reset", "cut off", "gone"])
def test_what_is_held_for_a_request_that_went_away_is_given_back(
    bare: Bare, turns: int, how: str
) -> None:
    """However far the task has come, and not before the ledger was told to stop."""

    async def work() -> None:
        async def wait() -> None:
            await asyncio.Event().wait()

        ledger = Noted(bare, wait)
        desk = Desk(bare, ledger)
        desk.peer.open(1)
        desk.peer.data(1, HEAD)
        desk.peer.data(1, BODY)
        for _ in range(turns):
            await asyncio.sleep(0)

        if how == "reset":
            desk.peer.send(RstStreamFrame(1))
        elif how == "cut off":
            desk.peer.connection.cut_off()
            assert desk.status(desk.peer.flush())[0] == "14"
        else:
            desk.peer.connection.lost()
        assert "released" not in ledger.log
        await until(lambda: "released" in ledger.log)

        assert desk.told == [("given_up", "")]
        assert ledger.log in (["asked", "cancelled", "released"], ["asked", "released"])

    in_loop(work)


def test_a_ledger_that_does_not_stop_when_told_is_heard_out_and_told_of_once(bare: Bare) -> None:
    async def work() -> None:
        async def wait() -> None:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

        ledger = Noted(bare, wait)
        desk = Desk(bare, ledger)
        desk.peer.open(1)
        desk.peer.data(1, HEAD)
        desk.peer.data(1, BODY)
        await asyncio.sleep(0)

        desk.peer.send(RstStreamFrame(1))
        await until(lambda: desk.told != [])
        await asyncio.sleep(0)

        assert desk.told == [("given_up", "")]
        assert ledger.log == ["asked", "held", "released"]

    in_loop(work)


# Calls of one message.


async def double(text: bytes, context: Context) -> bytes:
    del context
    await asyncio.sleep(0)
    return text * 2


def unary(call: H2Call) -> Unary[bytes, bytes]:
    return Unary(double, bytes, bytes, call)


@pytest.mark.parametrize(("texts", "status"), [([], "12"), ([b"a", b"b"], "12")])
def test_a_unary_call_has_one_message(texts: list[bytes], status: str) -> None:
    peer = Peer(method=unary)
    peer.open(1)

    found = [frame for text in texts for frame in peer.data(1, message(text))]
    found += peer.data(1, b"", "END_STREAM")

    assert peer.fields(found[0])["grpc-status"] == status


def test_a_unary_call_is_answered_later() -> None:
    async def work() -> None:
        peer = Peer(method=unary)
        peer.open(1)
        assert peer.data(1, message(b"a"), "END_STREAM") == []
        await until(lambda: peer.woken > 0)
        assert brief(peer.flush()) == ["headers 1", "data 1 7", "headers 1 end"]

    in_loop(work)


def test_a_stream_in_observability_mode_goes_to_who_watches(bare: Bare) -> None:
    seen: list[bytes] = []

    async def watch(first: ProcessingRequest, rest: Any) -> None:
        seen.append(first.request_body.body)
        seen.extend([one.request_body.body async for one in rest])

    def observed(text: bytes) -> bytes:
        one = ProcessingRequest(observability_mode=True)
        one.request_body.body = text
        return message(one.SerializeToString())

    async def work() -> None:
        none: list[object] = []
        decisions = Decisions(
            lambda name: Exchange(bare.rules, bare.counter, reservation=name),
            bare.ledger,
            lambda: "",
            lambda *told: none.append(told),
            watch,
        )
        peer = Peer(method=lambda call: Decision(decisions, call))
        peer.open(1)
        texts = [b"%d" % number for number in range(100)]
        for text in texts:
            assert peer.data(1, observed(text)) == []
        assert peer.connection.held.bytes > 0
        peer.data(1, b"", "END_STREAM")
        await until(lambda: peer.connection.calls == {})

        assert brief(peer.flush()) == ["headers 1 end"]
        assert (seen, none, peer.connection.held.bytes) == (texts, [], 0)

    in_loop(work)
