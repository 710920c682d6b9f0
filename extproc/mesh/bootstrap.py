"""A rendering as one file for an Envoy that stands alone: it starts, and needs no istiod."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

from extproc.mesh.agent_secrets import is_istios, without_agent
from extproc.mesh.listeners import MANAGER
from extproc.mesh.manifests import MeshError
from extproc.mesh.render import Rendered

Tree = dict[str, Any]

ADMIN_ADDRESS: Final = "127.0.0.1"
_OWN_DISCOVERY: Final = frozenset(("ads", "api_config_source", "sds_config"))


def bootstrap(
    rendered: Rendered, *, address: str = "", port: int | None = None, admin_port: int = 0
) -> Tree:
    """Put everything that istiod would send into one file.

    Routes stand in their listeners and endpoints in their clusters. Listeners bind, to `address`
    and `port` where those are given; the admin's port 0 is any free one. Certificates are read from
    files; `in_plain_text` names the clusters that have none.

    Raises:
        MeshError: something needs what Istio's agent would bring.
    """
    routes = {each["name"]: each for each in rendered.routes}
    assignments = {each["cluster_name"]: each for each in rendered.endpoints}
    resources = {
        "listeners": [_listener(each, routes, address, port) for each in rendered.listeners],
        "clusters": [_cluster(each, assignments) for each in rendered.clusters],
    }
    for each in (*resources["listeners"], *resources["clusters"]):
        if any(not _OWN_DISCOVERY.isdisjoint(node) for node in _nodes(each)):
            raise MeshError(str(each.get("name")), "needs what Istio's agent or istiod would bring")
    admin = {"address": _address(ADMIN_ADDRESS, admin_port)}
    return {"admin": admin, "static_resources": resources}


def in_plain_text(rendered: Rendered) -> tuple[str, ...]:
    """The clusters that would speak Istio's mutual TLS: a bare Envoy has no certificates for it."""
    return tuple(each["name"] for each in rendered.clusters if is_istios(each))


def _listener(said: Tree, routes: Mapping[str, Tree], address: str, port: int | None) -> Tree:
    made = copy.deepcopy(said)
    made.pop("bind_to_port", None)
    made.pop("use_original_dst", None)
    place = made["address"]["socket_address"]
    made["address"] = _address(
        address or place["address"], place.get("port_value", 0) if port is None else port
    )
    for node in _nodes(made):
        if node.get("name") == MANAGER and "rds" in node.get("typed_config", {}):
            manager = node["typed_config"]
            name = manager.pop("rds")["route_config_name"]
            manager["route_config"] = routes.get(name, {"name": name})
    return made


def _cluster(said: Tree, assignments: Mapping[str, Tree]) -> Tree:
    made = without_agent(said)
    if made.get("type") != "EDS":
        return made
    name = made.pop("eds_cluster_config").get("service_name") or said["name"]
    made["type"] = "STATIC"
    made["load_assignment"] = {**assignments.get(name, {}), "cluster_name": said["name"]}
    return made


def _nodes(tree: object) -> Iterator[Tree]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _address(address: str, port: int) -> Tree:
    return {"socket_address": {"address": address, "port_value": port}}
