"""A test stand for `istio/meter.lua`: an Envoy between a client and an upstream that a test plays.

The test is both ends, so it knows what went in and what came out at any moment, and no two pieces
of an answer reach the meter as one: the next is sent when the one before has arrived.
"""

import asyncio
import http.client
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from string import Template
from typing import Any, Final, NamedTuple

import yaml

from extproc.demo.envoy import find_binary
from extproc.demo.process import Child, child

CHAT: Final = "/v1/chat/completions"
ROUTED: Final = "outcome=routed;tier=premium"
DIRECT: Final = (
    'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: {"choices":[],"usage":{"a":1}}'
)
"""What Envoy answers by itself: data and the end at once, and no blank line."""

METER: Final = Path(__file__).parents[2] / "istio" / "meter.lua"
_DEADLINE_SECONDS: Final = 20.0
_READ_BYTES: Final = 1 << 16
_ids = itertools.count(1)


class Record(NamedTuple):
    """What Envoy logged of a request."""

    protocol: str
    code: int
    flags: str
    llm: dict[str, Any]


class Got(NamedTuple):
    """What a client got. `is_whole` if the answer ended as HTTP has it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool
    id: str


class Stand:
    """A running Envoy."""

    def __init__(self, folder: Path, process: Child, ports: Mapping[str, int]) -> None:
        self.folder = folder
        self.ports = ports
        self._process = process
        self._admin = http.client.HTTPConnection("127.0.0.1", ports["admin"], timeout=5)
        self._log = (folder / "access.jsonl").open("rb")
        self._rest = b""
        self._records: dict[str, Record] = {}

    def close(self) -> None:
        """Let go of what it looks through."""
        self._admin.close()
        self._log.close()

    def stat(self, name: str) -> int:
        """A counter or a gauge."""
        self._admin.request("GET", f"/stats?filter=^{name}$")
        return int(self._admin.getresponse().read().rpartition(b":")[2])

    def memory_bytes(self) -> int:
        """What Envoy has of the machine's memory."""
        status = Path(f"/proc/{self._process.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    async def record(self, got: Got) -> Record:
        """What was logged, as soon as it is."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while got.id not in self._records:
                *lines, self._rest = (self._rest + self._log.read()).split(b"\n")
                for line in lines:
                    said = json.loads(line)
                    id_ = said.pop("id")
                    self._records[id_] = Record(**said | {"llm": said["llm"] or {}})
                if got.id not in self._records:
                    await asyncio.sleep(0.005)  # a file tells nobody that it grew
        return self._records[got.id]

    def what_went_wrong(self) -> str:
        """What Envoy printed."""
        return self._process.log.read_text(errors="replace")

    @asynccontextmanager
    async def upstream(self) -> AsyncIterator["Upstream"]:
        """Play the upstream, until the block ends."""
        upstream = Upstream(self)
        path = self.folder / "upstream"
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(upstream.accept, path)
        async with server:
            yield upstream


class Upstream:
    """Gives each request to the exchange that sent it."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self._waiting: dict[str, asyncio.Future[asyncio.StreamWriter]] = {}

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        id_ = head.lower().partition(b"x-test-id: ")[2].partition(b"\r\n")[0].decode()
        self._waiting.pop(id_).set_result(writer)

    @asynccontextmanager
    async def exchange(
        self,
        *,
        llm: str = ROUTED,
        path: str = CHAT,
        method: str = "POST",
        port: str = "gateway",
        headers: Iterable[str] = (),
    ) -> AsyncIterator["Exchange"]:
        """Send a request, and be ready to answer it."""
        id_ = f"t{next(_ids)}"
        upstream = asyncio.get_running_loop().create_future()
        self._waiting[id_] = upstream
        async with asyncio.timeout(_DEADLINE_SECONDS):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.stand.ports[port], limit=1 << 20
            )
            lines = (f"{method} {path} HTTP/1.1", "host: x", f"x-test-id: {id_}", *headers)
            lines += (f"x-test-llm: {llm}", "content-length: 0", "", "")
            writer.write("\r\n".join(lines).encode())
            exchange = Exchange(self.stand, id_, upstream, reader, writer)
            try:
                yield exchange
            finally:
                self._waiting.pop(id_, None)
                exchange.hang_up()
                if upstream.done():
                    upstream.result().close()


