"""`listen.connection_age_seconds`, on both transports: who is asked to go, and what still ends."""

import asyncio
import sys
from pathlib import Path
from typing import Final

import grpc.aio
import pytest
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, SettingsFrame

from extproc.demo.process import child
from tests.scenarios.table import Call, chat
from tests.shell.harness import Client, ask, body_of, head_of

pytestmark = pytest.mark.usefixtures("transport")

SECONDS_MAX: Final = 30.0
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9

SETTINGS: Final = """\
version: 1
listen: {address: 127.0.0.1, port: 0, connection_age_seconds: 1}
admin: {port: 0}
identity: [{header: x-tenant-id}]
models: {large: {encoding: cl100k_base, context_tokens: 8192, output_tokens_max: 4096}}
tiers: {default: {model: large}}
plans: {standard: [{tier: default}]}
tenants: {acme: {plan: standard}}
ledger: {kind: memory}
telemetry: {audit: "off"}
"""


async def goaway_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> GoAwayFrame:
    """Be a peer that calls nothing, until it is asked to go."""
    writer.write(PREFACE + SettingsFrame(0).serialize())
    while True:
        frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(HEAD_BYTES)))
        frame.parse_body(memoryview(await reader.readexactly(length)))
        match frame:
            case GoAwayFrame():
                return frame
            case SettingsFrame() if "ACK" not in frame.flags:
                writer.write(SettingsFrame(0, flags=["ACK"]).serialize())
            case PingFrame() if "ACK" not in frame.flags:
                writer.write(PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())


def test_an_old_connection_is_left_and_what_began_on_it_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS)
    call = Call(chat(max_tokens=5))

    async def run(port: int) -> None:
        async with (
            asyncio.timeout(SECONDS_MAX),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            client = Client(channel)
            begun = client.open()
            await ask(begun, head_of(call))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            goaway = await goaway_on(reader, writer)
            writer.close()
            last = await ask(begun, body_of(call))
            assert last.HasField("request_body")
            assert await begun.code() is grpc.StatusCode.OK
            await client.send(call)
            assert goaway.error_code == 0

    program: list[str | Path] = [sys.executable, "-m", "extproc", "serve", "--settings", path]
    with child("service", program, directory=tmp_path) as service:
        asyncio.run(run(int(service.wait_for_line("listening on 127.0.0.1:"))))
