"""Endpoints as istiod would send them: ClusterLoadAssignments, before EnvoyFilters.

Facts from istiod's `pilot/pkg/xds/endpoints`. Localities are not known here: all endpoints lie in
one that has no name.
"""

from typing import Any

from extproc.mesh.clusters import outbound
from extproc.mesh.load_assignments import load_assignment
from extproc.mesh.world import Proxy, World


def endpoints(world: World, proxy: Proxy) -> list[dict[str, Any]]:
    """The endpoints of the clusters that ask for them, sorted by cluster.

    Raises:
        MeshError: as `clusters` does.
    """
    found = [
        load_assignment(
            each.cluster["name"],
            each.host,
            each.port,
            each.labels,
            # Since 1.31 Envoy learns of the others too, unless a rule says how many must be well.
            only_ready=bool(each.cluster["common_lb_config"]["healthy_panic_threshold"]),
        )
        for each in outbound(world, proxy)
        if each.cluster["type"] == "EDS"
    ]
    return sorted(found, key=lambda each: str(each["cluster_name"]))