class Exchange:
    """One request, its answer sent from one end and read at the other."""

    def __init__(
        self,
        stand: Stand,
        id_: str,
        upstream: "asyncio.Future[asyncio.StreamWriter]",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._stand = stand
        self._id = id_
        self._upstream = upstream
        self._reader = reader
        self._writer = writer
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._is_chunked = True

    async def begin(self, *headers: str, status: int = 200, length: int | None = None) -> None:
        """Send the answer's head, and read it at the other end."""
        self._is_chunked = length is None
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        lines = (f"HTTP/1.1 {status} X", "connection: close", framing, *headers, "", "")
        (await self._upstream).write("\r\n".join(lines).encode())
        await self.read_head()

    async def read_head(self) -> None:
        """Read the answer's head."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.splitlines()
        self._status = int(first.split()[1])
        for line in filter(None, lines):
            name, _, value = line.partition(": ")
            assert name not in self._headers, f"{name} came twice"
            self._headers[name] = value

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body."""
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if self._is_chunked else piece
        upstream = await self._upstream
        upstream.write(chunk)
        await upstream.drain()

    async def send_and_see(self, piece: bytes) -> None:
        """Send a piece, and wait until Envoy has read it."""
        name = "cluster.upstream.upstream_cx_rx_bytes_total"
        before = self._stand.stat(name)
        await self.send(piece)
        while self._stand.stat(name) <= before:  # noqa: ASYNC110  # Envoy tells nobody
            await asyncio.sleep(0)

    async def pass_on(self, piece: bytes) -> None:
        """Send a piece, and wait until the client has it."""
        expected = len(self._body) + len(piece)
        await self.send(piece)
        await self.read_until(expected)

    async def read_until(self, size: int) -> None:
        """Read until so much of the body has come."""
        while len(self._body) < size:
            assert await self._read_piece(), f"ended after {len(self._body)} of {size} bytes"

    async def finish(self, trailers: str = "") -> Got:
        """End the answer as HTTP has it; return all that the client got."""
        if self._is_chunked:
            (await self._upstream).write(f"0\r\n{trailers}\r\n".encode())
        return await self.rest()

    async def break_off(self) -> Got:
        """Close the upstream's connection in the middle; return all that the client got."""
        (await self._upstream).close()
        return await self.rest()

    def hang_up(self) -> None:
        """Close the client's connection."""
        self._writer.close()

    async def rest(self) -> Got:
        """Read to the end."""
        is_whole = True
        try:
            while await self._read_piece():
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            is_whole = False
        return self.got(is_whole=is_whole)

    def got(self, *, is_whole: bool = False) -> Got:
        """What the client got so far."""
        return Got(self._status, self._headers, bytes(self._body), is_whole, self._id)

    async def _read_piece(self) -> bytes:
        if "content-length" in self._headers:
            missing = int(self._headers["content-length"]) - len(self._body)
            piece = await self._reader.read(min(missing, _READ_BYTES)) if missing else b""
            if missing and not piece:
                raise ConnectionResetError
        else:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            piece = await self._reader.readexactly(size)
            if size:
                await self._reader.readexactly(2)
            else:
                while await self._reader.readuntil(b"\r\n") != b"\r\n":
                    pass
        self._body += piece
        return piece


@contextmanager
def stand(
    version: str,
    directory: Path,
    *,
    edit: Callable[[str], str] = str,
    rewire: Callable[[dict[str, Any], Path], None] = lambda _config, _folder: None,
) -> Iterator[Stand]:
    """Run an Envoy of this version, until the block ends. Its log goes into `directory`.

    `edit` may break the meter, for those who want to see what happens then; `rewire` may change
    Envoy's configuration, sockets in the folder that it is given.
    """
    with tempfile.TemporaryDirectory() as name:  # the path of a socket may not be long
        folder = Path(name)
        config = Template((Path(__file__).parent / "envoy.yaml").read_text()).substitute(
            folder=folder, direct=json.dumps(DIRECT)
        )
        (folder / "meter.lua").write_text(edit(METER.read_text()))
        tree = yaml.safe_load(config)
        rewire(tree, folder)
        (folder / "envoy.yaml").write_text(yaml.safe_dump(tree))
        (folder / "access.jsonl").touch()
        admin = folder / "admin"
        arguments: list[str | Path] = [find_binary(version), "-c", folder / "envoy.yaml"]
        arguments += ["--admin-address-path", admin, "--disable-hot-restart", "--concurrency", "1"]
        arguments += ["--log-level", "warning", "--file-flush-interval-msec", "10"]
        with child("envoy", arguments, directory=directory) as process:
            ports = process.wait_for(lambda: _ports(admin))
            running = Stand(folder, process, ports)
            try:
                yield running
            finally:
                running.close()


def _ports(admin: Path) -> Mapping[str, int] | None:
    """The ports of the listeners, once they are there."""
    port = int(admin.read_text().rpartition(":")[2] or 0) if admin.exists() else 0
    if not port:
        return None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/listeners?format=json")
    found = json.loads(connection.getresponse().read()).get("listener_statuses", [])
    connection.close()
    ports = {
        one["name"]: one["local_address"]["socket_address"]["port_value"]
        for one in found
        if "socket_address" in one["local_address"]
    }
    return {**ports, "admin": port} if "front" in ports else None
