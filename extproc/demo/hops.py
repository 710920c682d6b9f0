"""What a chain asks before it asks a model: a cache of results, and a search that is slow.

The search takes its time on purpose: whoever looks at the numbers afterwards must see that it,
and not the model, is where the time goes.
"""

import asyncio
from collections import OrderedDict
from typing import Final

from aiohttp import web

CACHE: Final = "cache"
RETRIEVAL: Final = "retrieval"
SEARCH_SECONDS: Final = 0.4
RESULTS_MAX: Final = 100
RESULT_BYTES_MAX: Final = 1 << 20


def apps() -> dict[str, web.Application]:
    """What aiohttp serves, by the name of the cluster."""
    return {CACHE: _cache(), RETRIEVAL: _retrieval()}


def _cache() -> web.Application:
    """`GET /cache/KEY` tells the result or 404, `PUT` keeps it; the oldest goes for a new one."""
    results: OrderedDict[str, bytes] = OrderedDict()

    async def look_up(request: web.Request) -> web.Response:
        result = results.get(request.match_info["key"])
        if result is None:
            return web.Response(status=404, text="nothing is known of it\n")
        return web.Response(body=result, content_type="text/plain")

    async def keep(request: web.Request) -> web.Response:
        results[request.match_info["key"]] = await request.read()
        if len(results) > RESULTS_MAX:
            results.popitem(last=False)
        return web.Response(status=204)

    app = web.Application(client_max_size=RESULT_BYTES_MAX)
    app.router.add_get("/cache/{key}", look_up)
    app.router.add_put("/cache/{key}", keep)
    return app


def _retrieval() -> web.Application:
    """`POST /retrieval/search` finds the same two documents for everybody, and not soon."""

    async def search(_: web.Request) -> web.Response:
        await asyncio.sleep(SEARCH_SECONDS)
        return web.json_response({"documents": ["Envoy is a proxy.", "A mesh is many of them."]})

    app = web.Application()
    app.router.add_post("/retrieval/search", search)
    return app
