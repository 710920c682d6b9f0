"""What is no LLM call passes as if the filter were not there."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.conformance.harness import CHAT, DEADLINE_SECONDS, Mesh, chat, head, mark, until

PIECE = b"x" * 100_000


class Upload:
    """A body that is sent piece by piece, when the test says so."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, piece: bytes) -> None:
        self._pieces.put_nowait(piece)

    def end(self) -> None:
        self._pieces.put_nowait(b"")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self._pieces.get():
            yield piece


async def test_an_upload_elsewhere_reaches_the_upstream_while_it_is_sent(mesh: Mesh) -> None:
    step, upload = mark(), Upload()

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(mesh.send(aiter(upload), step=step, path="/v1/files"))
        upload.send(PIECE)
        entry = await mesh.body_arrived(step, len(PIECE))
        assert not entry.is_complete
        upload.send(PIECE)
        await mesh.body_arrived(step, 2 * len(PIECE))
        upload.end()

    assert sending.result().status == 200
    assert (await mesh.the_entry(step)).is_complete


async def test_an_upload_elsewhere_may_be_larger_than_what_envoy_buffers(mesh: Mesh) -> None:
    """Once the filter has said that it wants none of it: see `allow_mode_override`."""
    step, upload = mark(), Upload()

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(mesh.send(aiter(upload), step=step, path="/v1/files"))
        upload.send(PIECE)
        await mesh.body_arrived(step, len(PIECE))
        for _ in range(119):
            upload.send(PIECE)
        upload.end()

    assert sending.result().status == 200
    assert (await mesh.the_entry(step)).body_bytes == 120 * len(PIECE)


async def test_an_llm_call_reaches_the_upstream_only_when_it_is_decided(mesh: Mesh) -> None:
    step, upload, body = mark(), Upload(), chat()
    before = mesh.messages_heard()

    async def has_been_told_to_wait() -> bool:
        return mesh.messages_heard() > before

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(mesh.send(aiter(upload), step=step))
        upload.send(body[:20])
        await until(has_been_told_to_wait)
        assert await mesh.books(step) == []
        upload.send(body[20:])
        upload.end()

    assert sending.result().served_by == "gpt4-adapter"


async def test_a_websocket_elsewhere_works(mesh: Mesh) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(mesh.gateway.url + "/v1/realtime", headers=head()) as socket,
    ):
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=DEADLINE_SECONDS) == "platform: hello"
        await socket.send_str("again")
        assert await socket.receive_str(timeout=DEADLINE_SECONDS) == "platform: again"


async def test_a_websocket_on_an_llm_path_is_refused(mesh: Mesh) -> None:
    step = mark()

    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(mesh.gateway.url + CHAT, headers=head(step))

    (record,) = await mesh.log.wait_for(step, count=1)
    assert (refused.value.status, record.details) == (400, "llm_upgrade_refused")
    assert await mesh.books(step) == []


async def test_a_client_that_gives_up_waiting_for_leave_to_send_is_served(mesh: Mesh) -> None:
    """istiod has the upstream say 100, which hears of nothing before the filter has the body.

    So nobody says it, until the client stops waiting: curl after a second. The switch by which
    istiod lets Envoy say it is in `docs/install.md`.
    """
    body = chat()
    lines = [f"POST {CHAT} HTTP/1.1", "host: 127.0.0.1", "expect: 100-continue"]
    lines += [f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in head().items()]
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.gateway.port)

    async with asyncio.timeout(DEADLINE_SECONDS):
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        writer.write(body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert b"HTTP/1.1 200 " in answer
