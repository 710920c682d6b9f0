"""The model adapters behind Envoy, and the platform's other services: one process, real HTTP.

`python -m extproc.demo.adapters` listens on free ports of 127.0.0.1 and prints them as one line
of JSON, by name; `control` is a port of its own, where tests read the books and open gates.

A request may say how it wants to be answered:

* `x-adapter-pause-ms`: between two events of a stream (default 40)
* `x-adapter-gate`: wait before every event, or before a whole answer, until a
  `POST /gates/NAME` lets one through
"""

import asyncio
import datetime as dt
import json
import signal
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from aiohttp import WSMsgType, web

from extproc.demo import anthropic_answers, hops, openai_answers
from extproc.demo.asked import Asked, Asking, Event, Json
from extproc.demo.books import Books, Entry, Gates
from extproc.demo.envoy import ADAPTERS

PAUSE_MS: Final = 40
BODY_BYTES_MAX: Final = 64 << 20
READY: Final = "adapters on "
CONTROL: Final = "control"


class Api(NamedTuple):
    """How one path answers. `events` is None where it knows no streams."""

    whole: Callable[[Asked], Json]
    events: Callable[[Asked], Iterator[Event]] | None = None
    ends_with: bytes = b""


_DONE: Final = b"data: [DONE]\n\n"
_CHAT: Final = Api(openai_answers.chat, openai_answers.chat_events, _DONE)

APIS: Final = {
    "/v1/chat/completions": _CHAT,
    "/v1/chat": _CHAT,
    "/v1/completions": Api(openai_answers.completion, openai_answers.completion_events, _DONE),
    "/v1/embeddings": Api(openai_answers.embeddings),
    "/v1/responses": Api(openai_answers.response, openai_answers.response_events),
    "/v1/messages": Api(anthropic_answers.message, anthropic_answers.message_events),
    "/v1/messages/count_tokens": Api(anthropic_answers.token_count),
}


class Adapter:
    """One service: answers LLM calls in its own name, and anything else with what it got."""

    def __init__(self, name: str, books: Books, gates: Gates) -> None:
        self._name = name
        self._books = books
        self._gates = gates
        self._asking = Asking(name)

    def app(self) -> web.Application:
        """What aiohttp serves."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        headers = [(name.lower(), value) for name, value in request.headers.items()]
        entry = self._books.open(self._name, request.method, request.path_qs, headers)
        if request.headers.get("upgrade", "").lower() == "websocket":
            return await self._echo(request)
        body = await self._receive(request, entry)
        api = APIS.get(request.path) if request.method == "POST" else None
        if api is None:
            told = {"served_by": self._name, "path": request.path_qs, "body_bytes": len(body)}
            return self._json(told)
        try:
            asked = self._asking.read(json.loads(body), created=_now())
        except ValueError:
            return self._json({"error": {"message": "no JSON reached the adapter"}}, status=400)
        if asked.is_streamed and api.events is not None:
            return await self._stream(request, api.events(asked), api.ends_with)
        if gate := request.headers.get("x-adapter-gate"):
            await self._gates.pass_through(gate)
        return self._json(api.whole(asked))

    async def _receive(self, request: web.Request, entry: Entry) -> bytes:
        pieces = []
        async for piece in request.content.iter_any():
            entry.take(piece)
            pieces.append(piece)
        entry.is_complete = True
        return b"".join(pieces)

    async def _stream(
        self, request: web.Request, events: Iterator[Event], ends_with: bytes
    ) -> web.StreamResponse:
        pause_seconds = int(request.headers.get("x-adapter-pause-ms", PAUSE_MS)) / 1000
        gate = request.headers.get("x-adapter-gate")
        response = web.StreamResponse(
            headers={
                "content-type": "text/event-stream",
                "cache-control": "no-cache",
                "x-served-by": self._name,
            }
        )
        await response.prepare(request)
        for event in events:
            if gate is not None:
                await self._gates.pass_through(gate)
            await response.write(_encode(event))
            if gate is None:
                await asyncio.sleep(pause_seconds)
        await response.write(ends_with)
        await response.write_eof()
        return response

    async def _echo(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(f"{self._name}: {message.data}")
        return socket

    def _json(self, body: Json, status: int = 200) -> web.Response:
        return web.json_response(body, status=status, headers={"x-served-by": self._name})


def _encode(event: Event) -> bytes:
    name = f"event: {event.name}\n" if event.name else ""
    return f"{name}data: {json.dumps(event.data)}\n\n".encode()


def _now() -> int:
    return int(dt.datetime.now(dt.UTC).timestamp())


def control_app(books: Books, gates: Gates) -> web.Application:
    """Serve `GET /books?step=NAME` and `POST /gates/NAME`."""

    async def read_books(request: web.Request) -> web.Response:
        return web.json_response(books.as_json(request.query.get("step")))

    async def open_gate(request: web.Request) -> web.Response:
        gates.let_through(request.match_info["name"])
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/books", read_books)
    app.router.add_post("/gates/{name}", open_gate)
    return app


async def serve() -> None:
    """Serve all of them until SIGTERM or SIGINT."""
    books, gates = Books(), Gates()
    apps = {name: Adapter(name, books, gates).app() for name in ADAPTERS} | hops.apps()
    apps[CONTROL] = control_app(books, gates)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    ports: dict[str, int] = {}
    runners = []
    for name, app in apps.items():
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports[name] = runner.addresses[0][1]
        runners.append(runner)
    print(READY + json.dumps(ports), flush=True)  # noqa: T201  # how it says where it listens
    await stopping.wait()
    for runner in runners:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
