"""The model adapters behind Envoy, and the platform's other services: one process, real HTTP.

`python -m extproc.demo.adapters` listens on free ports of 127.0.0.1 and prints them as one line
of JSON, by name; `control` is a port of its own, where tests read the books and open gates.

A request may say how it wants to be answered: see `manners`.
"""

import asyncio
import datetime as dt
import json
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from aiohttp import WSMsgType, web

from extproc.demo import anthropic_answers, hops, openai_answers
from extproc.demo.asked import Asked, Asking, Event, Json, Told
from extproc.demo.books import Answer, Books, Entry, Gates
from extproc.demo.envoy import ADAPTERS
from extproc.demo.manners import BEFORE_ANSWER, Manners, manners_of

BODY_BYTES_MAX: Final = 64 << 20
SHADOW: Final = "router-shadow"
READY: Final = "adapters on "
CONTROL: Final = "control"

_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)


class Api(NamedTuple):
    """How one path answers. `events` is None where it knows no streams."""

    whole: Callable[[Asked], Json]
    events: Callable[[Asked], Iterator[Event]] | None = None
    ends_with: bytes = b""
    told: Callable[[Asked], Told | None] = Asked.told
    """What a whole answer says of tokens."""


_DONE: Final = b"data: [DONE]\n\n"
_CHAT: Final = Api(openai_answers.chat, openai_answers.chat_events, _DONE)

APIS: Final = {
    "/v1/chat/completions": _CHAT,
    "/v1/chat": _CHAT,
    "/v1/completions": Api(openai_answers.completion, openai_answers.completion_events, _DONE),
    "/v1/embeddings": Api(openai_answers.embeddings, told=openai_answers.embeddings_told),
    "/v1/responses": Api(openai_answers.response, openai_answers.response_events),
    "/v1/messages": Api(
        anthropic_answers.message, anthropic_answers.message_events, told=anthropic_answers.told
    ),
    # Counting is free.
    "/v1/messages/count_tokens": Api(anthropic_answers.token_count, told=lambda _: None),
}


MODELS: Final = {
    "gpt4-adapter": "gpt-4",
    "gpt35-adapter": "gpt-3.5-turbo",
    "local-llama": "local-llama",
}
"""What each of them sells."""


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
            manners = manners_of(request.headers, self._name)
            asked = self._asking.read(json.loads(body), manners.usage, created=_now())
        except ValueError:
            return self._json({"error": {"message": "no JSON reached the adapter"}}, status=400)
        answer = self._begin(request, asked)
        await asyncio.sleep(manners.delay_seconds)
        if manners.reset_after == BEFORE_ANSWER:
            return _reset(request, web.Response())
        if manners.status != web.HTTPOk.status_code:
            return await self._refuse(request, answer, manners.status)
        if asked.is_streamed and api.events is not None:
            return await self._stream(request, api, asked, manners, answer)
        return await self._whole(request, api, asked, manners, answer)

    def _begin(self, request: web.Request, asked: Asked) -> Answer:
        headers = request.headers
        answer = Answer(
            step=headers.get("x-demo-step", ""),
            adapter=self._name,
            path=request.path,
            # A shadow answers nobody, so nobody owes it anything.
            tenant="" if self._name == SHADOW else headers.get("x-tenant-id", ""),
            model=self._model_of(request, asked),
            estimate=int(headers.get("x-llm-prompt-tokens", 0)),
        )
        self._books.begin(answer)
        return answer

    def _model_of(self, request: web.Request, asked: Asked) -> str:
        """Its own, where the body names that: after a fallback the header has another."""
        own = MODELS.get(self._name)
        return (
            asked.model if asked.model == own else request.headers.get("x-llm-model", asked.model)
        )

    async def _receive(self, request: web.Request, entry: Entry) -> bytes:
        pieces = []
        async for piece in request.content.iter_any():
            entry.take(piece)
            pieces.append(piece)
        entry.is_complete = True
        return b"".join(pieces)

    async def _stream(
        self, request: web.Request, api: Api, asked: Asked, manners: Manners, answer: Answer
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "content-type": "text/event-stream",
                "cache-control": "no-cache",
                "x-served-by": self._name,
            }
        )
        await response.prepare(request)
        answer.status = response.status
        for event in api.events(asked) if api.events is not None else ():
            if answer.events == manners.reset_after:
                return _reset(request, response)
            if manners.gate is not None:
                await self._gates.pass_through(manners.gate)
            data = _encode(event)
            await response.write(data)
            answer.events += 1
            answer.words += event.words
            answer.body_bytes += len(data)
            answer.told = event.told or answer.told
            if manners.gate is None:
                await asyncio.sleep(manners.pause_seconds)
        await response.write(api.ends_with)
        await response.write_eof()
        answer.body_bytes += len(api.ends_with)
        self._books.end(answer)
        return response

    async def _whole(
        self, request: web.Request, api: Api, asked: Asked, manners: Manners, answer: Answer
    ) -> web.StreamResponse:
        if manners.gate is not None:
            await self._gates.pass_through(manners.gate)
        body = json.dumps(api.whole(asked)).encode()
        headers = {"content-type": "application/json", "x-served-by": self._name}
        response = web.StreamResponse(headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        answer.status = response.status
        if manners.reset_after is not None:
            answer.body_bytes = len(body) // 2
            await response.write(body[: answer.body_bytes])
            return _reset(request, response)
        await response.write(body)
        await response.write_eof()
        answer.body_bytes = len(body)
        answer.told = api.told(asked)
        self._books.end(answer)
        return response

    async def _refuse(self, request: web.Request, answer: Answer, status: int) -> web.Response:
        response = self._json({"error": {"message": "as it was asked for"}}, status)
        await response.prepare(request)
        await response.write_eof()
        answer.status = status
        self._books.end(answer)
        return response

    async def _echo(self, request: web.Request) -> web.WebSocketResponse:
        echo = web.WebSocketResponse()
        await echo.prepare(request)
        async for message in echo:
            if message.type is WSMsgType.TEXT:
                await echo.send_str(f"{self._name}: {message.data}")
        return echo

    def _json(self, body: Json, status: int = 200) -> web.Response:
        return web.json_response(body, status=status, headers={"x-served-by": self._name})


def _reset(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Break the connection off, with a reset and not with an end."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        transport.abort()
    return response


def _encode(event: Event) -> bytes:
    name = f"event: {event.name}\n" if event.name else ""
    return f"{name}data: {json.dumps(event.data)}\n\n".encode()


def _now() -> int:
    return int(dt.datetime.now(dt.UTC).timestamp())


def control_app(books: Books, gates: Gates) -> web.Application:
    """Serve `GET /books?step=NAME`, `GET /answers`, `GET /served` and `POST /gates/NAME`."""

    async def read_books(request: web.Request) -> web.Response:
        return web.json_response(books.as_json(request.query.get("step")))

    async def read_answers(_: web.Request) -> web.Response:
        return web.Response(body=books.answers(), content_type="application/json")

    async def read_served(_: web.Request) -> web.Response:
        return web.Response(body=books.served(), content_type="application/json")

    async def open_gate(request: web.Request) -> web.Response:
        gates.let_through(request.match_info["name"])
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/books", read_books)
    app.router.add_get("/answers", read_answers)
    app.router.add_get("/served", read_served)
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
