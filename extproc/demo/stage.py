"""Adapters, the filter's service and Envoy, put together."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from extproc.demo.adapters import READY
from extproc.demo.process import START_SECONDS, Child, child

SERVE: Final = ("-m", "extproc", "serve")
_SERVICE_READY: Final = "listening on "
_ADMIN_READY: Final = "admin on "


@contextmanager
def adapters(directory: Path) -> Iterator[Mapping[str, int]]:
    """Run the adapters; yields their ports by name, `control` among them."""
    arguments = [sys.executable, "-m", "extproc.demo.adapters"]
    with child("adapters", arguments, directory=directory) as running:
        ports: Mapping[str, int] = json.loads(running.wait_for_line(READY))
        yield ports


@contextmanager
def service(settings: Path, *, directory: Path, port: int = 0) -> Iterator[tuple[Child, int]]:
    """Run the service, on a free port unless one is given; yields the process and the port."""
    with starting(settings, directory=directory, port=port) as running:
        yield running, port_of(running)


@contextmanager
def starting(settings: Path, *, directory: Path, port: int) -> Iterator[Child]:
    """Run the service; yields the process, which is not ready yet."""
    arguments = [sys.executable, *SERVE, "--settings", str(settings), "--port", str(port)]
    with child("service", arguments, directory=directory) as running:
        yield running


def port_of(running: Child, *, seconds: float = START_SECONDS) -> int:
    """Where a service listens, once it does.

    Raises:
        StartError: it ended, or did not get ready within `seconds`.
    """
    return int(running.wait_for_line(_SERVICE_READY, seconds=seconds).rpartition(":")[2])


def admin_url(running: Child) -> str:
    """Where a service shows its numbers."""
    return "http://" + running.wait_for_line(_ADMIN_READY)
