"""Several processes of the service that share a Valkey, as `istio/base-replicated` runs them."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from extproc.demo import mesh_steps, stage
from extproc.demo.attachment import ISTIO, Wiring
from extproc.demo.process import START_SECONDS, Child
from extproc.demo.valkey import Valkey, wait_until_ready

EJECTION_SECONDS: Final = 3
"""So long a replica that can't be reached is left alone here; 15 s as it is shipped."""

TRAFFIC: Final = ISTIO / "base-replicated" / "traffic.yaml"
_TOO_LATE: Final = "the store of budgets is away: no answer within"
_ADDED: Final = Path(__file__).parent / "replicated.yaml"


def _watchable(document: dict[str, Any]) -> None:
    """Shorten, in the replicas' DestinationRule too, how long one is left alone."""
    mesh_steps.watchable(document)
    if (document["kind"], document["metadata"]["name"]) == ("DestinationRule", "llm-extproc"):
        outliers = document["spec"]["trafficPolicy"]["outlierDetection"]
        outliers |= {"interval": "0.5s", "baseEjectionTime": f"{EJECTION_SECONDS}s"}


def tenants() -> tuple[str, ...]:
    """Those that are there for replicas alone."""
    return tuple(_added()["tenants"])


def reservation_seconds() -> int:
    """How long a reservation waits for its settlement here."""
    seconds: int = _added()["ledger"]["reservation_seconds"]
    return seconds


def _added() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(_ADDED.read_text())
    return tree


class Replica:
    """One process of the service. It keeps the port by which Envoy knows it."""

    def __init__(self, settings: Path, directory: Path) -> None:
        self.port = 0
        self.admin = ""
        """Where it shows its numbers; empty while it does not run."""
        self._settings = settings
        self._directory = directory
        self._running = ExitStack()

    def launch(self) -> Child:
        """Start the process, which loads its vocabularies first."""
        return self._running.enter_context(
            stage.starting(self._settings, directory=self._directory, port=self.port)
        )

    def wait_until_ready(self, running: Child, *, seconds: float = START_SECONDS) -> None:
        """Wait until it serves.

        Raises:
            StartError: it ended, or took too long.
        """
        self.port = stage.port_of(running, seconds=seconds)
        self.admin = stage.admin_url(running)
        self._process = running.process

    def waits_in_vain(self) -> int:
        """How often it says that Valkey took too long, since it was started last."""
        return (self._directory / "service.log").read_text(errors="replace").count(_TOO_LATE)

    def kill(self) -> None:
        """End it at once, with whatever it had not told anybody."""
        self.admin = ""
        self._process.kill()
        self._running.close()

    def close(self) -> None:
        """End it, with all that it has to tell."""
        self._running.close()


class Replicas:
    """All of them, and what they share."""

    def __init__(self, valkey: Valkey, members: tuple[Replica, ...]) -> None:
        self.valkey = valkey
        self.members = members

    def admins(self) -> tuple[str, ...]:
        """Where those that run show their numbers."""
        return tuple(each.admin for each in self.members if each.admin)

    def wired(self, adapter_ports: Mapping[str, int]) -> Wiring:
        """An Envoy in front of all of them, with the manifest that is there for several."""
        first, *more = (each.port for each in self.members)
        return Wiring(
            first, adapter_ports, more_service_ports=more, more=[TRAFFIC], edit=_watchable
        )

    async def start_again(self, replica: Replica) -> None:
        """Return when one that was killed serves again."""
        # The kernel ends a child with the thread that made it: this one, and none that waits.
        await asyncio.to_thread(replica.wait_until_ready, replica.launch())

    async def start_valkey_again(self) -> bool:
        """Return when the server answers again: whether it has its data."""
        return await asyncio.to_thread(wait_until_ready, self.valkey.launch())


@contextmanager
def running(settings: Path, *, count: int, directory: Path) -> Iterator[Replicas]:
    """Run a Valkey and so many replicas; `settings` are changed to say so.

    Raises:
        StartError: one of them did not start.
    """
    with ExitStack() as stack:
        valkey = Valkey(_made(directory / "valkey"))
        stack.callback(valkey.stop)
        wait_until_ready(valkey.launch())
        _add(settings, valkey, count)
        names = [f"replica-{number}" for number in range(1, count + 1)]
        members = tuple(Replica(settings, _made(directory / name)) for name in names)
        for each in members:
            stack.callback(each.close)
        for each, launched in [(each, each.launch()) for each in members]:
            each.wait_until_ready(launched, seconds=START_SECONDS * count)
        yield Replicas(valkey, members)


def _add(settings: Path, valkey: Valkey, count: int) -> None:
    tree, added = yaml.safe_load(settings.read_text()), _added()
    tree["tenants"] |= added["tenants"]
    server = {"url": valkey.url, "password_file": str(valkey.password_file), "replicas": count}
    tree["ledger"] = added["ledger"] | server
    settings.write_text(yaml.safe_dump(tree))


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
