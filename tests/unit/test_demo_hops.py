"""extproc/demo/hops.py: a cache that remembers, and a search that finds."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from extproc.demo.hops import CACHE, RESULTS_MAX, RETRIEVAL, apps

Client = TestClient[web.Request, web.Application]


def asking(name: str, ask: Callable[[Client], Awaitable[None]]) -> None:
    """Run `ask` with a client of one of the services."""

    async def run() -> None:
        async with TestClient(TestServer(apps()[name])) as client:
            await ask(client)

    asyncio.run(run())


def test_the_cache_tells_what_it_was_told() -> None:
    async def ask(client: Client) -> None:
        assert (await client.get("/cache/7")).status == 404

        assert (await client.put("/cache/7", data=b"seven")).status == 204

        assert await (await client.get("/cache/7")).read() == b"seven"

    asking(CACHE, ask)


def test_the_oldest_result_goes_for_a_new_one() -> None:
    async def ask(client: Client) -> None:
        for number in range(RESULTS_MAX + 1):
            await client.put(f"/cache/{number}", data=b"x")

        assert (await client.get("/cache/0")).status == 404
        assert (await client.get("/cache/1")).status == 200

    asking(CACHE, ask)


def test_the_search_finds_documents() -> None:
    async def ask(client: Client) -> None:
        answer = await client.post("/retrieval/search", json="mesh")

        assert len((await answer.json())["documents"]) == 2

    asking(RETRIEVAL, ask)
