"""extproc/server/budget_service.py over a real channel."""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from extproc.budgets_api import budgets_pb2 as pb
from extproc.ledger.sqlite import SqliteLedger
from extproc.policy.grants import Grant
from extproc.server import budget_service
from extproc.server.budget_access import Access
from extproc.server.grants import GRANTS_MAX, PREFIX, Grants
from extproc.server.rulebook import Rulebook
from tests.scenarios.table import chat
from tests.shell.budget_harness import DAY, HOUR, NOON, World, asking, grant_of

METHODS = [one.name for one in pb.DESCRIPTOR.services_by_name["BudgetService"].methods]
TINY = pb.GetRequest(tenant="tiny", budget="day")


def run(test: Callable[[World, Any], Coroutine[Any, Any, None]]) -> World:
    """Run it against a new world, whose budgets are served to this machine."""
    world = World()

    async def whole() -> None:
        async with asyncio.timeout(30), asking(world) as stub:
            await test(world, stub)

    asyncio.run(whole())
    return world


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if isinstance(call, grpc.aio.UnaryStreamCall) else call)
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize("method", METHODS)
def test_by_default_nobody_may_do_anything(method: str) -> None:
    world = World()

    async def ask() -> tuple[grpc.StatusCode, str]:
        async with asking(world, Access()) as stub:
            kind = "Watch" if method == "Watch" else method
            return await refused(getattr(stub, method)(getattr(pb, f"{kind}Request")()))

    code, _ = asyncio.run(ask())

    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert not world.audited


def test_a_budget_is_told_as_it_stands() -> None:
    async def test(world: World, stub: Any) -> None:
        await world.use("tiny", "day", DAY, 20)

        found = await stub.Get(TINY)

        assert (found.limit, found.committed, found.reserved, found.remaining) == (50, 20, 0, 30)
        assert (found.unit, found.granted) == (pb.UNIT_TOKENS, 0)
        assert (found.window.start, found.window.end) == DAY.span(NOON)

    run(test)


def test_dollars_are_told_as_micro_dollars() -> None:
    async def test(_: World, stub: Any) -> None:
        found = await stub.Get(pb.GetRequest(tenant="broke", budget="month"))

        assert (found.unit, found.limit) == (pb.UNIT_MICRO_USD, 10_000)

    run(test)


@pytest.mark.parametrize(("tenant", "budget"), [("nobody", "day"), ("tiny", "night"), ("", "")])
def test_what_the_settings_do_not_know_is_not_found(tenant: str, budget: str) -> None:
    async def test(_: World, stub: Any) -> None:
        code, _text = await refused(stub.Get(pb.GetRequest(tenant=tenant, budget=budget)))

        assert code is grpc.StatusCode.NOT_FOUND

    run(test)


def test_pages_have_every_tenant_once_in_order() -> None:
    async def test(_: World, stub: Any) -> None:
        whole = await stub.List(pb.ListRequest())
        found, token = [], ""
        while True:
            page = await stub.List(pb.ListRequest(page_size=2, page_token=token))
            found += page.budgets
            token = page.next_page_token
            if not token:
                break

        assert [one.tenant for one in found] == sorted(one.tenant for one in found)
        assert found == list(whole.budgets)
        assert {one.tenant for one in found} >= {"rich", "tiny", "suspended"}
        some = await stub.List(pb.ListRequest(tenant_prefix="su"))
        assert {one.tenant for one in some.budgets} == {"suspended"}

    run(test)


def test_a_page_has_a_limit() -> None:
    async def test(_: World, stub: Any) -> None:
        for size in (-1, 501):
            code, _text = await refused(stub.List(pb.ListRequest(page_size=size)))
            assert code is grpc.StatusCode.INVALID_ARGUMENT

    run(test)


def test_whoever_watches_is_told_at_first_and_of_each_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget_service, "WATCH_SECONDS", 0.01)

    async def test(world: World, stub: Any) -> None:
        watch = stub.Watch(pb.WatchRequest(tenants=["rich", "tiny"]))
        first = [await watch.read() for _ in range(3)]
        await world.use("tiny", "day", DAY, 7)
        changed = await watch.read()
        watch.cancel()

        assert [one.budget for one in first] == ["minute", "month", "day"]
        assert (changed.tenant, changed.committed) == ("tiny", 7)

    run(test)


