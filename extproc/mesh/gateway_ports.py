"""On which port a gateway's proxy listens for a server of a Gateway."""

from typing import Final

from extproc.mesh.manifests import sequence, texts
from extproc.mesh.world import Host, Proxy, World

UNTRANSLATED_LABEL: Final = "experimental.istio.io/disable-gateway-port-translation"


def listening_port(world: World, proxy: Proxy, number: int) -> int:
    """The port in the gateway's Pods for a server's port.

    Servers may name the port of the Service in front of the gateway; then it is the first such
    Service's `targetPort`. Else it is the number itself.

    Raises:
        MeshError: the `targetPort` is a name, and no container is looked at for it.
    """
    for host in world.hosts:
        if not _is_in_front(host, proxy):
            continue
        for at, said in enumerate(sequence(host.manifest.spec.get("ports"))):
            if said.get("port") != number:
                continue
            target = said.get("targetPort") or number
            if not isinstance(target, int):
                host.manifest.fail(f"spec.ports[{at}].targetPort", "write the port's number")
            return target
    return number


def _is_in_front(host: Host, proxy: Proxy) -> bool:
    selector = texts(host.manifest.spec.get("selector")) if host.is_kubernetes else {}
    return (
        bool(selector)
        and host.namespace == proxy.namespace
        and UNTRANSLATED_LABEL not in host.manifest.labels
        and all(proxy.labels.get(key) == value for key, value in selector.items())
    )
