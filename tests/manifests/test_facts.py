"""What manifests say twice, or say of the service, is so; and the numbers that were asked for."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from extproc.config.loader import load_file
from extproc.exchange.names import METADATA_NAMESPACE, REQUEST_HEADERS
from extproc.server.lifecycle import DRAIN_SECONDS, MESSAGE_BYTES_OVERHEAD
from tests.manifests.folder import Document, documents, filters, one
from tests.manifests.generate import ISTIO

SETTINGS: Final = ("base/settings.yaml", "overlays/canary/service/settings.yaml")
HOST: Final = "{}.ai-platform.svc.cluster.local"
SHADOW: Final = "spiffe://cluster.local/ns/ai-platform/sa/llm-router-shadow"


def settings_of(path: str, folder: Path) -> Any:  # one of our settings
    text = _settings_text(path)
    tenant = next(iter(yaml.safe_load(text)["tenants"]))
    (folder / "keys.yaml").write_text(f"{'0' * 64}: {tenant}\n")
    file = folder / "policy.yaml"
    file.write_text(text)
    return load_file(file).settings


def _settings_text(path: str) -> str:
    """The settings in a ConfigMap, or in a patch of one."""
    found: Any = yaml.safe_load((ISTIO / path).read_text())
    return str(found[0]["value"] if isinstance(found, list) else found["data"]["policy.yaml"])


def _routes(path: str) -> dict[str, Document]:
    return {route["name"]: route for route in one(path, "VirtualService")["spec"]["http"]}


def _patches(name: str) -> list[Document]:
    """The patches of one filter, wherever it is attached."""
    found = [
        patch
        for each in filters()
        if each.document["metadata"]["name"].startswith(name)
        for patch in each.document["spec"]["configPatches"]
    ]
    assert len(found) >= len(("gateway", "sidecar", "waypoint"))
    return found


@pytest.mark.parametrize("path", SETTINGS)
def test_the_settings_are_sound(path: str, tmp_path: Path) -> None:
    settings = settings_of(path, tmp_path)

    assert settings.ledger.kind == "sqlite"


@pytest.mark.parametrize(
    ("path", "routes"),
    [
        (SETTINGS[0], "routing/model-gateway.yaml"),
        (SETTINGS[1], "overlays/canary/gateway.yaml"),
    ],
)
def test_every_tier_has_a_route_and_every_route_a_tier(
    path: str, routes: str, tmp_path: Path
) -> None:
    tiers = settings_of(path, tmp_path).tiers
    *named, last = one(routes, "VirtualService")["spec"]["http"]

    assert {r["match"][0]["headers"]["x-llm-tier"]["exact"] for r in named} <= set(tiers)
    assert {r["name"] for r in named} | {last["name"]} == set(tiers)
    assert "match" not in last


def test_pilots_are_tenants_of_one_ledger_alone(tmp_path: Path) -> None:
    base, canary = (settings_of(path, tmp_path).tenants for path in SETTINGS)

    assert set(base).isdisjoint(canary)


def test_what_the_shadow_calls_is_charged_to_the_shadow(tmp_path: Path) -> None:
    settings = settings_of("base/settings.yaml", tmp_path)
    pattern = settings.identity[0].spiffe
    found = re.match(pattern, SHADOW)

    assert found is not None
    assert found["tenant"] in settings.tenants
    assert not re.match(pattern, SHADOW.removesuffix("-shadow"))
    assert not re.match(pattern, SHADOW + "s")


def test_a_body_too_large_is_refused_by_us_and_not_by_envoy_or_grpc(tmp_path: Path) -> None:
    largest = settings_of("base/settings.yaml", tmp_path).limits.request_body_bytes
    for patch in _patches("llm-limits"):
        (limit,) = patch["patch"]["value"].values()
        assert largest < limit < largest + MESSAGE_BYTES_OVERHEAD


def test_what_we_set_is_stripped_where_clients_send_it() -> None:
    for patch in _patches("llm-strip"):
        (extension,) = patch["patch"]["value"]["typed_config"]["early_header_mutation_extensions"]
        removed = {each["remove"] for each in extension["typed_config"]["mutations"]}
        assert removed == set(REQUEST_HEADERS)


def test_spans_have_every_tag_that_was_asked_for() -> None:
    for patch in _patches("llm-tags"):
        tags = {
            each["tag"]: each
            for each in patch["patch"]["value"]["typed_config"]["tracing"]["custom_tags"]
        }
        asked = (
            "model prompt.tokens temperature tenant_id completion.tokens total.tokens latency.ms"
        )
        assert {f"llm.{name}" for name in f"{asked} tokens.per.second".split()} <= set(tags)
        keys = {
            each["metadata"]["metadata_key"]["key"] for each in tags.values() if "metadata" in each
        }
        assert keys == {METADATA_NAMESPACE}


def test_there_are_never_two_and_none_is_cut_short() -> None:
    spec = one("base/deployment.yaml", "Deployment")["spec"]
    pod = spec["template"]
    (container,) = pod["spec"]["containers"]
    pause = int(
        re.findall(r"sleep\((\d+)\)", container["lifecycle"]["preStop"]["exec"]["command"][-1])[0]
    )
    proxy = pod["metadata"]["annotations"]["proxy.istio.io/config"]

    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")
    assert one("base/volume.yaml", "PersistentVolumeClaim")["spec"]["accessModes"] == [
        "ReadWriteOncePod"
    ]
    assert pod["spec"]["terminationGracePeriodSeconds"] > pause + DRAIN_SECONDS
    assert int(re.findall(r"Duration: (\d+)s", proxy)[0]) >= pause + DRAIN_SECONDS


def test_streams_and_ordinary_calls_are_routed_as_asked() -> None:
    routes = _routes("routing/llm-router.yaml")
    streaming, ordinary = routes["streaming"], routes["ordinary"]
    weights = [(r["destination"]["subset"], r.get("weight")) for r in ordinary["route"]]

    assert [r["destination"]["subset"] for r in streaming["route"]] == ["stable"]
    assert (streaming["timeout"], streaming["retries"]) == ("300s", {"attempts": 0})
    assert "mirror" not in streaming
    assert weights == [("stable", 90), ("canary", 10)]
    assert ordinary["timeout"] == "120s"
    assert ordinary["retries"] == {
        "attempts": 2,
        "perTryTimeout": "60s",
        "retryOn": "gateway-error,connect-failure,retriable-4xx",
    }
    assert (ordinary["mirror"]["subset"], ordinary["mirrorPercentage"]) == (
        "shadow",
        {"value": 10.0},
    )


def test_pools_and_circuits_are_as_asked() -> None:
    router = one("routing/llm-router.yaml", "DestinationRule")["spec"]["trafficPolicy"]
    gpt4 = one("routing/model-gateway.yaml", "DestinationRule")["spec"]["trafficPolicy"]

    assert router == {
        "connectionPool": {
            "tcp": {
                "maxConnections": 100,
                "connectTimeout": "5s",
                "tcpKeepalive": {"time": "7200s", "interval": "75s"},
            },
            "http": {
                "http1MaxPendingRequests": 50,
                "http2MaxRequests": 100,
                "maxRequestsPerConnection": 10,
                "idleTimeout": "90s",
            },
        },
        "outlierDetection": {
            "consecutive5xxErrors": 3,
            "interval": "30s",
            "baseEjectionTime": "60s",
            "maxEjectionPercent": 50,
        },
    }
    assert gpt4["outlierDetection"] == {
        "consecutive5xxErrors": 5,
        "consecutiveGatewayErrors": 3,
        "interval": "60s",
        "baseEjectionTime": "120s",
        "maxEjectionPercent": 100,
        "minHealthPercent": 0,
    }
    assert gpt4["connectionPool"]["http"] == {"http1MaxPendingRequests": 20, "maxRetries": 1}


def test_tiers_go_where_they_were_asked_to() -> None:
    routes = _routes("routing/model-gateway.yaml")
    went = {
        name: [(r["destination"]["host"], r.get("weight")) for r in route["route"]]
        for name, route in routes.items()
    }

    assert went == {
        "premium": [(HOST.format("gpt4-adapter"), None)],
        "standard": [(HOST.format("gpt35-adapter"), 80), (HOST.format("local-llama"), 20)],
        "default": [(HOST.format("local-llama"), None)],
    }
    assert routes["premium"]["timeout"] == "120s"
    assert routes["premium"]["retries"]["perTryTimeout"] == "90s"


@pytest.mark.parametrize("folder", ["fallback", "fallback-sidecar"])
def test_one_try_for_each_model_of_the_fallback(folder: str) -> None:
    (found,) = documents(ISTIO / "routing" / folder / "fallback.yaml")
    cluster = found["spec"]["configPatches"][0]["patch"]["value"]
    models = cluster["cluster_type"]["typed_config"]["clusters"]
    retries = _routes("routing/model-gateway.yaml")["premium"]["retries"]

    assert models == [
        f"outbound|8080||{HOST.format(name)}"
        for name in ("gpt4-adapter", "gpt35-adapter", "local-llama")
    ]
    assert retries["attempts"] == len(models) - 1
    assert set(retries["retryOn"].split(",")) >= {"429", "connect-failure", "gateway-error"}
