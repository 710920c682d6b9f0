"""Real gRPC clients against our transport: calls of all four kinds, health, TLS, and its end."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.server.h2 import shell
from extproc.server.h2.asynchronous import Context, Unary
from extproc.server.h2.call import Call
from extproc.server.h2.health import Health
from extproc.server.h2.limits import Limits
from extproc.server.h2.shell import serve
from tests.h2.peer import ECHO, PREFACE, Handler, Peer, Silent, message

DEADLINE_SECONDS = 20


class Collect(Handler):
    """Answers with all that came, once all is there: a client-streaming or unary method."""

    def on_message(self, message: bytes) -> None:
        self.heard.append(message)

    def on_end(self) -> None:
        self.call.send(b"".join(self.heard))
        self.call.finish()


class Count(Handler):
    """Answers one message with many: a server-streaming method."""

    def on_message(self, message: bytes) -> None:
        for number in range(int(message)):
            self.call.send(b"%d" % number)


METHODS = {
    ECHO.encode(): Handler,
    b"/test.Echo/Collect": Collect,
    b"/test.Echo/Count": Count,
    b"/test.Echo/Silent": Silent,
}


@asynccontextmanager
async def channel(
    limits: Limits | None = None, *, options: list[tuple[str, Any]] | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        serve("127.0.0.1:0", METHODS, limits=limits, drain_seconds=5) as port,
        asyncio.timeout(DEADLINE_SECONDS),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as opened,
    ):
        yield opened


async def _messages(*texts: bytes) -> AsyncIterator[bytes]:
    for text in texts:
        yield text


def test_calls_of_all_four_kinds() -> None:
    async def run() -> None:
        async with channel() as opened:
            large = b"x" * 3_000_000
            collect, count = "/test.Echo/Collect", "/test.Echo/Count"
            assert await opened.unary_unary(collect)(b"one") == b"one"
            assert await opened.stream_unary(collect)(_messages(b"a", b"", b"b")) == b"ab"
            found = [text async for text in opened.unary_stream(count)(b"500")]
            assert found == [b"%d" % number for number in range(500)]
            echo = opened.stream_stream(ECHO)(_messages(b"1", large, b"3"))
            assert [text async for text in echo] == [b"1", large, b"3"]
            assert await echo.code() is grpc.StatusCode.OK

    uvloop.run(run())


def test_many_calls_at_once() -> None:
    async def run() -> None:
        async with channel(Limits(streams_max=20)) as opened:
            collect = opened.unary_unary("/test.Echo/Collect")
            texts = [b"%d" % number * 1000 for number in range(500)]
            assert await asyncio.gather(*map(collect, texts)) == texts

    uvloop.run(run())


async def status(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details()


def test_errors_are_those_of_grpc() -> None:
    async def run() -> None:
        async with channel(Limits(message_bytes_max=20_000)) as opened:
            unary = opened.unary_unary
            assert await status(unary("/test.Echo/No")(b"")) == (
                grpc.StatusCode.UNIMPLEMENTED,
                "unknown method",
            )
            code, _ = await status(unary("/test.Echo/Collect")(b"x" * 20_001))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await status(unary(ECHO)(b"bug")) == (
                grpc.StatusCode.INTERNAL,
                "internal error",
            )
            gzip = unary("/test.Echo/Collect")(b"x" * 9_999, compression=grpc.Compression.Gzip)
            assert (await status(gzip))[0] is grpc.StatusCode.UNIMPLEMENTED
            code, _ = await status(unary("/test.Echo/Silent")(b"", timeout=0.05))
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert await unary("/test.Echo/Collect")(b"still there") == b"still there"

    uvloop.run(run())


def test_connections_that_age_cost_no_call() -> None:
    async def run() -> None:
        async with channel(Limits(age_seconds=0.2, leave_seconds=5)) as opened:
            collect = opened.unary_unary("/test.Echo/Collect")
            began = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() < began + 1.5:
                assert await collect(b"x") == b"x"

    uvloop.run(run())


def test_health() -> None:
    health = Health(("", "known"))

    async def run() -> None:
        ask = health_pb2.HealthCheckRequest
        answer = health_pb2.HealthCheckResponse
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(DEADLINE_SECONDS):
            async with serve("127.0.0.1:0", health.methods(), drain_seconds=5) as port:
                opened = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
                stub = health_pb2_grpc.HealthStub(opened)
                found = await stub.Check(ask(service="known"))
                assert found.status == answer.SERVING
                code, _ = await status(stub.Check(ask(service="unknown")))
                assert code is grpc.StatusCode.NOT_FOUND
                unknown = stub.Watch(ask(service="unknown"))
                assert (await unknown.read()).status == answer.SERVICE_UNKNOWN
                unknown.cancel()
                watched = stub.Watch(ask(service="known"))
                assert (await watched.read()).status == answer.SERVING
                health.stop()
                assert (await watched.read()).status == answer.NOT_SERVING
                assert (await stub.Check(ask())).status == answer.NOT_SERVING
                ready.set_result(watched)
            # The server is gone within its drain, though somebody watched.
            assert await (await ready).code() is grpc.StatusCode.UNAVAILABLE
            await opened.close()

    uvloop.run(run())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(key), "-out", str(chain), "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    return key, chain


def encrypted(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    return context


def test_tls(certificate: tuple[Path, Path]) -> None:
    async def run() -> None:
        trusted = grpc.ssl_channel_credentials(certificate[1].read_bytes())
        options = [("grpc.ssl_target_name_override", "localhost")]
        async with (
            serve("127.0.0.1:0", METHODS, ssl=encrypted(certificate), drain_seconds=5) as port,
            asyncio.timeout(DEADLINE_SECONDS),
            grpc.aio.secure_channel(f"127.0.0.1:{port}", trusted, options=options) as opened,
        ):
            large = b"x" * 1_000_000
            assert await opened.unary_unary("/test.Echo/Collect")(large) == large

    uvloop.run(run())


def test_tls_without_http_2_is_closed(certificate: tuple[Path, Path]) -> None:
    async def run() -> bytes:
        client = ssl.create_default_context(cafile=str(certificate[1]))
        client.set_alpn_protocols(["http/1.1"])
        async with serve(
            "127.0.0.1:0", METHODS, ssl=encrypted(certificate), drain_seconds=5
        ) as port:
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=client, server_hostname="localhost"
                )
            except (ssl.SSLError, ConnectionError):
                return b""
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            try:
                return await reader.read()
            except ConnectionError:
                return b""
            finally:
                writer.close()

    assert asyncio.run(run()) == b""


def test_an_address_that_is_taken_is_an_error_in_words() -> None:
    async def run() -> None:
        async with serve("127.0.0.1:0", {}, drain_seconds=0) as port:
            with pytest.raises(RuntimeError, match=f"127.0.0.1:{port} can't be bound"):
                async with serve(f"127.0.0.1:{port}", {}, drain_seconds=0):
                    pass

    uvloop.run(run())


def test_connections_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "CONNECTIONS_MAX", 2)

    async def run() -> list[bytes]:
        async with (
            serve("127.0.0.1:0", METHODS, drain_seconds=0) as port,
            asyncio.timeout(DEADLINE_SECONDS),
        ):
            heard = []
            writers = []
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writers.append(writer)
                try:
                    heard.append(await reader.read(9))
                except ConnectionError:
                    heard.append(b"")
            for writer in writers:
                writer.transport.abort()
            return heard

    first, second, third = asyncio.run(run())

    assert first == second != b""
    assert third == b""


class Stuck(asyncio.Transport):
    """A socket into which nothing more goes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low

    def write(self, data: object) -> None:
        del data

    def is_closing(self) -> bool:
        return "close" in self.calls

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


