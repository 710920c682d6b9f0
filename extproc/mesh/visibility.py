"""Which hosts a proxy knows: those whose `exportTo` names its namespace."""

from collections.abc import Iterable
from typing import Final

from extproc.mesh.manifests import mapping
from extproc.mesh.world import Host, Proxy, World

EXPORT_TO_ANNOTATION: Final = "networking.istio.io/exportTo"


def visible(world: World, proxy: Proxy) -> tuple[Host, ...]:
    """The hosts that this proxy knows, sorted by name.

    Raises:
        MeshError: two manifests say the same host, and istiod would take parts of both.
    """
    found: dict[str, Host] = {}
    for host in world.hosts:
        if not _is_exported(host, proxy.namespace):
            continue
        if host.hostname in found:
            other = found[host.hostname].manifest
            host.manifest.fail(
                "spec", f"the host {host.hostname} is said by {other.title} too ({other.file})"
            )
        found[host.hostname] = host
    return tuple(found.values())


def _is_exported(host: Host, namespace: str) -> bool:
    said = _export_to(host)
    own = {"."} if host.namespace == namespace else set()
    return not said or bool(said & {"*", namespace, *own})


def _export_to(host: Host) -> frozenset[str]:
    said: Iterable[object]
    if host.is_kubernetes:
        annotations = mapping(host.manifest.metadata.get("annotations"))
        said = str(annotations.get(EXPORT_TO_ANNOTATION) or "").split(",")
    else:
        said = host.manifest.spec.get("exportTo") or ()
    return frozenset(str(each).strip() for each in said) - {""}
