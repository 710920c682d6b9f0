"""extproc/mesh/bootstrap.py, summary.py and `mesh render`: what people and Envoys get."""

import json
from pathlib import Path
from typing import Any

import pytest

from extproc.cli import main
from extproc.mesh.bootstrap import bootstrap
from extproc.mesh.manifests import read
from extproc.mesh.render import LEFT_OUT, render
from extproc.mesh.world import Proxy, world_of
from tests.mesh_worlds import CART, INGRESS, SIDECAR, world

CASES = Path(__file__).parents[1] / "data" / "istiod"
ATTACHED = CASES / "2-attached" / "input.yaml"
GATEWAY_OF_CASES = Proxy("gateway", "ai-platform", {"istio": "ingressgateway"})
LABELS = "istio=ingressgateway"
AS_GATEWAY = ["--proxy", "gateway", "--namespace", "ai-platform", "--labels", LABELS]


def of_case(**more: Any) -> dict[str, Any]:
    rendered = render(world_of(read([ATTACHED])), GATEWAY_OF_CASES)
    resources: dict[str, Any] = bootstrap(rendered, **more)["static_resources"]
    return resources


def test_nothing_in_it_asks_istiod() -> None:
    text = json.dumps(of_case())

    assert '"ads"' not in text
    assert '"rds"' not in text
    assert '"EDS"' not in text


def test_routes_stand_in_listeners_and_endpoints_in_clusters() -> None:
    resources = of_case(address="127.0.0.1", port=0)

    (listener,) = resources["listeners"]
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 0}
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["route_config"]["name"] == "http.18080"
    clusters = {each["name"]: each for each in resources["clusters"]}
    name = "outbound|8080||gpt4-adapter.ai-platform.svc.cluster.local"
    endpoints = clusters[name]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert len(endpoints) == 2
    assert clusters[name]["type"] == "STATIC"


def test_without_a_place_listeners_keep_theirs_and_bind() -> None:
    rendered = render(world(INGRESS, CART), SIDECAR)

    (listener,) = bootstrap(rendered)["static_resources"]["listeners"]
    assert listener["address"]["socket_address"]["port_value"] == 8080
    assert "bind_to_port" not in listener


def test_the_four_lists_are_printed_as_istiod_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mesh", "render", str(ATTACHED), *AS_GATEWAY, "--output", "json"]) == 0

    said = capsys.readouterr()
    expected = json.loads((CASES / "2-attached" / "bare.json").read_text())["gateway"]
    assert json.loads(said.out) == expected
    assert all(what in said.err for what, _ in LEFT_OUT)


def test_a_bootstrap_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mesh", "render", str(ATTACHED), *AS_GATEWAY, "--output", "envoy"]) == 0

    assert set(json.loads(capsys.readouterr().out)) == {"admin", "static_resources"}


def test_people_get_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES / "5-envoyfilter-order" / "input.yaml"

    assert main(["mesh", "render", str(case), *AS_GATEWAY]) == 0

    said = capsys.readouterr().out
    assert "listener 0.0.0.0_18080: front > very-first > grpc_stats > fault > cors" in said
    rows = [" ".join(line.split()) for line in said.splitlines()]
    assert any(
        row.startswith("/* 90 llm-router.ai-platform/stable, 10 llm-router.ai-platform/canary,")
        and row.endswith("120s 2 on gateway-error,connect-failure,retriable-4xx, 60s each")
        for row in rows
    )
    assert any("mirrored to llm-router.ai-platform/shadow" in row for row in rows)
    assert any(row.startswith("/* and accept=text/event-stream") for row in rows)
    assert "dropped by istiod without a word:" in said
    assert "not_a_field" in said
    assert "left out of this rendering on purpose:" in said


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("3-route-features", ["a redirect", "a direct answer", "not ", "~"]),
        ("1-article", ["80 gpt35-adapter.ai-platform, 20 local-llama.ai-platform", "300s", "none"]),
    ],
)
def test_a_table_says_all_kinds_of_routes(
    case: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mesh", "render", str(CASES / case / "input.yaml"), *AS_GATEWAY]) == 0

    said = capsys.readouterr().out
    assert [word for word in words if word not in said] == []


def test_what_cannot_be_read_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text("kind: VirtualService\n")

    assert main(["mesh", "render", str(tmp_path), *AS_GATEWAY]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "a.yaml:1: VirtualService: metadata.name: missing" in said.err


def test_labels_must_be_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["mesh", "render", "x", "--proxy", "gateway", "--namespace", "n", "--labels", "a"])
    assert "is not key=value" in capsys.readouterr().err
