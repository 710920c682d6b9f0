"""Several replicas behind one Envoy, with the rule of base-replicated, on the Valkey of it.

Endpoints come from a file, as istiod would send them, so that replicas come and go as Pods do.
"""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from extproc.demo import envoy, stage
from extproc.demo.attachment import ISTIO, Tree, Wiring
from extproc.demo.process import Child
from tests.conformance.harness import DEADLINE_SECONDS, Mesh, chat, settings_in, until
from tests.manifests.valkey_pod import PASSWORDS, ValkeyPod

RULE: Final = ISTIO / "base-replicated" / "traffic.yaml"
REPLICAS: Final = 3
LANES: Final = 4
TENANT: Final = "initech"


class Replica(NamedTuple):
    child: Child
    port: int


class Replicas:
    """Services that share a Valkey, and the file by which Envoy knows of them."""

    def __init__(self, folder: Path, ledger: Mapping[str, Any], stack: ExitStack) -> None:
        self.running: list[Replica] = []
        self._folder = folder
        self._ledger = ledger
        self._stack = stack
        self._started = 0

    def start(self) -> Replica:
        """One more, ready, of which Envoy does not know yet."""
        self._started += 1
        folder = self._folder / f"replica-{self._started}"
        folder.mkdir()
        settings = settings_in(folder, ledger=dict(self._ledger))
        found = Replica(*self._stack.enter_context(stage.service(settings, directory=folder)))
        self.running.append(found)
        return found

    def publish(self, replicas: list[Replica]) -> None:
        """Tell Envoy that these are all there are."""
        addresses = [{"address": "127.0.0.1", "port_value": each.port} for each in replicas]
        assignment = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": envoy.SERVICE_CLUSTER,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"socket_address": each}}}]}
                for each in addresses
            ],
        }
        new = self._folder / "endpoints.new"
        new.write_text(json.dumps({"resources": [assignment]}))
        new.rename(self._folder / "endpoints.json")  # Envoy looks for files that are moved

    def discovered(self, tree: Tree) -> Tree:
        """Envoy's configuration, in which the service's endpoints stand in our file."""
        (cluster,) = [
            each
            for each in tree["static_resources"]["clusters"]
            if each["name"] == envoy.SERVICE_CLUSTER
        ]
        del cluster["load_assignment"]
        source = {"path_config_source": {"path": str(self._folder / "endpoints.json")}}
        cluster |= {"type": "EDS", "eds_cluster_config": {"eds_config": source}}
        return {**tree, "node": {"id": "test", "cluster": "test"}}


class Scene(NamedTuple):
    mesh: Mesh
    replicas: Replicas

    def hosts(self) -> dict[int, Mapping[str, Any]]:
        """What Envoy knows of each replica, by port."""
        connection = HTTPConnection("127.0.0.1", self.mesh.gateway.admin_port)
        connection.request("GET", "/clusters?format=json")
        told = json.loads(connection.getresponse().read())["cluster_statuses"]
        connection.close()
        (cluster,) = [each for each in told if each["name"] == envoy.SERVICE_CLUSTER]
        return {
            each["address"]["socket_address"]["port_value"]: each
            for each in cluster.get("host_statuses", ())
        }

    def asked(self) -> dict[int, int]:
        """How many calls each replica got."""
        return {
            port: sum(int(s.get("value", 0)) for s in host["stats"] if s["name"] == "rq_total")
            for port, host in self.hosts().items()
        }

    async def tell(self, replicas: list[Replica]) -> None:
        """Have Envoy know these, and no others; it does when this returns."""
        self.replicas.publish(replicas)

        async def is_known() -> bool:
            return set(self.hosts()) == {each.port for each in replicas}

        await until(is_known)

    @asynccontextmanager
    async def load(self) -> AsyncIterator[Counter[int]]:
        """Calls all the while, counted by status."""
        statuses: Counter[int] = Counter()
        is_over = asyncio.Event()

        async def lane() -> None:
            while not is_over.is_set():
                statuses[(await self.mesh.send(chat(), tenant=TENANT)).status] += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(LANES):
                tasks.create_task(lane())
            try:
                yield statuses
            finally:
                is_over.set()


async def at_least(count: Callable[[], int], wanted: int) -> None:
    async def is_enough() -> bool:
        return count() >= wanted

    await until(is_enough)


@contextmanager
def valkey_in(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The ledger of the settings, with its server running."""
    folder.mkdir()
    pod = ValkeyPod(folder, PASSWORDS)
    password = folder / "password"
    password.write_text(PASSWORDS["password"])
    try:
        pod.start()
        url = f"valkey://llm-extproc@127.0.0.1:{pod.port}/0"
        yield {"kind": "valkey", "url": url, "password_file": str(password), "replicas": 6}
    finally:
        pod.end()


@pytest.fixture
def scene(tmp_path: Path, adapters: Mapping[str, int], envoy_version: str) -> Iterator[Scene]:
    with ExitStack() as stack:
        ledger = stack.enter_context(valkey_in(tmp_path / "valkey"))
        replicas = Replicas(tmp_path, ledger, stack)
        first, *_ = [replicas.start() for _ in range(REPLICAS)]
        replicas.publish(replicas.running)
        gateway = stack.enter_context(
            envoy.gateway(
                Wiring(first.port, adapters, more=[RULE]),
                directory=tmp_path,
                version=envoy_version,
                edit=replicas.discovered,
            )
        )
        settings = tmp_path / "replica-1" / "policy.yaml"
        mesh = Mesh(gateway, first.child, first.port, adapters["control"], settings)
        yield Scene(mesh, replicas)


async def test_no_call_fails_while_a_replica_is_replaced_and_all_bear_the_load(
    scene: Scene,
) -> None:
    replicas = scene.replicas
    old, *others = replicas.running
    new = replicas.start()
    async with scene.load() as statuses:
        await at_least(statuses.total, 100)
        spread = scene.asked()
        await scene.tell([old, *others, new])
        await scene.tell([*others, new])
        old.child.process.terminate()
        assert await asyncio.to_thread(old.child.process.wait, DEADLINE_SECONDS) == 0
        await at_least(statuses.total, statuses.total() + 50)

    assert statuses.keys() == {200}
    assert len(spread) == REPLICAS
    assert min(spread.values()) > max(spread.values()) / 3
    assert scene.asked()[new.port] > 0
    lost = scene.mesh.gateway.stats("access_logs.open_telemetry_access_log.llm.")
    assert lost["logs_dropped"] == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_replica_that_is_gone_or_hangs_is_left_alone_before_kubernetes_says_so(
    scene: Scene, how: signal.Signals
) -> None:
    gone = scene.replicas.running[0]
    async with scene.load() as statuses:
        await at_least(statuses.total, 50)
        assert statuses.keys() == {200}
        gone.child.process.send_signal(how)

        async def is_left_alone() -> bool:
            return bool(scene.hosts()[gone.port]["health_status"].get("failed_outlier_check"))

        await until(is_left_alone)
        failed = statuses.total() - statuses[200]
        await at_least(lambda: statuses[200], statuses[200] + 150)

    # Those that were on their way to it, and nobody after them.
    assert statuses.total() - statuses[200] - failed <= LANES
    assert statuses.keys() <= {200, 500, 504}