def test_watching_has_limits_and_ends_with_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_service, "WATCHES_MAX", 1)
    monkeypatch.setattr(budget_service, "WATCH_SECONDS", 0.01)

    async def test(_: World, stub: Any) -> None:
        ask = pb.WatchRequest(tenants=["tiny"])
        watch = stub.Watch(ask)
        await watch.read()
        code, _text = await refused(stub.Watch(ask))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        watch.cancel()
        while True:  # until the server has heard of it
            again = stub.Watch(ask)
            try:
                await again.read()
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)
        again.cancel()

        many = [f"t{number}" for number in range(101)]
        code, _text = await refused(stub.Watch(pb.WatchRequest(tenants=many)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        code, _text = await refused(stub.Watch(pb.WatchRequest(tenants=["nobody"])))
        assert code is grpc.StatusCode.NOT_FOUND

    run(test)


def test_a_grant_gives_room_at_once_and_until_it_ends() -> None:
    async def test(world: World, stub: Any) -> None:
        await world.use("tiny", "day", DAY, 50)
        assert not await world.has_room("tiny", "day", 30)

        answer = await stub.Adjust(grant_of())

        assert (answer.budget.limit, answer.budget.granted, answer.budget.remaining) == (80, 30, 30)
        assert answer.grant.reason == "exam week"
        assert await world.has_room("tiny", "day", 30)
        assert not await world.has_room("tiny", "day", 31)
        world.now += 600
        world.grants.refresh()
        assert not await world.has_room("tiny", "day", 1)
        assert (await stub.Get(TINY)).limit == 50

    world = run(test)

    (line,) = world.audited
    assert (line["change"], line["tenant"], line["budget"]) == ("granted", "tiny", "day")
    assert (line["amount"], line["reason"], line["by"]) == (30, "exam week", "loopback")


def test_the_same_request_again_grants_nothing_more() -> None:
    async def test(world: World, stub: Any) -> None:
        await stub.Adjust(grant_of(id="exam"))
        world.now += 1
        again = await stub.Adjust(grant_of(id="exam"))
        assert again.budget.limit == 80
        code, _text = await refused(stub.Adjust(grant_of(id="exam", amount=31)))
        assert code is grpc.StatusCode.ALREADY_EXISTS

    run(test)


def test_a_grant_can_be_taken_back() -> None:
    async def test(_: World, stub: Any) -> None:
        given = await stub.Adjust(grant_of())
        back = pb.AdjustRequest(
            tenant="tiny", budget="day", withdraw=given.grant.id, reason="a mistake"
        )

        elsewhere = pb.AdjustRequest(
            tenant="rich", budget="month", withdraw=given.grant.id, reason="a mistake"
        )
        assert (await refused(stub.Adjust(elsewhere)))[0] is grpc.StatusCode.NOT_FOUND
        answer = await stub.Adjust(back)

        assert (answer.budget.limit, answer.grant.id) == (50, given.grant.id)
        assert (await refused(stub.Adjust(back)))[0] is grpc.StatusCode.NOT_FOUND

    assert [line["change"] for line in run(test).audited] == ["granted", "withdrawn"]


def test_a_reset_gives_all_that_was_charged_again_for_this_window() -> None:
    async def test(world: World, stub: Any) -> None:
        ask = pb.ResetRequest(tenant="per-minute", budget="hour", reason="our fault")
        await world.use("per-minute", "hour", HOUR, 250)
        assert (await stub.Reset(ask)).budget.remaining == 300
        await world.use("per-minute", "hour", HOUR, 40)
        answer = await stub.Reset(ask)

        assert (answer.budget.committed, answer.budget.remaining) == (290, 300)
        assert answer.budget.grants[0].is_reset
        world.now += 3600
        world.grants.refresh()
        later = await stub.Get(pb.GetRequest(tenant="per-minute", budget="hour"))
        assert (later.limit, later.committed, later.remaining) == (300, 0, 300)
        assert (await refused(stub.Reset(ask)))[0] is grpc.StatusCode.FAILED_PRECONDITION
        await world.use("per-minute", "hour", HOUR, 1)
        another = (await stub.Reset(ask)).grant.id
        assert another != answer.grant.id  # else who tidies up after the first deletes it too

    run(test)


def test_grants_are_looked_at_when_the_next_one_ends() -> None:
    async def test(world: World, stub: Any) -> None:
        assert world.grants.seconds_to_end() == math.inf
        await stub.Adjust(grant_of())
        await stub.Adjust(grant_of(until=NOON + 0.25))
        assert world.grants.seconds_to_end() == 0.25

    run(test)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tenant": "nobody"}, grpc.StatusCode.NOT_FOUND),
        ({"tenant": "suspended"}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"amount": 0}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"amount": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"amount": 10**15 + 1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"until": NOON}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"until": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"until": float("inf")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"reason": " "}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"reason": "one\ntwo"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"reason": "x" * 501}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"id": "Exam!"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"id": "reset-1"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"withdraw": "x"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_an_unsound_grant_changes_nothing(fields: dict[str, Any], code: grpc.StatusCode) -> None:
    async def test(world: World, stub: Any) -> None:
        assert (await refused(stub.Adjust(grant_of(**fields))))[0] is code
        assert not world.ledger.notes(PREFIX)

    assert not run(test).audited


