"""Who reaches whom in `overlays/replicated`, by its policies for networks and certificates.

Read as Kubernetes and Istio describe them: a Pod that some policy selects gets what a policy of it
allows, and nothing else. That a cluster enforces them is not covered.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import pytest

from extproc.mesh.kustomization import load
from extproc.mesh.manifests import Manifest as Built
from tests.manifests.test_replicated import with_budget_api
from tests.manifests.valkey_pod import REPLICATED

PLAIN: Final = load([REPLICATED])
BUDGETS: Final = with_budget_api()


class Pod(NamedTuple):
    namespace: str
    labels: Mapping[str, str]
    account: str = ""

    @property
    def principal(self) -> str:
        return f"cluster.local/ns/{self.namespace}/sa/{self.account}"


SERVICE: Final = Pod("llm-system", {"app": "llm-extproc"}, "llm-extproc")
VALKEY: Final = Pod("llm-system", {"app": "llm-valkey"}, "llm-valkey")
GATEWAY: Final = Pod("ai-platform", {"istio": "ingressgateway"}, "istio-ingressgateway")
ADAPTER: Final = Pod("ai-platform", {"app": "gpt4-adapter"}, "gpt4-adapter")
KEEPER: Final = Pod("ai-platform", {"app": "budget-keeper"}, "budget-keeper")
PROMETHEUS: Final = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"}, "prometheus")
GRAFANA: Final = Pod("monitoring", {"app.kubernetes.io/name": "grafana"}, "grafana")
ISTIOD: Final = Pod("istio-system", {"app": "istiod"})
COLLECTOR: Final = Pod("observability", {"app": "collector"})
STRANGER: Final = Pod("default", {"istio": "ingressgateway"}, "default")
WORLD: Final = Pod("", {})
"""No Pod at all."""


def _is(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _is_peer(peer: Mapping[str, Any], pod: Pod, home: str) -> bool:
    """Both selectors must hold where both are given; without that of namespaces it is the own."""
    assert set(peer) <= {"namespaceSelector", "podSelector"}
    name = {"kubernetes.io/metadata.name": pod.namespace}
    is_near = (
        _is(peer["namespaceSelector"], name)
        if "namespaceSelector" in peer
        else pod.namespace == home
    )
    return is_near and _is(peer.get("podSelector", {}), pod.labels)


def _allows(manifests: tuple[Built, ...], way: str, pod: Pod, peer: Pod, port: int) -> bool:
    """Whether the policies of `pod` let through what goes that way, `Ingress` or `Egress`."""
    policies = [
        each.spec
        for each in manifests
        if each.kind == "NetworkPolicy"
        and each.namespace == pod.namespace
        and way in each.spec["policyTypes"]
        and _is(each.spec["podSelector"], pod.labels)
    ]
    side = "from" if way == "Ingress" else "to"
    return not policies or any(
        (side not in rule or any(_is_peer(each, peer, pod.namespace) for each in rule[side]))
        and ("ports" not in rule or port in [each["port"] for each in rule["ports"]])
        for spec in policies
        for rule in spec.get(way.lower(), [])
    )


def reaches(manifests: tuple[Built, ...], source: Pod, target: Pod, port: int) -> bool:
    return _allows(manifests, "Egress", source, target, port) and _allows(
        manifests, "Ingress", target, source, port
    )


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        pytest.param(GATEWAY, SERVICE, 50051, id="the gateway asks and brings records"),
        pytest.param(PROMETHEUS, SERVICE, 9090, id="Prometheus scrapes"),
        pytest.param(SERVICE, VALKEY, 6379, id="the service keeps budgets"),
        pytest.param(SERVICE, WORLD, 53, id="the service looks names up"),
        pytest.param(VALKEY, WORLD, 53, id="so does Valkey's sidecar"),
        pytest.param(SERVICE, ISTIOD, 15012, id="a sidecar asks istiod"),
        pytest.param(VALKEY, ISTIOD, 15012, id="so does Valkey's"),
        pytest.param(SERVICE, COLLECTOR, 4317, id="spans go to a collector"),
    ],
)
def test_who_must_reach_does(source: Pod, target: Pod, port: int) -> None:
    assert reaches(PLAIN, source, target, port)
    assert reaches(BUDGETS, source, target, port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        pytest.param(ADAPTER, SERVICE, 50051, id="what is beside the gateway"),
        pytest.param(STRANGER, SERVICE, 50051, id="who has the gateway's label elsewhere"),
        pytest.param(PROMETHEUS, SERVICE, 50051, id="Prometheus asks for no decisions"),
        pytest.param(GATEWAY, SERVICE, 9090, id="the gateway reads no metrics"),
        pytest.param(GRAFANA, SERVICE, 9090, id="what is beside Prometheus"),
        pytest.param(GATEWAY, SERVICE, 50052, id="the gateway looks after no budgets"),
        pytest.param(GATEWAY, VALKEY, 6379, id="the gateway has nothing to do with Valkey"),
        pytest.param(PROMETHEUS, VALKEY, 6379, id="nor has Prometheus"),
        pytest.param(VALKEY, VALKEY, 6379, id="nor another Valkey"),
        pytest.param(SERVICE, SERVICE, 50051, id="replicas don't know each other"),
        pytest.param(VALKEY, SERVICE, 50051, id="Valkey calls nobody"),
        pytest.param(VALKEY, WORLD, 443, id="not outside either"),
        pytest.param(SERVICE, WORLD, 443, id="nor does the service"),
        pytest.param(SERVICE, GATEWAY, 443, id="not even its gateway"),
        pytest.param(Pod("llm-system", {}), WORLD, 53, id="whoever else is in the namespace"),
        pytest.param(GATEWAY, Pod("llm-system", {}), 80, id="and nobody comes to it"),
    ],
)
def test_who_need_not_reach_does_not(source: Pod, target: Pod, port: int) -> None:
    assert not reaches(PLAIN, source, target, port)
    assert not reaches(BUDGETS, source, target, port)


def test_budgets_are_looked_after_only_where_that_is_wanted() -> None:
    assert not reaches(PLAIN, KEEPER, SERVICE, 50052)
    assert reaches(BUDGETS, KEEPER, SERVICE, 50052)
    assert not reaches(BUDGETS, KEEPER, SERVICE, 50051)
    assert not reaches(BUDGETS, ADAPTER, SERVICE, 50052)


def test_valkey_lets_nobody_in_who_might_be_let_out() -> None:
    assert not _allows(PLAIN, "Ingress", VALKEY, Pod("llm-system", {"app": "other"}), 6379)
    assert not _allows(PLAIN, "Ingress", SERVICE, Pod("llm-system", {"app": "other"}), 50051)


def _admits(manifests: tuple[Built, ...], source: Pod, target: Pod, port: int) -> bool:
    """What an AuthorizationPolicy that allows says: the sources named, or whoever it is."""
    (spec,) = [
        each.spec
        for each in manifests
        if each.kind == "AuthorizationPolicy" and _is(each.spec["selector"], target.labels)
    ]
    assert spec["action"] == "ALLOW"
    return any(
        any(str(port) in each["operation"]["ports"] for each in rule["to"])
        and (
            "from" not in rule
            or any(source.principal in each["source"]["principals"] for each in rule["from"])
        )
        for rule in spec["rules"]
    )


@pytest.mark.parametrize(
    ("source", "target", "port", "is_admitted"),
    [
        (GATEWAY, SERVICE, 50051, True),
        (SERVICE, VALKEY, 6379, True),
        (PROMETHEUS, SERVICE, 9090, True),
        (ADAPTER, SERVICE, 50051, False),
        (KEEPER, SERVICE, 50051, False),
        (GATEWAY, SERVICE, 50052, False),
        (GATEWAY, VALKEY, 6379, False),
        (VALKEY, VALKEY, 6379, False),
    ],
)
def test_certificates_are_asked_for_too(
    source: Pod, target: Pod, port: int, *, is_admitted: bool
) -> None:
    assert _admits(PLAIN, source, target, port) == is_admitted
    assert _admits(BUDGETS, source, target, port) == is_admitted
    assert _admits(BUDGETS, KEEPER, SERVICE, 50052)
    assert not _admits(PLAIN, KEEPER, SERVICE, 50052)


def test_nobody_is_heard_in_the_clear_but_prometheus() -> None:
    for pod in (SERVICE, VALKEY):
        (spec,) = [
            each.spec
            for each in PLAIN
            if each.kind == "PeerAuthentication" and _is(each.spec["selector"], pod.labels)
        ]
        assert spec["mtls"] == {"mode": "STRICT"}
        assert set(spec.get("portLevelMtls", {})) <= {"9090"}


def test_pods_are_labelled_as_they_are_here() -> None:
    labels = {
        (each.namespace, each.name): each.spec["template"]
        for each in load([REPLICATED])
        if each.kind in {"Deployment", "StatefulSet"}
    }
    for pod, name in ((SERVICE, "llm-extproc"), (VALKEY, "llm-valkey"), (GATEWAY, GATEWAY.account)):
        template = labels[pod.namespace, name]
        assert pod.labels.items() <= template["metadata"]["labels"].items()
        assert template["spec"]["serviceAccountName"] == pod.account
