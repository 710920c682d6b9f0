"""Build the peers that are not Python, each if its tools are there. All is left in `.peers/`."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.peers.descriptors import descriptors

ROOT: Final = Path(__file__).parents[2]
BUILT: Final = ROOT / ".peers"
SOURCES: Final = Path(__file__).parent


class NotBuilt(NamedTuple):
    """Why there is no such peer."""

    why: str


def cpp() -> Path | NotBuilt:
    """Build the C++ server, on the gRPC that pkg-config finds."""
    for tool in ("g++", "make", "pkg-config", "protoc", "grpc_cpp_plugin"):
        if shutil.which(tool) is None:
            return NotBuilt(f"no {tool}")
    if subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], check=False).returncode:  # noqa: S607  # as found on the path
        return NotBuilt("no libgrpc++")
    files = [file.name for file in descriptors().file if not file.name.startswith("google/")]
    makefile = SOURCES / "cpp" / "Makefile"
    variables = (f"DESCRIPTORS={_descriptors()}", f"FILES={' '.join(files)}")
    jobs = f"-j{os.cpu_count()}"
    return _built("cpp", "server", ["make", jobs, "-f", makefile, *variables], cwd=BUILT / "cpp")


def go() -> Path | NotBuilt:
    """Build the Go server."""
    if shutil.which("go") is None:
        return NotBuilt("no go")
    target = BUILT / "go" / "server"
    command: list[str | Path] = ["go", "build", "-trimpath", "-mod=readonly", "-o", target, "."]
    return _built("go", "server", command, cwd=SOURCES / "go")


def rust() -> Path | NotBuilt:
    """Build the Rust server."""
    if shutil.which("cargo") is None:
        return NotBuilt("no cargo")
    command: list[str | Path] = [
        "cargo",
        "build",
        "--release",
        "--locked",
        "--target-dir",
        BUILT / "rust",
    ]
    more = {"DESCRIPTORS": str(_descriptors())}
    return _built("rust", "release/noop", command, cwd=SOURCES / "rust", more=more)


def versions() -> Mapping[str, str]:
    """Say which gRPC each peer has."""
    found = {}
    if shutil.which("pkg-config"):
        command = ["pkg-config", "--modversion", "grpc++"]
        asked = subprocess.run(command, check=False, capture_output=True, text=True)
        found["C++ gRPC"] = asked.stdout.strip()
    for line in (SOURCES / "go" / "go.mod").read_text().splitlines():
        module, _, version = line.strip().partition(" ")
        if module == "google.golang.org/grpc":
            found["grpc-go"] = version.removeprefix("v")
    packages = (SOURCES / "rust" / "Cargo.lock").read_text().split("[[package]]\n")
    for package in packages:
        if package.startswith('name = "tonic"\n'):
            found["tonic"] = package.split('"')[3]
    return found


def _descriptors() -> Path:
    """Write them, if they are others than those that are there: the tools look at the time."""
    file = BUILT / "ext_proc.binpb"
    wanted = descriptors().SerializeToString(deterministic=True)
    if not file.exists() or file.read_bytes() != wanted:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(wanted)
    return file


def _built(
    name: str,
    program: str,
    command: Sequence[str | Path],
    *,
    cwd: Path,
    more: Mapping[str, str] | None = None,
) -> Path | NotBuilt:
    folder = BUILT / name
    folder.mkdir(parents=True, exist_ok=True)
    log = BUILT / f"{name}.log"
    with log.open("wb") as output:
        environment = {**os.environ, **(more or {})}
        done = subprocess.run(
            command, cwd=cwd, env=environment, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        return NotBuilt(f"{command[0]} failed, see {log.relative_to(ROOT)}")
    return folder / program
