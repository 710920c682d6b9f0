"""extproc/admin/server.py and listening.py, over real sockets."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

from extproc.admin.headers import ALWAYS
from extproc.admin.listening import CONNECTIONS_MAX, LINE_BYTES_MAX, listening
from extproc.admin.page import CONTENT_SECURITY_POLICY
from extproc.admin.server import admin_app, administering
from extproc.admin.views import Views
from tests.browser.fed import Fed, budget, tenant

PATHS: Final = ("/", "/budgets", "/budgets.json", "/settings", "/metrics", "/healthz", "/readyz")
WAIT_SECONDS: Final = 10


class Client:
    """Asks one server, whose answers it leaves as they are."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self.port = port

    async def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of an answer."""
        wanted = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self._session.request(method, url, headers=wanted) as answer:
            return answer.status, answer.headers, await answer.read()

    async def send(self, data: bytes) -> bytes:
        """All that comes back until the server hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            return await asyncio.wait_for(reader.read(), WAIT_SECONDS)
        finally:
            writer.close()


@asynccontextmanager
async def clients(port: int) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield Client(session, port)


def served(fed: Fed, test: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    """Run a test against the server."""

    async def run() -> None:
        async with administering(fed.views, "127.0.0.1", 0) as port, clients(port) as client:
            await test(client)

    asyncio.run(run())


def test_probes_and_metrics_answer_as_those_who_ask_expect() -> None:
    fed = Fed()

    async def test(client: Client) -> None:
        assert (await client.ask("/healthz"))[::2] == (200, b"ok\n")
        assert (await client.ask("/readyz"))[::2] == (200, b"ok\n")
        fed.not_ready = "the ledger can't be written: disk full"
        assert (await client.ask("/readyz"))[::2] == (
            503,
            b"the ledger can't be written: disk full\n",
        )
        assert (await client.ask("/healthz"))[::2] == (200, b"ok\n")
        status, headers, body = await client.ask("/metrics")
        assert (status, body) == (200, b"# HELP up\nup 1\n")
        assert headers["content-type"] == "text/plain; version=0.0.4"

    served(fed, test)


@pytest.mark.parametrize(
    "path", [*PATHS, "/nowhere", "/budgets.json?limit=0", "/%2e%2e/etc/passwd"]
)
def test_every_answer_is_safe_to_show(path: str) -> None:
    async def test(client: Client) -> None:
        _, headers, _ = await client.ask(path)
        expected = dict(ALWAYS)
        if path in ("/", "/budgets"):
            expected["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        assert {name: headers[name] for name in expected} == expected
        assert "access-control-allow-origin" not in headers
        assert "aiohttp" not in headers["server"]

    served(Fed(), test)


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(path: str) -> None:
    async def test(client: Client) -> None:
        status, headers, body = await client.ask(path, "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0

    served(Fed(), test)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/budgets/", 404),
        ("GET", "/budgets/events", 404),
        ("POST", "/budgets.json", 405),
        ("DELETE", "/settings", 405),
        ("OPTIONS", "/budgets.json", 405),
        ("GET", "/budgets.json?limit=1000000", 400),
        ("GET", "/budgets.json?nonsense=1", 400),
        ("GET", "/budgets.json?tenant=" + "x" * 9000, 400),
    ],
)
def test_what_is_not_there_is_refused(method: str, path: str, status: int) -> None:
    async def test(client: Client) -> None:
        told, headers, body = await client.ask(path, method)
        assert told == status
        assert "text/html" not in headers["content-type"]
        assert len(body) < 1000
        assert ("allow" in headers) == (status == 405)

    served(Fed(), test)


def test_budgets_are_a_page_for_people_and_json_for_scripts() -> None:
    async def test(client: Client) -> None:
        for accept in ("text/html,application/json;q=0.9", "*/*", ""):
            _, headers, body = await client.ask("/budgets", Accept=accept)
            assert headers["content-type"] == "text/html; charset=utf-8"
            assert gzip.decompress(body).startswith(b"<!doctype html>")
        for path in ("/budgets", "/budgets.json"):
            _, headers, body = await client.ask(path, Accept="application/json", Accept_Encoding="")
            assert headers["content-type"] == "application/json"
            assert json.loads(body)["tenants"]["total"] == 2

    served(Fed(), test)


def test_large_answers_are_compressed_for_those_who_can_read_it() -> None:
    fed = Fed({f"t{n}": tenant(budget("minute", 10)) for n in range(50)})

    async def test(client: Client) -> None:
        _, plain_headers, plain = await client.ask("/budgets.json", Accept_Encoding="identity")
        _, headers, packed = await client.ask("/budgets.json", Accept_Encoding="gzip")
        assert "content-encoding" not in plain_headers
        assert (headers["content-encoding"], headers["vary"]) == ("gzip", "Accept, Accept-Encoding")
        assert gzip.decompress(packed) == plain
        assert len(packed) < len(plain) / 4

    served(fed, test)


def test_a_tenant_s_name_comes_as_it_is_in_json_and_never_in_the_page() -> None:
    name = "<script>alert(1)</script>"

    async def test(client: Client) -> None:
        _, _, body = await client.ask("/budgets.json", Accept_Encoding="identity")
        assert json.loads(body)["tenants"]["rows"][0]["tenant"] == name
        _, _, page = await client.ask(
            "/budgets?tenant=%3Cscript%3Ealert", Accept_Encoding="identity"
        )
        assert b"alert" not in page.replace(b"alarm", b"")

    served(Fed({name: tenant()}), test)


def test_settings_say_what_is_in_force_and_no_secret() -> None:
    fed = Fed()

    async def test(client: Client) -> None:
        _, _, body = await client.ask("/settings?tenant=init", Accept_Encoding="identity")
        told = json.loads(body)
        assert list(told["settings"]["tenants"]) == ["initech"]
        assert told["settings"]["models"]["gpt-4"]["usd_per_million"]["output"] == 60
        assert not any(key in body.decode() for key in fed.loaded.keys)

    served(fed, test)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9090", "127.0.0.1.evil.example"])
def test_a_page_that_rebinds_its_name_to_us_is_told_nothing(host: str) -> None:
    async def test(client: Client) -> None:
        status, headers, body = await client.ask("/budgets.json", Host=host)
        assert status == 421
        assert b"tenants" not in body
        assert headers["x-content-type-options"] == "nosniff"

    served(Fed(), test)


def test_who_listens_for_everybody_answers_to_every_name() -> None:
    async def run() -> None:
        app = admin_app(Fed().views, is_local=False)
        async with listening(app, "127.0.0.1", 0) as port, clients(port) as client:
            assert (await client.ask("/healthz", Host="llm-extproc.llm.svc:9090"))[0] == 200

    asyncio.run(run())


def test_a_bug_is_answered_without_a_word_about_it(caplog: pytest.LogCaptureFixture) -> None:
    def fail(accept: str) -> tuple[bytes, str]:
        msg = f"a secret {accept}"
        raise ValueError(msg)

    async def run(views: Views) -> None:
        async with administering(views, "127.0.0.1", 0) as port, clients(port) as client:
            status, headers, body = await client.ask("/metrics")
            assert (status, body) == (500, b"internal error: the log says where\n")
            assert headers["x-content-type-options"] == "nosniff"
            assert (await client.ask("/healthz"))[0] == 200

    asyncio.run(run(Fed().views._replace(metrics=fail)))

    assert "admin.failed ValueError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * (LINE_BYTES_MAX + 10) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"secret" * 2000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfcsecret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: secret\r\n\r\n",
    ],
    ids=["a long line", "a long header", "TLS", "a length that is none"],
)
def test_what_is_no_http_is_refused_and_not_logged(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(client: Client) -> None:
        assert (await client.send(data)).startswith(b"HTTP/1.0 400 ") or not data.isascii()
        assert (await client.ask("/healthz"))[0] == 200

    with caplog.at_level(logging.DEBUG, "extproc"):
        served(Fed(), test)

    assert "secret" not in caplog.text


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: lo"], ids=["silent", "unfinished"])
def test_a_connection_that_does_not_ask_is_closed(data: bytes) -> None:
    async def run() -> None:
        app = admin_app(Fed().views)
        async with listening(app, "127.0.0.1", 0, idle_seconds=0.05) as port, clients(port) as one:
            assert await one.send(data) == b""

    asyncio.run(run())


def test_a_connection_whose_answer_nobody_reads_is_closed() -> None:
    async def run() -> None:
        given_up = asyncio.Event()

        class Long(web.Response):
            """More than what all buffers on the way can take."""

            async def write_eof(self, data: bytes = b"") -> None:
                try:
                    await super().write_eof(data)
                finally:
                    given_up.set()

        async def answer(_: web.Request) -> web.Response:
            return Long(body=bytes(40_000_000))

        app = web.Application()
        app.router.add_get("/", answer)
        async with listening(app, "127.0.0.1", 0, idle_seconds=0.05) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            await asyncio.wait_for(given_up.wait(), WAIT_SECONDS)
            writer.close()

    asyncio.run(run())


def test_a_connection_that_keeps_asking_stays() -> None:
    async def test(client: Client) -> None:
        for _ in range(5):
            assert (await client.ask("/healthz"))[0] == 200

    served(Fed(), test)


def test_beyond_the_limit_connections_are_refused_until_one_ends() -> None:
    async def run() -> None:
        app = admin_app(Fed().views)
        async with (
            listening(app, "127.0.0.1", 0, connections_max=2) as port,
            clients(port) as client,
        ):
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            for _, writer in held:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for reader, _ in held:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            assert await client.send(b"") == b""
            held[0][1].close()
            await held[0][1].wait_closed()
            while True:
                try:
                    assert (await client.ask("/healthz"))[0] == 200
                    break
                except aiohttp.ClientConnectionError:
                    continue
            held[1][1].close()

    asyncio.run(run())
    assert CONNECTIONS_MAX >= 32


def test_the_server_stops_although_somebody_is_connected() -> None:
    async def run() -> None:
        async with administering(Fed().views, "127.0.0.1", 0) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"ok\n")
        assert await asyncio.wait_for(reader.read(), WAIT_SECONDS) == b""
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    asyncio.run(run())


def test_an_address_that_is_taken_is_an_error() -> None:
    async def run() -> None:
        views = Fed().views
        async with administering(views, "127.0.0.1", 0) as port:
            with pytest.raises(OSError, match="address already in use"):
                async with administering(views, "127.0.0.1", port):
                    pass

    asyncio.run(run())
