"""All of it, at most five minutes; the last line is one line of JSON.

make chaos
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Final

from chaos import cases
from chaos.cases import Numbers, Say
from chaos.disruptions import drawn
from chaos.findings import Findings
from chaos.old_way import old_way
from chaos.ordeal import Plan, Report, Scene, undergo
from chaos.replicated import replicated
from chaos.stand import Models, OverdueError, Service, models, proxy, settings_in
from chaos.traffic import calls
from extproc.demo.process import StartError

SECONDS_MAX: Final = 300
ANSWERS: Final = 2000
REQUESTS_MAX: Final = 20_000
CLIENTS: Final = 32
TIMES_EACH: Final = 10
RESERVATION_SECONDS: Final = 20

Told = dict[str, int | str]
Part = Callable[..., Coroutine[None, None, Told]]
Case = Callable[[Path, Models, Say], Awaitable[Numbers]]
CASES: Final[dict[str, Case]] = {
    "unacknowledged": cases.unacknowledged,
    "cut_off": cases.cut_off,
    "forgotten": cases.forgotten,
    "drained": cases.drained,
    "envoy_killed": cases.envoy_killed,
}


async def main_ordeal(folder: Path, mocks: Models, say: Say, *, seed: int) -> Report:
    """Kill, stop and end the service, ten times each, under load."""
    settings = settings_in(folder / "service", reservation_seconds=RESERVATION_SECONDS)
    order = drawn(
        random.Random(seed),  # noqa: S311  # nothing is kept secret by it
        {"killed": TIMES_EACH, "stopped": TIMES_EACH, "terminated": TIMES_EACH},
    )
    plan = Plan(ANSWERS, REQUESTS_MAX, CLIENTS, order, seed, RESERVATION_SECONDS + 20.0)
    async with Service(settings).running() as service:
        with proxy(folder / "envoy", service.port, mocks) as envoy:
            return await undergo(plan, calls(seed), Scene(service, envoy, mocks, say))


async def one_service(folder: Path, say: Say, *, seed: int) -> Told:
    """One service with its file; what came of it, by name."""
    with models(folder / "models") as mocks:
        report = await main_ordeal(folder / "ordeal", mocks, say, seed=seed)
        for difference in report.findings.differences:
            say("DIFFERENCE " + difference)
        numbers = _told(report, report.findings)
        for name, case in CASES.items():
            found = await case(folder / name, mocks, say)
            numbers |= {f"{name}_{key}": value for key, value in found.items()}
        found = await old_way(folder / "old-way", mocks, say, seed=seed)
        return {**numbers, **{f"old_way_{key}": value for key, value in found.items()}}


async def many_replicas(folder: Path, say: Say, *, seed: int) -> Told:
    """Replicas and the store they share; the same."""
    with models(folder / "models") as mocks:
        report = await replicated(folder / "replicated", mocks, say, seed=seed)
    for difference in report.differences:
        say("DIFFERENCE " + difference)
    told: Told = {**report.wrong, "replicated_cut": report.cut}
    return told | {f"replicated_{key}": value for key, value in report.numbers.items()}


BAD: Final = (
    *("lost", "charged_twice", "differences", "dropped", "still_held", "still_leased"),
    *("overshoot", "phantom_refusals", "unasked", "replays_failed", "never_charged_again"),
)
"""What names of numbers end with that must be 0."""

PARTS: Final[dict[str, Part]] = {"service": one_service, "replicas": many_replicas}


def _told(report: Report, findings: Findings) -> dict[str, int]:
    return {
        "requests": len(report.seen.endings),
        "refused_while_away": report.away,
        "cut_by_a_kill": report.cut,
        "reached_models": findings.reached,
        "completed": findings.completed,
        "lost": findings.lost,
        "charged_twice": findings.charged_twice,
        "differences": len(findings.differences),
        "logs_dropped": report.dropped,
        "calls_repeated": report.repeated,
        "expired": findings.expired,
        "still_held": report.held,
    }


def problems(numbers: Mapping[str, int | str]) -> list[str]:
    """Name what is not as it must be."""
    found = [
        name
        for name, number in numbers.items()
        if number and name.endswith(BAD) and not name.startswith("old_way")
    ]
    if "replicated_kills_mid_stream" in numbers and not numbers["replicated_kills_mid_stream"]:
        found.append("replicated_kills_mid_stream")
    if "unacknowledged_kills" not in numbers:
        return found
    if numbers["unacknowledged_kills"] != cases.KILLS:
        found.append("unacknowledged_kills")
    if not numbers["forgotten_charged_right"]:
        found.append("forgotten_charged_right")
    if numbers["envoy_killed_expired"] != numbers["envoy_killed_expired_and_charged"]:
        found.append("envoy_killed_expired_and_charged")
    if not numbers["old_way_lost"]:
        found.append("old_way_lost")
    return found


def main() -> int:
    """Run it; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--only", choices=PARTS, action="append", help="a part of it")
    options = parser.parse_args()
    seed, parts = options.seed, options.only or list(PARTS)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    say(f"seed {seed}")
    numbers: Told = {"seed": seed}
    try:
        for part in parts:
            left = SECONDS_MAX - (time.monotonic() - began)
            with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
                work = PARTS[part](Path(folder), say, seed=seed)
                numbers |= asyncio.run(asyncio.wait_for(work, left))
    except (StartError, OverdueError, TimeoutError) as error:
        print(json.dumps({"seed": seed, "error": repr(error)}), flush=True)
        return 1
    found = problems(numbers)
    for name in found:
        say(f"NOT WELL: {name}")
    numbers["seconds"] = round(time.monotonic() - began)
    print(json.dumps(numbers), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
