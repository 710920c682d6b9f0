"""Kinds of resources that istiod would obey and nothing here translates: they are errors."""

from collections.abc import Iterable
from typing import Final

from extproc.mesh.manifests import Manifest

NETWORKING: Final = "networking.istio.io"

TRANSLATED: Final = frozenset(
    ("VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "EnvoyFilter")
)
HARMLESS: Final = frozenset(("WorkloadGroup",))
"""Of the same group: they change no proxy by themselves."""

UNTRANSLATED_GROUPS: Final = {
    "extensions.istio.io": "extensions of proxies are not translated",
    "gateway.networking.k8s.io": "the Gateway API is not translated; write a Gateway of Istio's",
    "inference.networking.k8s.io": "inference pools are not translated",
    "multicluster.x-k8s.io": "several clusters are not translated",
}
UNTRANSLATED: Final = {
    ("networking.k8s.io", "Ingress"): "not translated; write a Gateway and a VirtualService",
    ("", "Endpoints"): "not read; give the EndpointSlices",
}


def check_kinds(manifests: Iterable[Manifest]) -> None:
    """Say nothing if each resource is translated, or is one that no proxy hears of.

    Raises:
        MeshError: there is one that istiod would obey.
    """
    for manifest in manifests:
        group, kind = manifest.group, manifest.kind
        if group == NETWORKING and kind not in TRANSLATED | HARMLESS:
            manifest.fail("kind", f"{kind} is not translated")
        why = UNTRANSLATED_GROUPS.get(group) or UNTRANSLATED.get((group, kind))
        if why is not None:
            manifest.fail("kind", why)
