"""A real process over real files: what changes in them comes into force, or changes nothing."""

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest

from extproc.demo.process import Child, child
from tests.scenarios.table import Call, chat
from tests.shell.harness import Client

SECONDS_MAX: Final = 30.0
"""Nothing takes so long but on a machine that does much else; what is promised is 2."""

SETTINGS: Final = """\
version: 1
listen: {address: 127.0.0.1, port: 0}
admin: {port: 0}
identity:
  - api_key: {header: authorization, scheme: Bearer, file: keys.yaml}
  - header: x-tenant-id
models:
  large: {encoding: cl100k_base, context_tokens: 8192, output_tokens_max: 4096}
  small: {encoding: cl100k_base, context_tokens: 8192, output_tokens_max: 4096}
tiers: {default: {model: large}}
plans: {standard: [{tier: default}]}
tenants:
  acme:
    plan: standard
    budgets: [{id: day, limit: 3, unit: requests, window: {calendar: year}}]
  umbra: {plan: standard}
ledger: {kind: memory}
telemetry: {audit: "off"}
"""
KEYS: Final = ""
OPENAI_KEY: Final = "sk-of-umbra"
OPENAI_KEY_SHA256: Final = "cafe" * 16


class Service:
    """A process that serves the settings in a directory."""

    def __init__(self, running: Child, path: Path) -> None:
        self.path = path
        self.running = running
        self.port = int(running.wait_for_line("listening on 127.0.0.1:"))
        self.admin = int(running.wait_for_line("admin on 127.0.0.1:"))

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/settings"))
        return found

    def is_refused(self) -> bool:
        return bool((self.settings()["last_reload"] or {}).get("problems"))

    def has(self, tenant: str) -> bool:
        return tenant in self.settings()["settings"]["tenants"]

    def log(self) -> str:
        return self.running.log.read_text()

    def metric(self, name: str) -> float:
        lines = self.get("/metrics").splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))

    def until(self, is_so: Callable[[], bool]) -> float:
        """Wait until something is so; say for how many seconds."""
        began = time.monotonic()
        self.running.wait_for(lambda: is_so() or None, seconds=SECONDS_MAX)
        return time.monotonic() - began

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            yield Client(channel)

    def run(self, work: Callable[[Client], Awaitable[None]]) -> None:
        async def run() -> None:
            async with self.client() as client:
                await work(client)

        asyncio.run(run())

    def statuses(self, *calls: Call) -> list[int]:
        found: list[int] = []

        async def work(client: Client) -> None:
            found.extend([status_of(await client.send(call)) for call in calls])

        self.run(work)
        return found


def status_of(answers: list[Any]) -> int:
    """The status of a refusal; 200 where the request was let go."""
    last = answers[-1]
    if last.WhichOneof("response") == "immediate_response":
        status: int = last.immediate_response.status.code
        return status
    assert last.dynamic_metadata["llm"]["outcome"] == "routed"
    return 200


ACME: Final = Call(chat(max_tokens=5))
UMBRA: Final = Call(chat(max_tokens=5), tenant="umbra")


def put(path: Path, text: str) -> None:
    """As editors and `cp` do it after a pause: another file takes the name."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.rename(path)


def served(path: Path, directory: Path) -> AbstractContextManager[Child]:
    program: list[str | Path] = [sys.executable, "-m", "extproc", "serve", "--settings", path]
    return child("service", program, directory=directory)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    files = tmp_path / "files"
    files.mkdir()
    path = files / "settings.yaml"
    path.write_text(SETTINGS)
    (files / "keys.yaml").write_text(f"{OPENAI_KEY_SHA256}: umbra\n")
    with served(path, tmp_path) as running:
        yield Service(running, path)


def with_tenant(name: str, text: str = SETTINGS) -> str:
    return text.replace("  umbra:", f"  {name}: {{plan: standard}}\n  umbra:")


@pytest.mark.parametrize("way", ["written in place", "renamed over"])
def test_a_changed_file_comes_into_force(service: Service, way: str) -> None:
    assert service.statuses(Call(chat(), tenant="new")) == [401]
    assert service.settings()["last_reload"] is None

    if way == "renamed over":
        put(service.path, with_tenant("new"))
    else:
        service.path.write_text(with_tenant("new"))
    service.until(lambda: service.has("new"))

    assert service.statuses(Call(chat(), tenant="new")) == [200]
    reload = service.settings()["last_reload"]
    assert (reload["is_in_force"], reload["problems"]) == (True, [])
    assert service.settings()["in_force_since"] == reload["at"]
    assert service.metric("llm_extproc_settings_ok") == 1
    assert service.metric('llm_extproc_settings_reloads_total{result="taken"}') == 1
