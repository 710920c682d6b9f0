"""`llm-extproc mesh render`: what is printed, and where."""

import json
from pathlib import Path

import pytest

from extproc.cli import main
from tests.unit.test_mesh_render import CASES

WHO = ["--proxy", "gateway", "--namespace", "ai-platform", "--labels", "istio=ingressgateway"]


def case(number: int) -> str:
    return str(CASES[number - 1] / "input.yaml")


def test_json_is_the_four_lists_and_what_is_dropped_is_said_beside(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["mesh", "render", case(5), *WHO, "--output", "json"]) == 0

    out, err = capsys.readouterr()
    assert list(json.loads(out)) == ["listeners", "routes", "clusters", "endpoints"]
    expected = json.loads((CASES[4] / "bare.json").read_text())["gateway"]
    assert json.loads(out) == expected
    dropped = "EnvoyFilter ai-platform/late: spec.configPatches[2] (INSERT_BEFORE HTTP_FILTER)"
    assert f"dropped by istiod without a word: {case(5)}: {dropped}: nothing to apply it to" in err
    assert "left out on purpose: " in err


def test_envoy_is_a_bootstrap_and_what_is_in_plain_text_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["mesh", "render", case(4), *WHO, "--output", "envoy"]) == 0

    out, err = capsys.readouterr()
    assert {"admin", "static_resources"} == set(json.loads(out))
    assert (
        "in plain text, without Istio's mutual TLS: "
        "outbound|8080|stable|llm-router.ai-platform.svc.cluster.local" in err
    )


def test_a_summary_shows_filters_in_order_routes_and_what_is_dropped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["mesh", "render", case(2), *WHO]) == 0

    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == (
        "listener 0.0.0.0_18080: llm.strip > grpc_stats > fault > cors > llm.policy > llm.meter"
        " > router"
    )
    (premium,) = (line.split("  ") for line in lines if "x-llm-tier=premium" in line)
    assert [cell.strip() for cell in premium if cell] == [
        "/* and x-llm-tier=premium",
        "llm-fallback-premium",
        "120s",
        "1 on connect-failure,refused-stream,gateway-error,429, 90s each",
    ]
    assert "left out of this rendering on purpose:" in lines
    assert not err


def test_a_wrong_manifest_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "filter.yaml"
    file.write_text(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\n"
        "metadata: {name: f, namespace: ai-platform}\n"
        "spec: {configPatches: [{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {}}}]}\n"
    )

    assert main(["mesh", "render", str(file), *WHO]) == 2

    out, err = capsys.readouterr()
    assert not out
    where = "EnvoyFilter ai-platform/f: spec.configPatches[0].applyTo"
    assert err == f"{file}:1: {where}: BOOTSTRAP is not translated\n"


@pytest.mark.parametrize("labels", ["istio", "=x", "a=b,c"])
def test_labels_are_pairs(labels: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["mesh", "render", case(1), *WHO[:-1], labels])

    assert ended.value.code == 2
    assert "is not key=value,key=value" in capsys.readouterr().err
