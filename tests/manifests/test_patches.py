"""What EnvoyFilters put in, read strictly as Envoy's messages: istiod drops what it does not know.

The messages are those of xds-protos. That a filter does what it should is shown on real Envoys.
"""

import importlib
import pkgutil
from typing import Final

import envoy.extensions
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_components_pb2 import Filter
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as connection_manager,
)
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from tests.manifests.folder import Document, Manifest, filters

MESSAGES: Final[dict[str, type[Message]]] = {
    "CLUSTER": Cluster,
    "HTTP_FILTER": connection_manager.HttpFilter,
    "HTTP_ROUTE": Route,
    "LISTENER": Listener,
    "NETWORK_FILTER": Filter,
    "VIRTUAL_HOST": VirtualHost,
}
FILTERS = filters()
PATCHES = [
    pytest.param(found, patch, id=f"{found.document['metadata']['name']}-{index}")
    for found in FILTERS
    for index, patch in enumerate(found.document["spec"]["configPatches"])
]


@pytest.fixture(scope="module", autouse=True)
def _known_types() -> None:
    """Every extension, so that each `@type` is found."""
    for module in pkgutil.walk_packages(envoy.extensions.__path__, "envoy.extensions."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)


@pytest.mark.parametrize(("manifest", "patch"), PATCHES)
def test_a_patch_has_no_field_that_envoy_lacks(manifest: Manifest, patch: Document) -> None:
    del manifest
    ParseDict(patch["patch"]["value"], MESSAGES[patch["applyTo"]]())


def test_a_field_that_envoy_lacks_is_noticed() -> None:
    kind = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
    value = {"name": "x", "typed_config": {"@type": kind, "failure_mode_alow": True}}

    with pytest.raises(ParseError, match="failure_mode_alow"):
        ParseDict(value, connection_manager.HttpFilter())


@pytest.mark.parametrize(("manifest", "patch"), PATCHES)
def test_a_patch_lands_where_it_is_meant_to(manifest: Manifest, patch: Document) -> None:
    """One context each; on a sidecar one port, on a waypoint the listener of its services."""
    spec = manifest.document["spec"]
    match = patch["match"]
    context = match["context"]

    assert isinstance(spec["priority"], int)
    assert ("targetRefs" in spec) == (context == "SIDECAR_INBOUND")
    if patch["applyTo"] == "HTTP_FILTER":
        where = match["listener"]["filterChain"]["filter"]
        assert patch["patch"]["operation"] == "INSERT_BEFORE"
        assert where["subFilter"]["name"] == "envoy.filters.http.router"
    if patch["applyTo"] in {"HTTP_FILTER", "NETWORK_FILTER", "LISTENER"}:
        meant = {
            "SIDECAR_OUTBOUND": ("portNumber", 8080),
            "SIDECAR_INBOUND": ("name", "main_internal"),
        }
        if context in meant:
            key, value = meant[context]
            assert match["listener"][key] == value


def test_filters_have_names_of_their_own() -> None:
    """`envoy.filters.http.ext_proc` is that of Istio's inference pools."""
    names = {
        patch["patch"]["value"]["name"]
        for found in FILTERS
        for patch in found.document["spec"]["configPatches"]
        if patch["applyTo"] == "HTTP_FILTER"
    }

    assert names == {"llm.policy", "llm.meter", "llm.observe"}
