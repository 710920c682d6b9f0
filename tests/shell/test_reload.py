"""A real process over real files: what changes in them comes into force, or changes nothing."""

import asyncio
import hashlib
import json
import shutil
import signal
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse

from extproc.demo.process import Child, child
from tests.scenarios.table import Call, chat
from tests.shell.harness import Client, ask, body_of, head_of

pytestmark = pytest.mark.usefixtures("transport")

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
KEY: Final = "sk-of-somebody"
KEY_SHA256: Final = hashlib.sha256(KEY.encode()).hexdigest()


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

    def problems(self) -> list[str]:
        found: list[str] = (self.settings()["last_reload"] or {}).get("problems", [])
        return found

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

    def until_has(self, tenant: str) -> float:
        return self.until(lambda: self.has(tenant))

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
    (files / "keys.yaml").write_text("{}\n")
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
    service.until_has("new")

    assert service.statuses(Call(chat(), tenant="new")) == [200]
    reload = service.settings()["last_reload"]
    assert (reload["is_in_force"], reload["problems"]) == (True, [])
    assert service.settings()["in_force_since"] == reload["at"]
    assert service.metric("llm_extproc_settings_ok") == 1
    assert service.metric('llm_extproc_settings_reloads_total{result="taken"}') == 1


def test_a_configmaps_link_that_is_swapped_comes_into_force(tmp_path: Path) -> None:
    """As kubelet does it: files are links to `..data/…`, which is a link to a directory."""
    mounted = tmp_path / "mounted"
    (mounted / "..1").mkdir(parents=True)
    (mounted / "..data").symlink_to("..1")
    for name, text in (("settings.yaml", SETTINGS), ("keys.yaml", "{}")):
        (mounted / "..1" / name).write_text(text)
        (mounted / name).symlink_to(f"..data/{name}")

    with served(mounted / "settings.yaml", tmp_path) as running:
        service = Service(running, mounted / "settings.yaml")
        for number in (2, 3):
            new = mounted / f"..{number}"
            new.mkdir()
            (new / "settings.yaml").write_text(with_tenant(f"new-{number}"))
            (new / "keys.yaml").write_text(f"{KEY_SHA256}: new-{number}")
            (mounted / "..data_tmp").symlink_to(new.name)
            (mounted / "..data_tmp").rename(mounted / "..data")
            shutil.rmtree(mounted / f"..{number - 1}")

            service.until_has(f"new-{number}")
            assert service.statuses(by_key()) == [200]
        assert service.metric('llm_extproc_settings_reloads_total{result="taken"}') == 2


def by_key() -> Call:
    return Call(chat(), tenant=None, headers={"authorization": f"Bearer {KEY}"})


def test_a_changed_file_of_keys_comes_into_force(service: Service) -> None:
    assert service.statuses(by_key()) == [401]

    put(service.path.with_name("keys.yaml"), f"{KEY_SHA256}: umbra\n")

    service.until(lambda: service.statuses(by_key()) == [200])


def test_sighup_reads_the_file_anew(service: Service) -> None:
    service.running.process.send_signal(signal.SIGHUP)

    service.until(lambda: service.settings()["last_reload"] is not None)
    assert service.problems() == []


def test_what_is_the_same_is_no_reload(service: Service) -> None:
    service.path.touch()
    put(service.path, SETTINGS)
    put(service.path.with_name("keys.yaml"), "{}\n")
    put(service.path, with_tenant("last"))

    service.until_has("last")
    assert service.metric('llm_extproc_settings_reloads_total{result="taken"}') == 1


SECRET: Final = "5ecre7" * 11
"""No hash, which the key's owner put in its place."""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("tenants: [", "$: line 2", id="no YAML"),
        pytest.param(
            SETTINGS.replace("limit: 3", "limit: many"), "$.tenants.acme.budgets[0].limit"
        ),
        pytest.param(SETTINGS.replace("file: keys", "file: gone"), "$.identity[0].api_key.file"),
        pytest.param("", "$: expected", id="empty"),
        pytest.param(None, "No such file or directory", id="deleted"),
    ],
)
def test_a_broken_file_changes_nothing_and_is_told(
    service: Service, text: str | None, problem: str
) -> None:
    since = service.settings()["in_force_since"]

    if text is None:
        service.path.unlink()
    else:
        put(service.path, text)
    service.until(lambda: bool(service.problems()))

    assert problem in " ".join(service.problems())
    assert service.settings()["in_force_since"] == since
    assert service.statuses(UMBRA) == [200]
    assert service.metric("llm_extproc_settings_ok") == 0
    assert service.metric('llm_extproc_settings_reloads_total{result="refused"}') == 1
    assert "settings.refused" in service.log()
    assert problem in service.log()

    put(service.path, with_tenant("good"))
    service.until_has("good")
    assert service.problems() == []
    assert service.metric("llm_extproc_settings_ok") == 1


def test_a_key_in_the_place_of_its_hash_is_never_told(service: Service) -> None:
    put(service.path.with_name("keys.yaml"), f"{SECRET}: umbra\n")

    service.until(lambda: bool(service.problems()))
    assert "keys.yaml, line 1: expected a SHA-256" in service.problems()[0]
    assert SECRET not in service.log() + service.get("/settings") + service.get("/budgets.json")


