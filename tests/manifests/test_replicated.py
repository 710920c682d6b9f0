"""`overlays/replicated`: what its files say of each other, of the service and of the base is so.

What Kubernetes would make of them is not covered: there is no cluster here. test_reach.py is about
who reaches whom, test_valkey.py about Valkey.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from extproc.config.loader import load_file
from extproc.config.settings import Settings
from extproc.ledger.valkey import PATIENCE
from extproc.mesh.kustomization import extended, load
from extproc.mesh.lint.lint import lint_paths
from extproc.mesh.manifests import Manifest as Built
from extproc.server.h2.lifecycle import SETTLING_SECONDS
from extproc.server.lifecycle import DRAIN_SECONDS
from tests.manifests.folder import Manifest, manifests
from tests.manifests.generate import ISTIO
from tests.manifests.test_schemas import UNCHECKED, faults
from tests.manifests.valkey_pod import REPLICATED, built

BUDGET_API: Final = ISTIO / "base-budget-api"
LEAVE_SECONDS: Final = SETTLING_SECONDS + 3 * PATIENCE.record
"""After the drain: what was cut off is given back, what met is settled, leases are given back, and
it is counted no more."""


def with_budget_api(folder: Path = REPLICATED) -> tuple[Built, ...]:
    return extended(load([folder]), BUDGET_API)


ALL: Final = [
    each for each in with_budget_api() if f"{each.api_version} {each.kind}" not in UNCHECKED
]
OURS: Final = [each for each in with_budget_api() if each.namespace == "llm-system"]


def settings_of(text: str, folder: Path) -> Settings:
    (folder / "keys.yaml").write_text(f"{'0' * 64}: acme\n")
    (folder / "policy.yaml").write_text(text)
    return load_file(folder / "policy.yaml").settings


def text_of(overlay: Path = REPLICATED) -> str:
    return str(built("ConfigMap", "llm-policy", overlay)["data"]["policy.yaml"])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(text_of(), tmp_path)


def one(kind: str, name: str = "llm-extproc", among: tuple[Built, ...] | None = None) -> Any:
    found = [each for each in among or OURS if (each.kind, each.name) == (kind, name)]
    assert len(found) == 1
    return found[0].document["spec"]


def pod_of(kind: str, name: str) -> Any:
    return one(kind, name)["template"]["spec"]


@pytest.mark.parametrize("document", ALL, ids=lambda found: found.title)
def test_what_is_built_is_as_its_schema_says(document: Built) -> None:
    """Patches and all: test_schemas.py looks at single files."""
    assert faults(Manifest(REPLICATED, dict(document.document))) == []


@pytest.mark.parametrize("overlay", ["replicated", "single-gateway", "canary"])
def test_lint_finds_nothing(overlay: str) -> None:
    assert lint_paths([ISTIO / "overlays" / overlay]) == ()


def test_all_settings_but_the_ledger_are_those_of_the_base(
    settings: Settings, tmp_path: Path
) -> None:
    base = settings_of(text_of(ISTIO / "base"), tmp_path)

    assert settings.ledger.kind == "valkey"
    for name in settings.__struct_fields__:
        if name != "ledger":
            assert getattr(settings, name) == getattr(base, name), name


def test_the_ledger_is_the_valkey_that_is_there(settings: Settings) -> None:
    ledger = settings.ledger
    service = one("Service", "llm-valkey")
    (port,) = service["ports"]
    users = built("ConfigMap", "llm-valkey")["data"]["users.acl"]
    user, _, host = (ledger.url or "").removeprefix("valkey://").partition("@")

    assert host == f"llm-valkey:{port['port']}/0"
    assert f"user {user} " in users
    assert not ledger.cluster


def test_the_password_is_a_file_and_the_operators_is_not_there(settings: Settings) -> None:
    pod = pod_of("Deployment", "llm-extproc")
    (container,) = pod["containers"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    (secret,) = [each["secret"] for each in pod["volumes"] if each["name"] == "valkey"]

    assert [f"{mounts['valkey']}/{each['path']}" for each in secret["items"]] == [
        settings.ledger.password_file
    ]
    assert [each["key"] for each in secret["items"]] == ["password"]
    assert secret["secretName"] == "llm-valkey"


def test_shares_are_of_as_many_as_there_can_be_at_a_time(settings: Settings) -> None:
    scaler, rolling = one("HorizontalPodAutoscaler"), one("Deployment")["strategy"]

    assert rolling["type"] == "RollingUpdate"
    assert settings.ledger.replicas == (
        scaler["maxReplicas"] + rolling["rollingUpdate"]["maxSurge"]
    )


def test_how_many_there_are_is_said_once_and_one_may_be_missing() -> None:
    deployment, scaler = one("Deployment"), one("HorizontalPodAutoscaler")
    budget = one("PodDisruptionBudget")
    (metric,) = scaler["metrics"]
    (container,) = deployment["template"]["spec"]["containers"]

    assert "replicas" not in deployment
    assert scaler["minReplicas"] == 3 <= scaler["maxReplicas"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "llm-extproc",
    }
    assert metric["containerResource"]["container"] == container["name"]
    assert metric["containerResource"]["name"] in container["resources"]["requests"]
    assert budget["maxUnavailable"] == 1 < scaler["minReplicas"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_two_of_three_bear_what_three_did() -> None:
    """In a process that uses one core."""
    scaler = one("HorizontalPodAutoscaler")
    target = scaler["metrics"][0]["containerResource"]["target"]["averageValue"]
    least = scaler["minReplicas"]

    assert int(target.removesuffix("m")) * least / (least - 1) <= 1000


def test_replicas_are_spread_over_nodes_and_zones() -> None:
    template = one("Deployment")["template"]
    spread = {each["topologyKey"]: each for each in template["spec"]["topologySpreadConstraints"]}

    assert {key: each["whenUnsatisfiable"] for key, each in spread.items()} == {
        "kubernetes.io/hostname": "DoNotSchedule",
        "topology.kubernetes.io/zone": "ScheduleAnyway",
    }
    for each in spread.values():
        assert each["labelSelector"]["matchLabels"] == template["metadata"]["labels"]
        assert each["nodeTaintsPolicy"] == "Honor"


def test_none_is_cut_short() -> None:
    """The sidecar outlives the service, which it needs to reach Valkey; both end in time."""
    template = one("Deployment")["template"]
    (container,) = template["spec"]["containers"]
    pause = re.findall(r"sleep\((\d+)\)", container["lifecycle"]["preStop"]["exec"]["command"][-1])
    proxy = re.findall(
        r"Duration: (\d+)s", template["metadata"]["annotations"]["proxy.istio.io/config"]
    )
    needed = int(pause[0]) + DRAIN_SECONDS + LEAVE_SECONDS

    assert needed < int(proxy[0]) < template["spec"]["terminationGracePeriodSeconds"]


def test_the_bases_volume_is_gone() -> None:
    volumes = pod_of("Deployment", "llm-extproc")["volumes"]
    (container,) = pod_of("Deployment", "llm-extproc")["containers"]

    assert not [each for each in volumes if "persistentVolumeClaim" in each]
    assert not [each for each in OURS if each.kind == "PersistentVolumeClaim"]
    assert {each["name"] for each in container["volumeMounts"]} == {
        each["name"] for each in volumes
    }


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget", "NetworkPolicy"])
def test_selectors_find_pods(kind: str) -> None:
    pods = [
        each.document["spec"]["template"]["metadata"]["labels"]
        for each in OURS
        if each.kind in {"Deployment", "StatefulSet"}
    ]
    for each in OURS:
        if each.kind == kind:
            spec = each.document["spec"]
            wanted = spec["podSelector"] if kind == "NetworkPolicy" else spec["selector"]
            labels = wanted if kind == "Service" else wanted.get("matchLabels", {})
            assert [pod for pod in pods if labels.items() <= pod.items()], each.name


def test_ports_of_services_are_those_of_containers() -> None:
    for name, workload in (("llm-extproc", "Deployment"), ("llm-valkey", "StatefulSet")):
        (container,) = pod_of(workload, name)["containers"]
        named = {each["name"]: each["containerPort"] for each in container["ports"]}
        for port in one("Service", name)["ports"]:
            assert named[port["targetPort"]] == port["port"]
    assert one("StatefulSet", "llm-valkey")["serviceName"] == "llm-valkey"


def test_volumes_are_mounted_and_claimed() -> None:
    stateful = one("StatefulSet", "llm-valkey")
    pod = stateful["template"]["spec"]
    (claim,) = stateful["volumeClaimTemplates"]
    (container,) = pod["containers"]
    volumes = {each["name"] for each in pod["volumes"]} | {claim["metadata"]["name"]}

    assert {each["name"] for each in container["volumeMounts"]} == volumes
    assert stateful["replicas"] == 1
    assert stateful["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }


@pytest.mark.parametrize(
    ("kind", "name"), [("Deployment", "llm-extproc"), ("StatefulSet", "llm-valkey")]
)
def test_nobody_has_more_rights_than_he_needs(kind: str, name: str) -> None:
    pod = pod_of(kind, name)
    (container,) = pod["containers"]
    (account,) = [each for each in OURS if (each.kind, each.name) == ("ServiceAccount", name)]

    assert pod["serviceAccountName"] == name
    assert pod["automountServiceAccountToken"] is False
    assert account.document["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]


def test_the_repository_has_no_secret() -> None:
    assert not [found for found in manifests() if found.document["kind"] == "Secret"]


@pytest.mark.parametrize("overlay", [ISTIO / "base", REPLICATED], ids=lambda path: path.name)
def test_the_settings_have_a_line_that_fits_the_budget_api(overlay: Path, tmp_path: Path) -> None:
    """It is a comment: the component opens the port, the line listens on it."""
    (line,) = re.findall(r"^# (budget_api: .*)$", text_of(overlay), re.MULTILINE)
    api = settings_of(f"{text_of(overlay)}{line}\n", tmp_path).budget_api
    made = with_budget_api(overlay)
    pod = one("Deployment", among=made)["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    (volume,) = [each for each in pod["volumes"] if each["name"] == "budget-api"]

    assert api is not None
    assert api.port == ports["grpc-budgets"] == one("Service", among=made)["ports"][-1]["port"]
    assert api.address == "0.0.0.0"  # noqa: S104  # of a Pod
    assert Path(api.token_file or "") == Path(mounts["budget-api"]) / "token"
    told = (BUDGET_API / "kustomization.yaml").read_text()
    assert f"generic {volume['secret']['secretName']} --from-literal=token=" in told


def test_without_the_component_nothing_of_the_budget_api_is_open(settings: Settings) -> None:
    assert settings.budget_api is None
    for each in load([REPLICATED]):
        assert each.kind == "ConfigMap" or "50052" not in yaml.safe_dump(dict(each.document))


def test_how_to_check_the_settings_stands_on_their_top(tmp_path: Path) -> None:
    path = ISTIO / "base-replicated" / "settings.yaml"
    (script,) = re.findall(r"sed '([^']+)' istio/base-replicated", path.read_text())
    sed = shutil.which("sed")
    assert sed is not None
    text = subprocess.run([sed, script, path], capture_output=True, text=True, check=True).stdout

    assert settings_of(text, tmp_path) == settings_of(text_of(), tmp_path)
