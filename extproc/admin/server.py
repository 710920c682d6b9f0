"""The admin server: what there is to see, at which path. It changes nothing.

There is no log-in: it listens where only trusted people come (see `docs/admin.md`).
"""

import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from extproc.admin.answers import Answers, OwnAnswers
from extproc.admin.headers import add_headers, is_loopback, is_own_name
from extproc.admin.listening import Handler, listening
from extproc.admin.overview import TEXT_CHARS_MAX
from extproc.admin.page import CONTENT_SECURITY_POLICY, PAGE
from extproc.admin.views import Views

COMPRESSED_BYTES_MIN: Final = 4096

_log = logging.getLogger(__name__)


@asynccontextmanager
async def administering(views: Views | Answers, address: str, port: int) -> AsyncIterator[int]:
    """Show `views` at `address` until the block ends. Yields the port in use.

    Raises:
        OSError: the address can't be bound.
    """
    app = admin_app(views, is_local=is_loopback(address))
    async with listening(app, address, port) as port_in_use:
        yield port_in_use


def admin_app(views: Views | Answers, *, is_local: bool = True) -> web.Application:
    """Every path that there is. A local one answers to addresses and `localhost` only."""
    shown = _Shown(OwnAnswers(views) if isinstance(views, Views) else views)
    app = web.Application(middlewares=[*([_only_own_names] if is_local else []), _barrier])
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/", shown.page)
    app.router.add_get("/budgets", shown.budgets)
    app.router.add_get("/budgets.json", shown.budgets_json)
    app.router.add_get("/settings", shown.settings)
    app.router.add_get("/metrics", shown.metrics)
    app.router.add_get("/healthz", shown.health)
    app.router.add_get("/readyz", shown.readiness)
    return app


class _Shown:
    """The handlers. They are coroutines because aiohttp wants them so."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def page(self, request: web.Request) -> web.Response:
        """The page, which asks for the rest itself."""
        response = web.Response(text=PAGE, content_type="text/html", charset="utf-8")
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        response.headers["Vary"] = "Accept, Accept-Encoding"
        return _compressed(request, response)

    async def budgets(self, request: web.Request) -> web.Response:
        """The page, or the same as JSON for whoever asks for that."""
        accepted = request.headers.get("Accept", "")
        if "application/json" in accepted and "text/html" not in accepted:
            return await self.budgets_json(request)
        return await self.page(request)

    async def budgets_json(self, request: web.Request) -> web.Response:
        """Everything that the page shows."""
        return _json(request, *await self._answers.overview(request.query))

    async def settings(self, request: web.Request) -> web.Response:
        """The settings in force, and how the last reload went."""
        tenant = request.query.get("tenant", "")[:TEXT_CHARS_MAX]
        return _json(request, *await self._answers.settings(tenant))

    async def metrics(self, request: web.Request) -> web.Response:
        """What Prometheus scrapes."""
        body, content_type = await self._answers.metrics(request.headers.get("Accept", ""))
        response = web.Response(body=body, headers={"Content-Type": content_type})
        return _compressed(request, response)

    async def health(self, _: web.Request) -> web.Response:
        """Whether the process is alive: it answers."""
        return _text("ok")

    async def readiness(self, _: web.Request) -> web.Response:
        """Whether requests are served, or why not."""
        reason = await self._answers.why_not_ready()
        return _text(reason, status=503) if reason else _text("ok")


@web.middleware
async def _only_own_names(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse whoever was led here under another name."""
    if not is_own_name(request.headers.get("Host", "")):
        return _text(
            "This server listens on this machine only: ask for it by address or as localhost.",
            status=421,
        )
    return await handler(request)


@web.middleware
async def _barrier(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keep a bug of ours out of the answer, and what it is about out of the log."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        answer = _text(error.reason.lower(), status=error.status)
        if isinstance(error, web.HTTPMethodNotAllowed):
            answer.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return answer
    except Exception as error:  # noqa: BLE001  # a barrier between requests
        where = "".join(traceback.format_tb(error.__traceback__))
        _log.error("admin.failed %s\n%s", type(error).__name__, where)
        return _text("internal error: the log says where", status=500)


def _text(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text + "\n", status=status, content_type="text/plain")


def _json(request: web.Request, status: int, body: bytes) -> web.Response:
    response = web.Response(body=body, status=status, content_type="application/json")
    response.headers["Vary"] = "Accept, Accept-Encoding"
    return _compressed(request, response)


def _compressed(request: web.Request, response: web.Response) -> web.Response:
    """Compress what is large, for whoever can read it."""
    large = isinstance(response.body, bytes) and len(response.body) >= COMPRESSED_BYTES_MIN
    if large and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)
    return response