def test_a_file_that_was_away_may_come_back_as_it_was(service: Service) -> None:
    service.path.unlink()
    service.until(lambda: bool(service.problems()))

    service.path.write_text(SETTINGS)

    service.until(lambda: not service.problems())
    assert service.statuses(UMBRA) == [200]


def test_limits_count_at_once_and_what_was_used_stays_used(service: Service) -> None:
    assert service.statuses(ACME, ACME) == [200, 200]

    put(service.path, with_tenant("lowered", SETTINGS.replace("limit: 3", "limit: 2")))
    service.until_has("lowered")
    assert service.statuses(ACME) == [429]

    put(service.path, with_tenant("raised", SETTINGS.replace("limit: 3", "limit: 4")))
    service.until_has("raised")
    assert service.statuses(ACME, ACME, ACME) == [200, 200, 429]


def test_a_tenant_that_was_removed_is_refused_and_comes_back_with_what_it_used(
    service: Service,
) -> None:
    assert service.statuses(ACME, ACME) == [200, 200]
    gone = SETTINGS.replace("  acme:", "  other:")

    put(service.path, gone)
    service.until(lambda: not service.has("acme"))
    assert service.statuses(ACME) == [401]

    put(service.path, SETTINGS)
    service.until_has("acme")
    assert service.statuses(ACME, ACME) == [200, 429]


def test_a_window_that_begins_at_another_time_begins_with_nothing_used(service: Service) -> None:
    assert service.statuses(*[ACME] * 4) == [200, 200, 200, 429]

    put(service.path, with_tenant("new", SETTINGS.replace("calendar: year", "seconds: 86399")))
    service.until_has("new")

    assert service.statuses(*[ACME] * 4) == [200, 200, 200, 429]


def test_a_budget_with_another_id_begins_with_nothing_used(service: Service) -> None:
    assert service.statuses(*[ACME] * 4) == [200, 200, 200, 429]

    put(service.path, with_tenant("new", SETTINGS.replace("id: day", "id: days")))
    service.until_has("new")

    assert service.statuses(*[ACME] * 4) == [200, 200, 200, 429]


def test_an_open_exchange_keeps_the_settings_it_began_with(service: Service) -> None:
    """Its head was read before the reload, its body comes after it."""
    renamed = SETTINGS.replace("default: {model: large}", "other: {model: small}").replace(
        "tier: default", "tier: other"
    )

    async def work(client: Client) -> None:
        old, gone = client.open(), client.open()
        await ask(old, head_of(UMBRA))
        await ask(gone, head_of(ACME))
        put(service.path, renamed.replace("  acme:", "  new:"))
        await asyncio.to_thread(service.until_has, "new")

        answer = await ask(old, body_of(UMBRA))
        assert told_of(answer) == ("default", "large")
        answer = await ask(gone, body_of(ACME))
        assert told_of(answer) == ("default", "large")
        assert told_of((await client.send(UMBRA))[-1]) == ("other", "small")
        assert status_of(await client.send(ACME)) == 401

    service.run(work)


def told_of(answer: ProcessingResponse) -> tuple[str, str]:
    told = answer.dynamic_metadata["llm"]
    return told["tier"], told["model"]


def test_what_cannot_change_is_told_and_the_rest_comes_into_force(service: Service) -> None:
    changed = SETTINGS.replace("kind: memory", "kind: memory, reservation_seconds: 5")
    changed = changed.replace("port: 0}\nidentity", "port: 1}\nidentity") + "meter: observe\n"

    put(service.path, with_tenant("new", changed))
    service.until_has("new")

    shown = service.settings()
    names = ["$.admin.port", "$.ledger.reservation_seconds", "$.meter"]
    assert shown["needs_restart"] == names
    assert (shown["settings"]["meter"], shown["settings"]["admin"]["port"]) == ("lua", 0)
    assert service.metric("llm_extproc_settings_needing_restart") == 3
    for name in names:
        assert f"settings.needs_restart {name}" in service.log()

    put(service.path, SETTINGS)
    service.until(lambda: not service.settings()["needs_restart"])


RELOADS: Final = 8


def test_no_request_fails_while_settings_change_again_and_again(service: Service) -> None:
    tenants = [f"new-{number}" for number in range(RELOADS)]

    async def work(client: Client) -> None:
        is_over = False
        statuses: Counter[int] = Counter()

        async def ask_on() -> None:
            while not is_over:
                statuses[status_of(await client.send(UMBRA))] += 1

        async with asyncio.TaskGroup() as asking:
            for _ in range(4):
                asking.create_task(ask_on())
            for name in tenants:
                put(service.path, with_tenant(name))
                await asyncio.to_thread(service.until_has, name)
            is_over = True
        assert statuses.keys() == {200}
        assert statuses.total() > RELOADS

    service.run(work)
    assert service.metric('llm_extproc_settings_reloads_total{result="taken"}') == RELOADS
    assert service.metric('llm_extproc_decisions_total{outcome="failed",reason=""}') == 0


def test_a_storm_of_changes_is_few_reloads_and_ends_with_the_last(service: Service) -> None:
    for number in range(300):
        put(service.path, with_tenant(f"new-{number}"))

    service.until_has("new-299")
    assert service.metric('llm_extproc_settings_reloads_total{result="taken"}') <= 10
