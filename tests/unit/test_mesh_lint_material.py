"""extproc/mesh/lint: what it says of manifests that were not written for it."""

from collections import Counter
from pathlib import Path

import pytest

from extproc.mesh.lint.lint import lint_paths
from extproc.mesh.lint.worlds import worlds

ROOT = Path(__file__).parents[2]
ISTIOD = ROOT / "tests" / "data" / "istiod"

KNOWN = {
    # As the article has it; see the README beside them.
    "1-article": {
        "stream-by-accept-alone": 1,
        "subset-left-out": 1,
        "route-without-timeout": 2,
    },
    # An attachment that works, and is not the one to copy: made before x-llm-stream, and before it
    # was found out how much of a call Envoy keeps.
    "2-attached": {
        "stream-by-accept-alone": 1,
        "subset-left-out": 1,
        "route-without-timeout": 2,
        "headers-not-stripped": 1,
        "access-log-loses-records": 7,
        "fallback-cluster-limits": 1,
    },
    "3-route-features": {"subset-left-out": 2, "route-without-timeout": 3},
    "4-destination-rules": {},
    "5-envoyfilter-order": {
        "stream-by-accept-alone": 1,
        "subset-left-out": 1,
        "route-without-timeout": 2,
        "filter-beside-nothing": 1,
        "unknown-envoy-field": 1,
        "threshold-appended": 1,
    },
    "6-sidecar-attached": {
        "stream-by-accept-alone": 1,
        "subset-left-out": 1,
        "route-without-timeout": 2,
        "headers-not-stripped": 1,
        "access-log-loses-records": 7,
        "patch-reaches-too-far": 4,
        "fallback-cluster-limits": 1,
    },
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_istiod_was_given_has_the_faults_that_are_known(case: str) -> None:
    found = lint_paths([ISTIOD / case / "input.yaml"])

    assert Counter(finding.rule for finding in found) == KNOWN[case]


def test_our_own_manifests_are_clean() -> None:
    assert lint_paths([ROOT / "istio"]) == ()


def test_every_variant_of_our_own_is_looked_at() -> None:
    """Overlays one by one, and components on what they extend."""
    every = list(worlds([ROOT / "istio"]))
    filters = [
        {each.name for each in manifests if each.kind == "EnvoyFilter"} for manifests in every
    ]

    assert any({"llm-policy-gateway", "llm-fallback-gateway"} <= names for names in filters)
    assert any({"llm-policy-sidecar"} <= names for names in filters)
    assert any({"llm-policy-waypoint"} <= names for names in filters)
    assert any({"llm-policy-gateway-canary"} <= names for names in filters)
    assert any({"llm-observe-gateway"} <= names for names in filters)
    assert any("ConfigMap" in {each.kind for each in manifests} for manifests in every)


def test_a_line_is_that_of_the_field(tmp_path: Path) -> None:
    (found,) = lint_paths([ROOT / "tests" / "mesh_lint" / "stream-retried" / "bad.yaml"])

    lines = Path(found.file).read_text().splitlines()
    assert "attempts: 3" in lines[found.line - 1]

    file = tmp_path / "list.yaml"
    file.write_text("kind: List\nitems:\n- {kind: A, metadata: {name: a}}\n")
    assert lint_paths([file]) == ()


def test_folders_of_files_are_one_cluster_and_folders_of_kustomizations_several(
    tmp_path: Path,
) -> None:
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\n"
    (tmp_path / "loose.yaml").write_text(service.replace("NAME", "loose"))
    for name in ("one", "two", "part"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "service.yaml").write_text(service.replace("NAME", name))
        others = ", ../part" if name == "one" else ""
        (folder / "kustomization.yaml").write_text(f"resources: [service.yaml{others}]\n")

    names = [sorted(each.name for each in manifests) for manifests in worlds([tmp_path])]

    assert names == [["loose", "one", "part"], ["loose", "two"]]
    (plain,) = worlds([tmp_path / "loose.yaml", tmp_path / "two"])
    assert sorted(each.name for each in plain) == ["loose", "two"]