def test_a_peer_that_does_not_read_its_goodbye_is_given_up() -> None:
    async def run() -> list[str]:
        server = shell.Server(METHODS, Limits(stall_seconds=0.05), is_encrypted=False)
        stuck, one = Stuck(), shell.Shell(server)
        one.connection_made(stuck)
        one.data_received(b"GET / HTTP/1.1\r\n\r\n")
        assert stuck.calls == ["close"]
        one.tick()
        assert stuck.calls == ["close"]
        await asyncio.sleep(0.06)
        one.tick()
        return stuck.calls

    assert asyncio.run(run()) == ["close", "abort"]


def test_a_peer_that_reads_nothing_is_given_up() -> None:
    """What it asked for stays within one write buffer and the kernel's, and not for ever."""
    asked: list[Handler] = []

    def method(call: Call) -> Handler:
        asked.append(Handler(call))
        return asked[-1]

    async def run() -> None:
        limits = Limits(stall_seconds=0.3)
        methods = {ECHO.encode(): method}
        async with (
            serve("127.0.0.1:0", methods, limits=limits, drain_seconds=0) as port,
            asyncio.timeout(DEADLINE_SECONDS),
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.write(requests(b"x" * 10_000, calls=CALLS))
            with pytest.raises(ConnectionError):
                await given_up(writer)
            writer.transport.abort()

    asyncio.run(run())

    assert 100 < len(asked) < CALLS


def test_a_peer_that_reads_late_gets_everything() -> None:
    asked: list[Handler] = []

    def method(call: Call) -> Handler:
        asked.append(Handler(call))
        return asked[-1]

    async def run() -> int:
        async with (
            serve("127.0.0.1:0", {ECHO.encode(): method}, drain_seconds=0) as port,
            asyncio.timeout(DEADLINE_SECONDS),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=20_000)
            writer.write(requests(b"x" * 10_000, calls=CALLS))
            before = -1
            while before < len(asked):  # until the server has stopped reading
                before = len(asked)
                await asyncio.sleep(0.1)
            assert before < CALLS
            ends = 0
            while ends < CALLS:
                ends += (await reader.readuntil(TRAILERS_OK)).endswith(TRAILERS_OK)
            writer.transport.abort()
            return ends

    assert asyncio.run(run()) == CALLS


async def double(text: bytes, context: Context) -> bytes:
    del context
    await asyncio.sleep(0)
    return text * 2


def test_answers_that_come_later_are_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "TICK_SECONDS", 1_000)

    async def run() -> None:
        method = partial(Unary[bytes, bytes], double, bytes, bytes)
        async with (
            serve("127.0.0.1:0", {b"/test.Echo/Double": method}, drain_seconds=5) as port,
            asyncio.timeout(DEADLINE_SECONDS),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened,
        ):
            assert await opened.unary_unary("/test.Echo/Double")(b"a", timeout=10) == b"aa"

    uvloop.run(run())


TRAILERS_OK = b"\x0bgrpc-status\x010"
CALLS = 4_000


async def given_up(writer: asyncio.StreamWriter) -> None:
    """Send a PING now and then, until that fails."""
    while True:
        writer.write(b"\0\0\x08\6\0\0\0\0\0" + b"x" * 8)
        await asyncio.wait([asyncio.ensure_future(writer.drain())], timeout=0.05)
        if writer.transport.is_closing():
            raise ConnectionError


def requests(body: bytes, *, calls: int) -> bytes:
    """The bytes of a client that takes any amount of answers, says its windows."""
    peer = Peer(is_greeted=False)
    parts = [PREFACE, b"\0\0\x06\4\0\0\0\0\0" + b"\0\4\x7f\xff\xff\xff"]
    parts.append(b"\0\0\4\x08\0\0\0\0\0\x7f\0\0\0")
    data = message(body)
    for number in range(calls):
        stream_id = 2 * number + 1
        parts.append(peer.headers_frame(stream_id).serialize())
        parts.append(len(data).to_bytes(3) + b"\0\1" + stream_id.to_bytes(4) + data)
    return b"".join(parts)
