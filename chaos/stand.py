"""What is put to the test: models, a service that can die and come back, and Envoys before it."""

import asyncio
import hashlib
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from chaos.dues import Price
from extproc.demo import envoy, stage
from extproc.demo.accesslog import AccessLog
from extproc.demo.attachment import Tree, Wiring
from extproc.demo.books import Answer
from extproc.demo.process import Child, child

POLICY: Final = Path(__file__).parent / "policy.yaml"
DEADLINE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05
_READY: Final = "listening on "
_RECORDS: Final = "access_logs.open_telemetry_access_log.llm."


class OverdueError(Exception):
    """Something that must happen did not, in time."""


async def until(
    holds: Callable[[], bool | Awaitable[bool]], what: str, *, seconds: float = DEADLINE_SECONDS
) -> None:
    """Look again and again, until it holds.

    Raises:
        OverdueError: it does not, for so many seconds.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return
        if asyncio.get_running_loop().time() > deadline:
            msg = f"not within {seconds:g} s: {what}"
            raise OverdueError(msg)
        await asyncio.sleep(_POLL_SECONDS)  # other processes tell nobody


class Models:
    """The mock models: their ports, and what they say they did."""

    def __init__(self, ports: Mapping[str, int], prices: Mapping[str, Price]) -> None:
        self.ports = ports
        self.prices = prices
        """By adapter."""
        self._control = f"http://127.0.0.1:{ports['control']}"

    def answers(self) -> dict[str, Answer]:
        """What they did, by step: the last try. One that follows an answer is a mistake of ours."""
        with urllib.request.urlopen(f"{self._control}/answers") as response:
            told = msgspec.json.decode(response.read(), type=list[Answer])
        found: dict[str, Answer] = {}
        for answer in told:
            before = found.get(answer.step)
            if before is not None and before.status // 100 == 2:  # noqa: PLR2004  # RFC 9110
                msg = "a request that was answered reached another model"
                raise AssertionError(msg)
            if answer.step:
                found[answer.step] = answer
        return found

    def let_through(self, gate: str) -> None:
        """Let one more event pass a gate."""
        request = urllib.request.Request(f"{self._control}/gates/{gate}", method="POST")
        urllib.request.urlopen(request).close()


class Service:
    """One service after the other, on one port and one ledger. `program` is told both."""

    def __init__(self, settings: Path, *, program: Sequence[str] = stage.SERVE) -> None:
        self.settings = settings
        self._program = program
        self.ledger = settings.parent / "ledger.db"
        self.port = 0
        self.lives = 0
        self._stack = ExitStack()
        self._child: Child | None = None

    @asynccontextmanager
    async def running(self, *, is_begun: bool = False) -> AsyncIterator["Service"]:
        """Have it run until the block ends; `is_begun`: it was started already."""
        try:
            if not is_begun:
                await self.start()
            yield self
        finally:
            await asyncio.to_thread(self._stack.close)

    async def start(self) -> None:
        """Begin a life, and return once it serves."""
        self.lives += 1
        folder = self.settings.parent / f"life-{self.lives}"
        folder.mkdir()
        arguments = [sys.executable, *self._program]
        arguments += ["--settings", str(self.settings), "--port", str(self.port)]
        running = self._stack.enter_context(child("service", arguments, directory=folder))
        self._child = running
        address = await asyncio.to_thread(running.wait_for_line, _READY)
        self.port = int(address.rpartition(":")[2])

    def admin(self, path: str) -> str:
        """What its admin says."""
        if self._child is None:
            msg = "it does not run"
            raise AssertionError(msg)
        url = stage.admin_url(self._child) + path
        with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as response:
            told: str = response.read().decode()
        return told

    def log(self) -> str:
        """What it has said in all its lives."""
        files = sorted(self.settings.parent.glob("life-*/service.log"))
        return "".join(file.read_text(errors="replace") for file in files)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        self.signal(signal.SIGKILL)
        await self._has_ended()

    async def terminate(self) -> None:
        """Ask it to end, and return when it has."""
        self.signal(signal.SIGTERM)
        await self._has_ended()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._process_id(), number)

    def _process_id(self) -> int:
        if self._child is None:
            msg = "it does not run"
            raise AssertionError(msg)
        return self._child.process.pid

    async def _has_ended(self) -> None:
        if self._child is not None:
            await asyncio.to_thread(self._child.process.wait, DEADLINE_SECONDS)


class Proxy:
    """One Envoy, and all that can be read of it."""

    def __init__(self, gateway: envoy.Gateway) -> None:
        self.gateway = gateway
        self.log = AccessLog(gateway.access_log)

    def stats(self) -> dict[str, int]:
        """What its access logger has counted."""
        return self.gateway.stats(_RECORDS)

    def repeated(self) -> int:
        """How many calls to the service were made again."""
        return self.gateway.stats(envoy.SERVICE_STATS)["upstream_rq_retry"]

    def is_idle(self) -> bool:
        """Whether every request has ended."""
        return self.gateway.stats(envoy.MANAGER_STATS)["downstream_rq_active"] == 0

    def has_delivered(self, requests: int) -> bool:
        """Whether the records of so many requests were acknowledged, or dropped."""
        stats = self.stats()
        return stats["logs_written"] + stats["logs_dropped"] >= requests

    def has_delivered_all(self) -> bool:
        """Whether all requests have ended, and their records been acknowledged or dropped."""
        self.log.read()
        return self.is_idle() and self.has_delivered(len(self.log.records))

    def reservations(self) -> dict[str, str]:
        """Which reservation each step has had."""
        self.log.read()
        found = ((record.step, record.llm.get("reservation")) for record in self.log.records)
        return {step: reservation for step, reservation in found if step and reservation}

    def post(self, path: str) -> None:
        """Tell its admin something."""
        url = f"http://127.0.0.1:{self.gateway.admin_port}{path}"
        urllib.request.urlopen(urllib.request.Request(url, method="POST")).close()


@contextmanager
def models(folder: Path) -> Iterator[Models]:
    """Run the mock models until the block ends."""
    folder.mkdir()
    tree = yaml.safe_load(POLICY.read_text())
    prices = {
        adapter: msgspec.convert(model["usd_per_million"], Price, strict=False)
        for model in tree["models"].values()
        for adapter in model["served_by"]
    }
    with stage.adapters(folder) as ports:
        yield Models(ports, prices)


@contextmanager
def proxy(
    folder: Path,
    service_port: int,
    models: Models,
    *,
    version: str = envoy.NEWEST,
    edit: Callable[[Tree], Tree] = envoy.unchanged,
) -> Iterator[Proxy]:
    """Run an Envoy until the block ends."""
    folder.mkdir(parents=True)
    wiring = Wiring(service_port, models.ports)
    with envoy.gateway(wiring, directory=folder, version=version, edit=edit) as gateway:
        yield Proxy(gateway)


def settings_in(
    folder: Path,
    *,
    edit: Callable[[Tree], Tree] = envoy.unchanged,
    **ledger: Any,  # noqa: ANN401  # as in YAML
) -> Path:
    """Write settings into a new folder, with a key for every tenant."""
    folder.mkdir(parents=True)
    tree = edit(yaml.safe_load(POLICY.read_text()))
    tree["ledger"] = ledger
    if ledger.setdefault("kind", "sqlite") == "sqlite":
        ledger["path"] = str(folder / "ledger.db")
    keys = {
        hashlib.sha256(f"sk-{tenant}".encode()).hexdigest(): tenant for tenant in tree["tenants"]
    }
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(tree))
    (folder / "keys.yaml").write_text(json.dumps(keys))
    return file
