"""What clients hear of a service that has more to do than it can: where the filter fails closed,
and where open."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from extproc.demo import envoy
from extproc.demo.accesslog import AccessLog
from extproc.demo.attachment import Wiring
from extproc.exchange.machine import Exchange
from extproc.server.h2.decision import Decisions
from extproc.server.h2.lifecycle import serving
from extproc.server.h2.waits import Waits
from tests.conformance.harness import CHAT, DEADLINE_SECONDS, chat, head, mark
from tests.scenarios.harness import Bare

BODY_BYTES = 1 << 20


@asynccontextmanager
async def late(monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]]) -> AsyncIterator[int]:
    """Serve as one does who is late at all times; yields the port."""
    monkeypatch.setattr(Waits, "are_long", lambda _: True)
    bare = Bare()
    decisions = Decisions(
        lambda name: Exchange(bare.rules, bare.counter, reservation=name),
        bare.ledger,
        lambda: uuid4().hex,
        lambda outcome, reason, _: told.append((outcome, reason)),
    )
    async with serving(
        decisions, None, address="127.0.0.1:0", request_body_bytes=BODY_BYTES, drain_seconds=1.0
    ) as port:
        yield port


@pytest.mark.parametrize("fails_open", [False, True], ids=["closed", "open"])
async def test_who_comes_late_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    adapters: Mapping[str, int],
    envoy_version: str,
    fails_open: bool,
) -> None:
    told: list[tuple[str, str]] = []
    step, passing = mark(), mark()
    timeout = aiohttp.ClientTimeout(DEADLINE_SECONDS)
    async with (
        late(monkeypatch, told) as port,
        aiohttp.ClientSession(timeout=timeout) as session,
    ):
        wiring = Wiring(port, adapters, fails_open=fails_open)
        with envoy.gateway(wiring, directory=tmp_path, version=envoy_version) as gateway:
            async with session.post(gateway.url + CHAT, data=chat(), headers=head(step)) as answer:
                text = await answer.text()
            async with session.get(gateway.url + "/", headers=head(passing)) as page:
                await page.read()
            (record,) = await AccessLog(gateway.access_log).wait_for(step, count=1)

    if fails_open:
        # Undecided, as when the service is away; and a page is not looked at either.
        assert (answer.status, record.llm.get("outcome")) == (200, None)
        assert told == [("turned_away", "")] * 2
    else:
        assert (answer.status, record.details) == (503, "llm_overloaded")
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert json.loads(text)["error"]["code"] == "overloaded"
        assert record.llm["reason"] == "overloaded"
        assert told == [("refused", "overloaded"), ("passed", "")]