def test_a_grant_that_cannot_be_kept_is_none() -> None:
    async def test(world: World, stub: Any) -> None:
        world.ledger.is_away = True
        assert (await refused(stub.Adjust(grant_of())))[0] is grpc.StatusCode.UNAVAILABLE
        assert (await stub.Get(TINY)).limit == 50

    assert not run(test).audited


def test_grants_have_a_limit_and_those_that_ended_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("extproc.server.grants.GRANTS_MAX", 2)
    assert GRANTS_MAX == 1000

    async def test(world: World, stub: Any) -> None:
        await stub.Adjust(grant_of(until=NOON + 10))
        await stub.Adjust(grant_of())
        assert (await refused(stub.Adjust(grant_of())))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        world.now += 10
        await stub.Adjust(grant_of())
        assert len(world.ledger.notes(PREFIX)) == 2

    run(test)


def test_all_grants_of_a_budget_have_a_limit() -> None:
    async def test(_: World, stub: Any) -> None:
        await stub.Adjust(grant_of(amount=10**15))
        assert (await refused(stub.Adjust(grant_of())))[0] is grpc.StatusCode.FAILED_PRECONDITION

    run(test)


def test_another_replica_learns_of_a_grant_and_an_odd_note_is_none() -> None:
    async def test(world: World, _: Any) -> None:
        text = '{"id":"b","tenant":"tiny","budget":"day","amount":5,"until":9e9,"reason":"r",'
        text += '"by":"token","at":1}'
        notes = {PREFIX + "b": text, PREFIX + "c": text, PREFIX + "d": "{", PREFIX + "e": "[1]"}
        await world.ledger.settle((), notes)
        world.grants.refresh()
        assert [grant.id for grant in world.rulebook.grants] == ["b"]
        assert await world.has_room("tiny", "day", 55)

    run(test)


def test_a_grant_outlives_the_service(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    world = World()

    async def run() -> tuple[int, int]:
        async with SqliteLedger.open(str(file), world.clock, 60) as ledger:
            grants = Grants(world.rulebook, ledger, world.clock)
            grant = Grant(
                id="exam",
                tenant="tiny",
                budget="day",
                amount=5,
                until=NOON + 9,
                reason="r",
                by="token",
                at=NOON,
            )
            assert await grants.add(grant) is None
        later = Rulebook(world.rulebook.loaded)
        async with SqliteLedger.open(str(file), world.clock, 60) as ledger:
            before = later.rules.policy.tenants["tiny"].budgets[0].limit_units
            Grants(later, ledger, world.clock).refresh()
            return before, later.rules.policy.tenants["tiny"].budgets[0].limit_units

    assert asyncio.run(run()) == (50, 55)


def test_an_explanation_is_of_the_budgets_as_they_stand_and_holds_nothing() -> None:
    async def test(world: World, stub: Any) -> None:
        ask = pb.ExplainRequest(
            path="/v1/chat/completions",
            headers={"X-Tenant-Id": "per-minute"},
            body=chat(max_tokens=5),
        )
        told = json.loads((await stub.Explain(ask)).explanation_json)
        assert told["outcome"]["kind"] == "routed"
        assert told["tenant"]["name"] == "per-minute"
        assert world.ledger.size.held == 0

        await world.use("per-minute", "hour", HOUR, 300)
        told = json.loads((await stub.Explain(ask)).explanation_json)
        assert (told["outcome"]["kind"], told["outcome"]["status"]) == ("rejected", 429)

        await stub.Adjust(grant_of(tenant="per-minute", budget="hour", amount=500))
        told = json.loads((await stub.Explain(ask)).explanation_json)
        assert told["outcome"]["kind"] == "routed"

    run(test)


def test_what_is_to_be_explained_has_a_limit() -> None:
    async def test(world: World, stub: Any) -> None:
        limit = world.service.request_body_bytes_max
        ask = pb.ExplainRequest(path="/v1/chat/completions", body=b"x" * (limit + 1))
        assert (await refused(stub.Explain(ask)))[0] is grpc.StatusCode.INVALID_ARGUMENT

    run(test)


def test_a_bug_is_told_to_nobody_but_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World, stub: Any) -> None:
        async def broken(*_: object) -> None:
            message = "s3cret"
            raise KeyError(message)

        monkeypatch.setattr(world.ledger, "standing", broken)
        found = [
            await refused(stub.Get(TINY)),
            await refused(stub.Watch(pb.WatchRequest(tenants=["tiny"]))),
        ]
        assert found == [(grpc.StatusCode.INTERNAL, "internal error")] * 2

    run(test)

    assert "budgets.failed KeyError" in caplog.text
    assert "s3cret" not in caplog.text
