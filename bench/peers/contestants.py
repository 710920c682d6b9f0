"""Who is measured beside whom."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import yaml

from bench.peers import build
from bench.peers.build import NotBuilt
from bench.through_envoy import Peer, behind_envoy
from tests.scenarios.table import SETTINGS

OURS: Final = "ours, h2"
OURS_GRPCIO: Final = "ours, grpcio"
OURS_ESTIMATE: Final = "ours, h2, estimating"
TRANSPORT: Final = "our h2 doing nothing"
UNREAD: Final = "our h2, nothing read"
GRPC_AIO: Final = "grpc.aio doing nothing"
CPP: Final = "C++ gRPC doing nothing"
GO: Final = "grpc-go doing nothing"
TONIC: Final = "tonic doing nothing"
NO_FILTER: Final = "no filter"
ALL: Final = (
    *(OURS, OURS_ESTIMATE, OURS_GRPCIO, TRANSPORT, UNREAD),
    *(CPP, TONIC, GO, GRPC_AIO, NO_FILTER),
)

_BUILDS: Final[Mapping[str, Callable[[], Path | NotBuilt]]] = {
    CPP: build.cpp,
    GO: build.go,
    TONIC: build.rust,
}


def _service(settings: Path, transport: str) -> Sequence[str]:
    arguments = ("serve", "--settings", str(settings), "--port", "0", "--transport", transport)
    return (sys.executable, "-m", "extproc", *arguments)


def _nothing(*module: str) -> Sequence[str]:
    return (sys.executable, "-m", *module)


def _estimating(directory: Path) -> Path:
    """Write the settings in which no prompt is short enough to be counted exactly."""
    tree = yaml.safe_load(SETTINGS.read_text())
    tree["limits"]["prompt_exact_bytes"] = 0
    for source in tree["identity"]:
        if "api_key" in source:
            source["api_key"]["file"] = str(SETTINGS.parent / source["api_key"]["file"])
    path = directory / "estimating.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _commands(directory: Path) -> dict[str, Sequence[str | Path] | None]:
    """Those of Python; None asks nobody."""
    return {
        OURS: _service(SETTINGS, "h2"),
        OURS_GRPCIO: _service(SETTINGS, "grpcio"),
        OURS_ESTIMATE: _service(_estimating(directory), "h2"),
        TRANSPORT: _nothing("bench.transport_server"),
        UNREAD: _nothing("bench.transport_server", "unread"),
        GRPC_AIO: _nothing("bench.noop_server"),
        NO_FILTER: None,
    }


@contextmanager
def contestants(
    directory: Path, *, names: Sequence[str] = ALL
) -> Iterator[tuple[Mapping[str, Peer], Mapping[str, str]]]:
    """Run those that are named; yields them, and why others are not there.

    Raises:
        StartError: one of them did not start.
    """
    commands = _commands(directory)
    missing = {name: "not asked for" for name in ALL if name not in names}
    for name in _BUILDS.keys() & names:
        match _BUILDS[name]():
            case NotBuilt(why):
                missing[name] = f"not built: {why}"
            case program:
                commands[name] = (program,)
    with ExitStack() as stack:
        found = {}
        for name in names:
            if name not in missing:
                home = directory / name.replace(" ", "-")
                home.mkdir()
                found[name] = stack.enter_context(behind_envoy(commands[name], directory=home))
        yield found, missing
