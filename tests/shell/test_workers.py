"""Several processes on one port and one Valkey, kept by one: what they do as if they were one."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest

from extproc.config.loader import load_file
from extproc.demo.process import Child, child
from extproc.workers import supervisor
from tests.conformance.harness import settings_in
from tests.ledger_books import NOON
from tests.scenarios.table import Call, chat
from tests.shell.harness import Client, ask, body_of, head_of
from tests.valkeys import Server, running, wait_until

WORKERS: Final = 3
LIMIT: Final = 300
ONE: Final = Call(chat(), tenant=None, headers={"authorization": "Bearer sk-three-hundred-a-year"})
START_SECONDS: Final = 180.0
"""Four processes begin on a machine that does much else."""


@pytest.fixture
def valkey() -> Iterator[Server]:
    with running() as server:
        yield server


def workers_of(supervisor: int) -> list[int]:
    tasks = Path(f"/proc/{supervisor}/task").glob("*/children")
    children = [int(pid) for file in tasks for pid in file.read_text().split()]
    return sorted(pid for pid in children if is_worker(pid))


def is_worker(pid: int) -> bool:
    try:
        return b"--worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return False


class Service:
    """A supervisor that serves."""

    def __init__(self, running: Child) -> None:
        self.running = running
        line = running.wait_for(lambda: self.line("listening on "), seconds=START_SECONDS)
        self.port = int(line.rpartition(":")[2])
        self.admin = self.line("admin on ")

    def line(self, prefix: str) -> str | None:
        *lines, _ = self.running.log.read_text().split("\n")
        return next((line[len(prefix) :] for line in lines if line.startswith(prefix)), None)

    @property
    def pid(self) -> int:
        return self.running.process.pid

    def workers(self) -> list[int]:
        """Those that live, by their ids, the first to be started first."""
        return workers_of(self.pid)

    def get(self, path: str) -> str:
        url = f"http://{self.admin}{path}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def readiness(self) -> str:
        try:
            return self.get("/readyz")
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()

    def metrics(self) -> dict[str, float]:
        """Every series by its name and labels."""
        lines = [line for line in self.get("/metrics").splitlines() if line[:1] != "#"]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    def until(self, is_so: Any) -> None:
        self.running.wait_for(lambda: is_so() or None, seconds=START_SECONDS)

    def until_all_serve(self) -> None:
        self.until(lambda: self.metrics()["llm_extproc_workers"] == WORKERS)


def command(settings: Path, *options: str) -> list[str | Path]:
    words = ("-m", "extproc", "serve", "--settings", str(settings), "--port", "0", *options)
    return [sys.executable, *words]


@contextmanager
def serving(
    folder: Path, valkey: Server, *options: str, workers: int = WORKERS, **changes: Any
) -> Iterator[Service]:
    settings = settings_in(folder, ledger={"kind": "valkey", "url": valkey.url}, **changes)
    words = command(settings, "--workers", str(workers), *options)
    with child("service", words, directory=folder) as running:
        yield Service(running)


async def asked(port: int, count: int, *, connections: int = 12) -> Counter[str]:
    """Ask on so many connections at once; count what is said."""
    said: Counter[str] = Counter()

    async def lane(number: int) -> None:
        # Channels to the same address share a connection unless they differ.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.primary_user_agent", str(number))]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            client = Client(channel)
            for _ in range(count // connections):
                answer = (await client.send(ONE))[-1]
                said["refused" if answer.HasField("immediate_response") else "routed"] += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(connections):
            tasks.create_task(lane(number))
    return said


def decisions(metrics: dict[str, float]) -> list[float]:
    """How many exchanges each worker has seen."""
    name = 'llm_extproc_worker_decisions_total{worker="%d"}'
    return [metrics[name % number] for number in range(WORKERS)]


def counters(metrics: dict[str, float]) -> dict[str, float]:
    endings = ("_total", "_count", "_sum", "_bucket")
    return {
        name: value for name, value in metrics.items() if name.partition("{")[0].endswith(endings)
    }


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("transport", ["h2", "grpcio"])
def test_workers_admit_together_exactly_what_fits(
    tmp_path: Path, valkey: Server, transport: str
) -> None:
    with serving(tmp_path, valkey, "--transport", transport) as service:
        said = asyncio.run(asked(service.port, LIMIT + 60))
        metrics = service.metrics()
        ready = service.get("/readyz")

    assert said == {"routed": LIMIT, "refused": 60}
    # Twelve connections to three: that one gets all of them happens once in 177,147 times.
    assert sum(seen > 0 for seen in decisions(metrics)) > 1
    assert sum(decisions(metrics)) == LIMIT + 60
    assert metrics['llm_extproc_decisions_total{outcome="routed",reason=""}'] == LIMIT
    assert metrics["llm_extproc_decision_duration_seconds_count"] == LIMIT + 60
    assert metrics["llm_extproc_workers"] == WORKERS
    assert ready == "ok\n"


def test_a_worker_that_is_killed_is_replaced_and_what_it_counted_stays(
    tmp_path: Path, valkey: Server
) -> None:
    with serving(tmp_path, valkey, budget_api={"port": 0}) as service:
        asyncio.run(asked(service.port, 120))
        before, pids = service.metrics(), service.workers()
        for pid in pids[:2]:
            os.kill(pid, signal.SIGKILL)
        # Until then a connection may still come to who is dying, and is reset.
        service.until(lambda: service.metrics()["llm_extproc_worker_restarts_total"] == 2)

        meanwhile = asyncio.run(asked(service.port, 60))
        service.until_all_serve()
        said = asyncio.run(asked(service.port, LIMIT))
        after = service.metrics()
        # Whoever looks after budgets finds them where they were.
        budgets = int((service.line("budgets on ") or "").rpartition(":")[2])
        socket.create_connection(("127.0.0.1", budgets)).close()

    assert len(pids) == WORKERS
    assert meanwhile == {"routed": 60}
    # What the dead had leased can't be had until their leases are over; nothing is overrun.
    assert said["routed"] <= LIMIT - 180
    assert said.total() == LIMIT
    went_down = {name: value for name, value in counters(before).items() if after[name] < value}
    assert not went_down
    assert sum(decisions(after)) == 180 + LIMIT


def test_all_drain_together(tmp_path: Path, valkey: Server) -> None:
    async def run(service: Service) -> Any:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            stream = Client(channel).open()
            await ask(stream, head_of(ONE))
            service.running.process.terminate()
            await asyncio.to_thread(service.until, lambda: len(service.workers()) == 1)
            answer = await ask(stream, body_of(ONE))
            assert await stream.read() is grpc.aio.EOF
            return answer

    with serving(tmp_path, valkey) as service:
        answer = asyncio.run(run(service))
        code = service.running.process.wait(START_SECONDS)

    assert answer.HasField("request_body")
    assert code == 0


def test_workers_end_with_their_supervisor(tmp_path: Path, valkey: Server) -> None:
    with serving(tmp_path, valkey) as service:
        pids = service.workers()
        os.kill(service.pid, signal.SIGKILL)
        deadline = time.monotonic() + START_SECONDS
        while any(map(is_alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.02)

    assert len(pids) == WORKERS
    assert not any(map(is_alive, pids))


def test_new_settings_reach_all_workers(tmp_path: Path, valkey: Server) -> None:
    with serving(tmp_path, valkey) as service:
        os.kill(service.pid, signal.SIGHUP)
        service.until(
            lambda: (
                service.metrics()['llm_extproc_settings_reloads_total{result="taken"}'] >= WORKERS
            )
        )


def test_who_begins_anew_keeps_to_what_needs_a_restart(tmp_path: Path, valkey: Server) -> None:
    with serving(tmp_path, valkey, workers=2) as service:
        settings = tmp_path / "policy.yaml"
        # Two of one service that kept different books would let in twice as much.
        settings.write_text(settings.read_text().replace(valkey.url, "valkey://127.0.0.1:1/0"))
        waiting = "llm_extproc_settings_needing_restart"
        service.until(lambda: service.metrics()[waiting] == 1)
        for pid in service.workers():
            os.kill(pid, signal.SIGKILL)
        service.until(lambda: service.metrics()["llm_extproc_worker_restarts_total"] == 2)
        service.until(lambda: service.metrics()["llm_extproc_workers"] == 2)
        service.until(lambda: service.metrics()[waiting] == 1)

        after = service.metrics()

    assert after["llm_extproc_ledger_up"] == 1


def test_it_gives_up_where_no_worker_stays_alive(tmp_path: Path, valkey: Server) -> None:
    with serving(tmp_path, valkey, workers=2) as service:
        (tmp_path / "policy.yaml").write_text("version: 2\n")
        for pid in service.workers():
            os.kill(pid, signal.SIGKILL)
        service.until(lambda: service.readiness() == "no worker serves\n")
        code = service.running.process.wait(START_SECONDS)

    assert code == 1
    assert "giving up: no worker stays alive" in service.running.log.read_text()


def test_a_worker_that_says_nothing_is_replaced(
    tmp_path: Path, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SILENT_SECONDS_MAX", 3.0)
    settings = settings_in(
        tmp_path, ledger={"kind": "valkey", "url": valkey.url}, admin={"port": 0}
    )
    plan = supervisor.Plan(
        load_file(settings).settings, 2, 0, supervisor.worker_command(settings, "h2"), 5.0
    )

    async def run() -> tuple[int, list[int], list[int]]:
        up = asyncio.Event()
        serving = asyncio.ensure_future(
            supervisor.supervise(
                plan, on_ready=lambda line: up.set() if line[0] == "l" else None, now=NOON
            )
        )
        async with asyncio.timeout(START_SECONDS):
            await up.wait()
            before = workers_of(os.getpid())
            os.kill(before[0], signal.SIGSTOP)
            await asyncio.to_thread(wait_until, lambda: is_replaced(before[0]), START_SECONDS)
            after = workers_of(os.getpid())
        os.kill(os.getpid(), signal.SIGTERM)
        return await serving, before, after

    code, before, after = asyncio.run(run())

    assert code == 0
    assert len(before) == 2
    assert before[1] in after


def is_replaced(pid: int) -> bool:
    workers = workers_of(os.getpid())
    return pid not in workers and len(workers) == 2


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_ledger_of_one_process_is_refused(tmp_path: Path, kind: str) -> None:
    settings = settings_in(tmp_path, ledger={"kind": kind})

    ended = subprocess.run(
        command(settings, "--workers", "2"), capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1] == (
        f"--workers 2: $.ledger.kind is {kind}, which is for one process;"
        " several need `valkey`, which they share"
    )


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, ledger={"kind": "valkey", "url": "valkey://127.0.0.1:1/0"})
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        words = command(settings, "--workers", "2", "--port", str(port))
        ended = subprocess.run(words, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert f"127.0.0.1:{port} can't be bound" in ended.stderr


def test_what_keeps_workers_from_starting_is_told_once(tmp_path: Path) -> None:
    ledger = {"kind": "valkey", "url": "valkey://v", "password_file": str(tmp_path / "none")}
    settings = settings_in(tmp_path, ledger=ledger)

    ended = subprocess.run(
        command(settings, "--workers", "3"), capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert ended.stderr.count("ledger.password_file: ") == 1
    assert "listening on" not in ended.stdout
