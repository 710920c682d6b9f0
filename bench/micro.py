"""Microseconds of each stage of the pipeline, and of each scenario as a whole, by pytest-benchmark.

    make bench-micro        (python -m bench.micro [--brief])

No Envoy, no socket: what our own code takes in a loop of its own, where caches stay warm. Runs are
repeated in processes of their own, and figures are medians over runs of the median in each.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.micro_cases import ROUNDS_VARIABLE
from bench.report import RESULTS, Spread, spread, table
from bench.telling import keep, machine, parser, tell

CASES: Final = Path(__file__).with_name("micro_cases.py")
RUNS: Final = 3
ROUNDS: Final = 500


def main(*arguments: str) -> None:
    """Measure, and tell."""
    options = parser("micro").parse_args(arguments)
    runs, rounds = (1, 20) if options.brief else (RUNS, ROUNDS)
    result: Mapping[str, Any] = {
        "machine": machine(),
        "rounds": rounds,
        "us": measured(runs, rounds),
    }
    text = tell("micro", tables(result))
    if not options.brief:
        from bench.pictures import bars  # noqa: PLC0415  # matplotlib is slow to load

        keep("micro", result, text)
        stages = {name: spread(found) for name, found in result["us"]["stages"].items()}
        title = "Stages of the pipeline, 2 KB chats never seen before"
        bars(RESULTS / "micro-stages.png", title, unit="µs", series={"median": stages})


def measured(runs: int, rounds: int) -> Mapping[str, Mapping[str, list[float]]]:
    """Return µs, one for each run, by group and name.

    Raises:
        SystemExit: a case failed.
    """
    found: dict[str, dict[str, list[float]]] = {"stages": {}, "scenarios": {}}
    for _ in range(runs):
        for one in _run(rounds):
            values = found[one["group"]].setdefault(one["name"], [])
            values.append(round(1e6 * one["stats"]["median"], 2))
    return found


def _run(rounds: int) -> Sequence[Mapping[str, Any]]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "found.json"
        options = ["-q", "-p", "no:cacheprovider", "--benchmark-quiet", f"--benchmark-json={file}"]
        # A test runs this on one of several workers, which it would take itself for.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", CASES, *options, "--benchmark-disable-gc"],
            env={**environment, ROUNDS_VARIABLE: str(rounds)},
            stdout=subprocess.PIPE,
            check=False,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.stdout)
        cases: Sequence[Mapping[str, Any]] = json.loads(file.read_text())["benchmarks"]
    return cases


def tables(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a table of stages, and one of scenarios."""
    found = []
    for group, cases in result["us"].items():
        spreads: dict[str, Spread] = {name: spread(values) for name, values in cases.items()}
        rows = [[name, value.text(1)] for name, value in spreads.items()]
        title = (
            f"{group.capitalize()}, µs: median (low..high) of runs, {result['rounds']} rounds each"
        )
        found.append((title, table([group[:-1], "µs"], rows)))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
