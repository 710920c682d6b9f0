"""A mesh for tests: real adapters, the real service, a real Envoy, and eyes on all three."""

import asyncio
import hashlib
import io
import itertools
import json
import socket
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml

from extproc.demo import envoy, stage
from extproc.demo.accesslog import AccessLog
from extproc.demo.attachment import Wiring
from extproc.demo.clients import STEP_HEADER
from extproc.demo.process import Child

CHAT = "/v1/chat/completions"
SETTINGS = Path(__file__).parent / "policy.yaml"
DEADLINE_SECONDS = 60.0
"""No test waits for this long; a hanging one fails."""

_POLL_SECONDS = 0.01
_LOG_LINES_SHOWN = 20
_LOG_CHARS_SHOWN = 500
_marks = itertools.count(1)


class Answer(NamedTuple):
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def served_by(self) -> str:
        """The adapter, or empty."""
        return self.headers.get("x-served-by", "")


class Entry(NamedTuple):
    """What an adapter got."""

    adapter: str
    method: str
    path: str
    headers: list[list[str]]
    body_bytes: int
    body_sha256: str
    is_complete: bool

    def header(self, name: str) -> str | None:
        """The header's value; None where it is missing. A repeated one fails the test."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None


class Mesh:
    """One Envoy in front of one service and the adapters. `folder` has the logs of both."""

    def __init__(
        self,
        gateway: envoy.Gateway,
        service: Child,
        service_port: int,
        control_port: int,
        settings: Path,
    ) -> None:
        self.folder = settings.parent
        self.gateway = gateway
        self.service = service
        self.service_port = service_port
        self.settings = settings
        self.log = AccessLog(gateway.access_log)
        self._control = f"http://127.0.0.1:{control_port}"

    async def send(  # noqa: PLR0913  # each is a part of a request
        self,
        body: bytes | AsyncIterable[bytes] | None = None,
        *,
        step: str = "",
        tenant: str | None = "acme",
        path: str = CHAT,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request on a connection of its own and read the whole answer."""
        sockets: list[socket.socket] = []
        connector = aiohttp.TCPConnector(socket_factory=lambda found: _kept(found, sockets))
        timeout = aiohttp.ClientTimeout(DEADLINE_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(
                method,
                self.gateway.url + path,
                # aiohttp warns of large bytes, but not of files.
                data=io.BytesIO(body) if isinstance(body, bytes) else body,
                headers=head(step, tenant=tenant) | dict(headers or {}),
            ) as response,
        ):
            read = await response.read()
            names = {name.lower(): value for name, value in response.headers.items()}
        await _closed(sockets)
        return Answer(response.status, names, read)

    async def books(self, step: str) -> list[Entry]:
        """What reached the adapters with this mark."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self._control}/books", params={"step": step}) as response,
        ):
            return [Entry(**entry) for entry in await response.json()]

    async def the_entry(self, step: str) -> Entry:
        """The one request that reached an adapter with this mark."""
        (entry,) = await self.books(step)
        return entry

    async def open_gate(self, name: str) -> None:
        """Let one more event of a gated answer pass."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self._control}/gates/{name}") as response,
        ):
            assert response.status == 200

    async def body_arrived(self, step: str, size: int) -> Entry:
        """Wait until an adapter has this much of the body; return what it has."""
        await until(lambda: self._has_arrived(step, size))
        return await self.the_entry(step)

    async def _has_arrived(self, step: str, size: int) -> bool:
        return any(entry.body_bytes >= size for entry in await self.books(step))

    def messages_heard(self) -> int:
        """How many answers Envoy has had from the service."""
        return self.gateway.stats(envoy.MANAGER_STATS + "ext_proc.llm.")["stream_msgs_received"]

    async def service_is_draining(self) -> bool:
        """Whether the service has heard the signal: it takes no more connections."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.service_port)
        except ConnectionError:  # refused, or reset by a socket that was just being closed
            return True
        writer.close()
        await writer.wait_closed()
        return False


def _kept(
    found: tuple[int, int, int, str, tuple[Any, ...]], sockets: list[socket.socket]
) -> socket.socket:
    family, kind, protocol, _, _ = found
    sockets.append(socket.socket(family, kind, protocol))
    return sockets[-1]


async def _closed(sockets: list[socket.socket]) -> None:
    """Wait until the loop has let go of them: it still sends what an early answer cut off."""

    async def are_closed() -> bool:
        return all(one.fileno() == -1 for one in sockets)

    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
    await until(are_closed)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again, until it holds."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await holds():  # noqa: ASYNC110  # other processes tell nobody
            await asyncio.sleep(_POLL_SECONDS)


def head(step: str = "", *, tenant: str | None = "acme") -> dict[str, str]:
    """The headers of a request."""
    headers = {"content-type": "application/json"}
    if step:
        headers[STEP_HEADER] = step
    if tenant is not None:
        headers["authorization"] = f"Bearer sk-{tenant}"
    return headers


def mark() -> str:
    """A name for a request that no other has."""
    return f"t{next(_marks)}"


def chat(text: str = "Say hello.", *, model: str = "gpt-4", **more: Any) -> bytes:
    """A chat body."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": model, "messages": messages, **more}).encode()


def settings_in(folder: Path, *, source: Path = SETTINGS, **changes: Any) -> Path:
    """Copy the settings, changed at the top level, with a key for every tenant beside them."""
    ledger = {"kind": "sqlite", "path": str(folder / "ledger.db")}
    tree = {"ledger": ledger} | yaml.safe_load(source.read_text()) | changes
    keys = {
        hashlib.sha256(f"sk-{tenant}".encode()).hexdigest(): tenant for tenant in tree["tenants"]
    }
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(tree))
    (folder / "keys.yaml").write_text(yaml.safe_dump(keys))
    return file


@contextmanager
def running(
    folder: Path,
    adapters: Mapping[str, int],
    version: str,
    *,
    source: Path = SETTINGS,
    wiring: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Iterator[Mesh]:
    """Run a service with these settings and an Envoy of this version in front of it."""
    settings = settings_in(folder, source=source, **changes)
    with ExitStack() as stack:
        service, port = stack.enter_context(stage.service(settings, directory=folder))
        wired = Wiring(port, adapters, **(wiring or {}))
        gateway = stack.enter_context(envoy.gateway(wired, directory=folder, version=version))
        yield Mesh(gateway, service, port, adapters["control"], settings)


def last_words(folder: Path) -> Iterator[tuple[str, str]]:
    """What the processes of a mesh said last, by the name of their log."""
    for log in sorted((*folder.glob("*.log"), *folder.glob("*.jsonl"))):
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        yield log.name, "\n".join(line[:_LOG_CHARS_SHOWN] for line in lines)
