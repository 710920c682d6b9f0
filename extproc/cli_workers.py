"""`serve --workers N`: several processes on one port."""

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import uvloop

from extproc.config.loader import Loaded
from extproc.exits import EXIT_WRONG_INPUT

WORKERS_MAX: Final = 256

_CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")

_clock = time.time  # noqa: TID251  # a process of its own has the one clock too


def add_options(serve: argparse.ArgumentParser) -> None:
    """Add what `serve` takes."""
    serve.add_argument(
        "--workers",
        type=workers,
        default=1,
        metavar="N",
        help="processes that share the port and, by `ledger: {kind: valkey}`, the budgets;"
        " `auto`: one for each CPU that we may use; default: 1",
    )
    # What a supervisor starts its workers with: the descriptor by which they hear from it.
    serve.add_argument("--worker", type=int, help=argparse.SUPPRESS)


def workers(text: str) -> int:
    """Read a number of workers.

    Raises:
        ArgumentTypeError: it is none.
    """
    if text == "auto":
        return cpus()
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= WORKERS_MAX):
        msg = f"{text!r} is neither `auto` nor a number from 1 to {WORKERS_MAX}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def cpus(cpu_max: Path = _CPU_MAX) -> int:
    """How many CPUs we may use: of those we may run on, as many as our cgroup has time for."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
        count = min(count, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no cgroup, or one without a quota, which says `max`
    return max(1, min(count, WORKERS_MAX))


def run(options: Any, loaded: Loaded, transport: str) -> int:  # noqa: ANN401  # what argparse found
    """Serve by workers; return the exit code.

    Raises:
        OSError: an address can't be bound.
        RuntimeError: the same.
    """
    from extproc.server.lifecycle import DRAIN_SECONDS  # noqa: PLC0415  # `check` must not wait for it
    from extproc.workers.supervisor import Plan, supervise, worker_command  # noqa: PLC0415  # as above

    kind = loaded.settings.ledger.kind
    if kind != "valkey":
        print(
            f"--workers {options.workers}: $.ledger.kind is {kind}, which is for one process;"
            " several need `valkey`, which they share",
            file=sys.stderr,
        )
        return EXIT_WRONG_INPUT
    port = loaded.settings.listen.port if options.port is None else options.port
    command = worker_command(options.settings, transport)
    plan = Plan(loaded.settings, options.workers, port, command, DRAIN_SECONDS)
    logging.getLogger(__name__).info("%d workers", options.workers)
    return uvloop.run(supervise(plan, on_ready=_say, now=_clock()))


def _say(what: str) -> None:
    print(what, flush=True)
