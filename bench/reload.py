"""What a reload of very many tenants costs the requests that are decided meanwhile.

    python -m bench.reload [--tenants 100000]

Runs the real service and one client that sends a request after the other, first with nothing else
to do, then while the file is replaced: by one with another tenant, then by one in which every
budget is different. Prints the client's latencies, and how long each took to be in force.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final, NamedTuple

import grpc.aio

from extproc.demo.process import Child, child
from tests.scenarios.table import Call, chat
from tests.shell.harness import Client

HEAD: Final = """\
version: 1
listen: {address: 127.0.0.1, port: 0}
admin: {port: 0}
identity: [{header: x-tenant-id}]
models: {m: {encoding: cl100k_base, context_tokens: 8192, output_tokens_max: 1024}}
tiers: {default: {model: m}}
plans: {tin: [{tier: default}]}
ledger: {kind: memory}
telemetry: {audit: "off"}
tenants:
"""
IDLE_SECONDS: Final = 10.0
CALL: Final = Call(chat(max_tokens=5), tenant="t0")


class Latencies(NamedTuple):
    """Of requests that came one after the other, in seconds."""

    found: list[float]

    def __str__(self) -> str:
        shares = statistics.quantiles(self.found, n=1000)
        p50, p99, p999 = (1000 * shares[at] for at in (499, 989, 998))
        worst = 1000 * max(self.found)
        return (
            f"{len(self.found):7d} requests, ms: p50 {p50:6.2f}  p99 {p99:6.2f}"
            f"  p99.9 {p999:6.2f}  worst {worst:7.2f}"
        )


def settings_of(tenants: int, more: int, *, extra: bool = False) -> str:
    """So many tenants with two budgets each."""
    lines = [
        f"  t{number}: {{plan: tin, budgets: ["
        f"{{id: min, limit: {60000000 + number + more}, unit: tokens, window: {{seconds: 60}}}}, "
        f"{{id: month, limit: {more}.5, unit: usd, window: {{calendar: day}}}}]}}\n"
        for number in range(tenants)
    ]
    return HEAD + "".join(lines) + ("  extra: {plan: tin}\n" if extra else "")


def taken(admin: str) -> int:
    """How many reloads there were."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=60) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith('llm_extproc_settings_reloads_total{result="taken"}'):
                return int(float(line.rpartition(" ")[2]))
    return 0


def memory_mb(process: int) -> int:
    """Resident memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) // 1024


async def measure(service: Child, path: Path, tenants: int) -> None:
    port, admin = (
        service.wait_for_line(f"{what} on 127.0.0.1:") for what in ("listening", "admin")
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = Client(channel)
        found: list[float] = []

        async def ask_until(is_over: asyncio.Event) -> Latencies:
            found.clear()
            while not is_over.is_set():
                began = time.perf_counter()
                await client.send(CALL)
                found.append(time.perf_counter() - began)
            return Latencies(list(found))

        async def idle(over: asyncio.Event) -> None:
            await asyncio.sleep(IDLE_SECONDS)
            over.set()

        async def reload(over: asyncio.Event, text: str) -> None:
            before = await asyncio.to_thread(taken, admin)
            new = path.with_suffix(".new")
            await asyncio.to_thread(new.write_text, text)
            new.rename(path)
            began = time.perf_counter()
            await asyncio.to_thread(
                service.wait_for, lambda: taken(admin) > before or None, seconds=300
            )
            print(f"in force after {time.perf_counter() - began:.1f} s")
            await asyncio.sleep(IDLE_SECONDS)  # what was in force is forgotten bit by bit
            over.set()

        for name, text in (
            ("idle", None),
            ("one tenant more", settings_of(tenants, 0, extra=True)),
            ("every budget changed", settings_of(tenants, 1)),
            ("idle again", None),
        ):
            over = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(ask_until(over))
                tasks.create_task(idle(over) if text is None else reload(over, text))
            print(f"{name:22s} {asking.result()}  rss {memory_mb(service.process.pid)} MB")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "settings.yaml")
        path.write_text(settings_of(options.tenants, 0))
        program = [sys.executable, "-m", "extproc", "serve", "--settings", str(path)]
        with child("service", program, directory=Path(name)) as service:
            service.wait_for(lambda: "listening" in service.log.read_text() or None, seconds=300)
            asyncio.run(measure(service, path, options.tenants))


if __name__ == "__main__":
    main()
