"""Manifests against the schemas of Kubernetes (kubernetes-validate) and of Istio's oldest version.

Not covered: the Prometheus operator's kinds, Istio's rules that are no schema (its CRDs' CEL, what
istiod refuses beyond them), and `patch.value`, which test_patches.py holds to Envoy's messages.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.manifests.folder import KUSTOMIZATIONS, Manifest, documents, manifests
from tests.manifests.generate import ISTIO

ISTIO_SCHEMAS = json.loads((Path(__file__).parent / "istio_schemas.json").read_text())
UNCHECKED = {"monitoring.coreos.com/v1 ServiceMonitor", "monitoring.coreos.com/v1 PrometheusRule"}
KUBERNETES = ("1.31", "1.35")
"""The oldest that Istio 1.29 supports, and the newest for 1.31."""


def faults(manifest: Manifest) -> list[str]:
    """What is wrong with a manifest."""
    if manifest.kind in ISTIO_SCHEMAS:
        validator = jsonschema.Draft202012Validator(ISTIO_SCHEMAS[manifest.kind])
        return [
            f"{error.json_path}: {error.message}"
            for error in validator.iter_errors(manifest.document["spec"])
        ]
    found = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(manifest.document, version, strict=True)
        except (
            kubernetes_validate.ValidationError,
            kubernetes_validate.SchemaNotFoundError,
        ) as error:
            found.append(f"{version}: {error}")
    return found


ALL = [found for found in manifests() if found.kind not in UNCHECKED]


@pytest.mark.parametrize("manifest", ALL, ids=lambda found: found.name)
def test_a_manifest_is_as_its_schema_says(manifest: Manifest) -> None:
    assert faults(manifest) == []


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("base/deployment.yaml", {"replicas": "one"}),
        ("base/deployment.yaml", {"replica": 1}),
        ("routing/llm-router.yaml", {"htttp": []}),
        ("routing/llm-router.yaml", {"hosts": "llm-router"}),
        ("attach/gateway/policy.yaml", {"priority": "first"}),
        ("base/access.yaml", {"mtls": {"mode": "STRICTER"}}),
    ],
)
def test_a_broken_one_is_noticed(path: str, change: dict[str, Any]) -> None:
    found = next(
        each
        for each in manifests()
        if each.path == ISTIO / path and each.document["kind"] != "ServiceAccount"
    )
    found.document["spec"] |= change

    assert faults(found) != []


KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "nameSuffix",
    "resources",
    "components",
    "patches",
    "images",
}


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: str(path.parent.name))
def test_a_kustomization_has_no_other_fields_than_we_know(path: Path) -> None:
    (told,) = documents(path)

    assert set(told) <= KNOWN
    assert (told["kind"], told["apiVersion"]) in {
        ("Kustomization", "kustomize.config.k8s.io/v1beta1"),
        ("Component", "kustomize.config.k8s.io/v1alpha1"),
    }
