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


@pytest.mark.parametrize("output", [[], ["--output", "json"]])
def test_patches_that_may_be_for_what_is_left_out_are_told_apart(
    output: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "filter.yaml"
    file.write_text(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\n"
        "metadata: {name: f, namespace: ai-platform}\n"
        "spec: {configPatches: [{applyTo: HTTP_FILTER, match: {context: SIDECAR_INBOUND},"
        " patch: {operation: INSERT_FIRST, value: {name: x}}}]}\n"
    )
    who = ["--proxy", "sidecar", "--namespace", "ai-platform"]

    assert main(["mesh", "render", str(file), *who, *output]) == 0

    out, err = capsys.readouterr()
    told = (err if output else out).splitlines()
    patch = f"{file}: EnvoyFilter ai-platform/f: spec.configPatches[0] (INSERT_FIRST HTTP_FILTER)"
    if output:
        assert f"of what is left out, if of anything: {patch}" in told
    else:
        assert told[told.index("patches of what is left out, if of anything:") + 1] == f"  {patch}"


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
