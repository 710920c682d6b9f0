"""Worlds out of a few words of YAML, for tests of what is made of manifests."""

from extproc.mesh.manifests import parse
from extproc.mesh.world import Proxy, World, world_of

GATEWAY = Proxy("gateway", "shop", {"istio": "ingress"})
SIDECAR = Proxy("sidecar", "shop", {"app": "client"})

INGRESS = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: ingress, namespace: shop}
spec:
  selector: {istio: ingress}
  servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ["*"]}]
"""
CART = """
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 8080}]}
"""


def world(*documents: str) -> World:
    return world_of(parse("\n---\n".join(documents), "test.yaml"))


def virtual_service(spec: str, *, name: str = "cart", namespace: str = "shop") -> str:
    lines = "\n".join(f"  {line}" for line in spec.strip("\n").splitlines())
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{lines}\n"
    )
