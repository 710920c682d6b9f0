"""The Pod of Valkey without a Kubernetes: its own command over the files that it would mount.

What differs is said here, and nothing else does: where its folders lie, that it listens on
127.0.0.1, and on what port.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Final, Self

from valkey import Valkey
from valkey.exceptions import ValkeyError

from extproc.mesh.kustomization import load
from tests.manifests.folder import Document
from tests.manifests.generate import ISTIO
from tests.valkeys import DEADLINE_SECONDS, PROGRAM, free_port, wait_until

REPLICATED: Final = ISTIO / "overlays" / "replicated"
PASSWORDS: Final = {"password": "the service's, sixteen", "operator-password": "and the operator's"}


def built(kind: str, name: str, folder: Path = REPLICATED) -> Document:
    """One document of what a folder's kustomization makes."""
    (found,) = [each for each in load([folder]) if (each.kind, each.name) == (kind, name)]
    return dict(found.document)


class ValkeyPod:
    """One server on a port of its own, in a folder that outlives it."""

    def __init__(self, folder: Path, passwords: dict[str, str]) -> None:
        self.port = free_port()
        self.folder = folder
        pod: Any = built("StatefulSet", "llm-valkey")["spec"]["template"]["spec"]
        (self.container,) = pod["containers"]
        (folder / "bin").mkdir()
        (folder / "bin" / "valkey-server").symlink_to(Path(PROGRAM).resolve())
        texts = self._mounted(pod, passwords)
        for path, text in texts.items():
            path.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def _mounted(self, pod: Document, passwords: dict[str, str]) -> dict[Path, str]:
        """What the Pod finds in its volumes; the folders are there afterwards."""
        sources = {each["name"]: each for each in pod["volumes"]}
        texts: dict[Path, str] = {}
        for mount in self.container["volumeMounts"]:
            folder = Path(self.moved(mount["mountPath"]))
            folder.mkdir(parents=True)
            source = sources.get(mount["name"], {})
            found: dict[str, str] = {}
            if "configMap" in source:
                found = built("ConfigMap", source["configMap"]["name"])["data"]
            elif source.get("secret", {}).get("secretName") == "llm-valkey":
                found = passwords
            texts |= {folder / name: self.moved(text) for name, text in found.items()}
        return texts

    def moved(self, text: str) -> str:
        """A text with the Pod's folders where they are here, and the port that is free."""
        paths = [each["mountPath"] for each in self.container["volumeMounts"]]
        for path in sorted(paths, key=len, reverse=True):
            text = text.replace(path, f"@{path[1:].replace('/', ':')}@")
        for path in paths:
            here = self.folder / path[1:].replace("/", ".")
            text = text.replace(f"@{path[1:].replace('/', ':')}@", str(here))
        here_only = text.replace("bind * -::*\n", "bind 127.0.0.1\n")
        return here_only.replace("port 6379\n", f"port {self.port}\n")

    def command(self) -> list[str]:
        program = shutil.which(self.container["command"][0])
        assert program is not None
        return [program, *map(self.moved, self.container["command"][1:])]

    def start(self) -> Self:
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, env={"PATH": path}
            )
        wait_until(self._is_up_or_gone)
        return self

    def _is_up_or_gone(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            return True
        with contextlib.suppress(ValkeyError, OSError), self.client("probe", "none") as client:
            return bool(client.ping())
        return False

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def client(self, user: str | None, password: str | None = None) -> Valkey:
        return Valkey(
            port=self.port, username=user, password=password, socket_timeout=DEADLINE_SECONDS
        )

    def operator(self) -> Valkey:
        return self.client("operator", PASSWORDS["operator-password"])

    def as_operator(self, *words: str) -> Any:
        with self.operator() as client:
            return client.execute_command(*words)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(DEADLINE_SECONDS)
            self._process = None
