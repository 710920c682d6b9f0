"""Several processes on one port and one Valkey, kept by one: what they do as if they were one."""

import asyncio
import os
import signal
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

from extproc.demo.process import Child, child
from tests.conformance.harness import settings_in
from tests.scenarios.table import Call, chat
from tests.shell.harness import Client, ask, body_of, head_of
from tests.valkeys import Server, running

WORKERS: Final = 3
LIMIT: Final = 300
ONE: Final = Call(chat(), tenant=None, headers={"authorization": "Bearer sk-three-hundred-a-year"})
START_SECONDS: Final = 90.0
"""Four processes begin on a machine that does much else."""


@pytest.fixture
def valkey() -> Iterator[Server]:
    with running() as server:
        yield server


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
        children = Path(f"/proc/{self.pid}/task").glob("*/children")
        return sorted(int(pid) for file in children for pid in file.read_text().split())

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
    folder: Path, valkey: Server, *options: str, workers: int = WORKERS
) -> Iterator[Service]:
    settings = settings_in(folder, ledger={"kind": "valkey", "url": valkey.url})
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
    with serving(tmp_path, valkey) as service:
        asyncio.run(asked(service.port, 120))
        before, pids = service.metrics(), service.workers()
        for pid in pids[:2]:
            os.kill(pid, signal.SIGKILL)
        service.until(lambda: not any(map(is_alive, pids[:2])))

        # The kernel gives connections to the one that listens, and nobody else.
        meanwhile = asyncio.run(asked(service.port, 60))
        service.until(lambda: service.metrics()["llm_extproc_worker_restarts_total"] == 2)
        service.until_all_serve()
        said = asyncio.run(asked(service.port, LIMIT))
        after = service.metrics()

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
