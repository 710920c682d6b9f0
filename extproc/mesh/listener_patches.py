"""EnvoyFilters applied to listeners: themselves, their chains, network filters and HTTP filters."""

from collections.abc import Mapping, Sequence
from typing import Any

from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as managers,
)

from extproc.mesh.envoy_filters import MERGES, Patch
from extproc.mesh.inserting import inserted, named
from extproc.mesh.manifests import mapping
from extproc.mesh.patch_matches import MANAGER
from extproc.mesh.patches import Patches, merged, merged_inside


def patch_listeners(listeners: list[Listener], patches: Patches) -> list[Listener]:
    """Apply what is for listeners and all within; those that are added come after the others."""
    kept = [listener for listener in listeners if _patch_listener(listener, patches)]
    for patch in patches.added("LISTENER"):
        added = Listener()
        added.CopyFrom(patch.value)
        kept.append(added)
        patches.used(patch)
    return kept


def _patch_listener(listener: Listener, patches: Patches) -> bool:
    """Patch a listener; False where it is to be removed."""
    for patch in patches.to("LISTENER"):
        if not _is_listener(listener, patch):
            continue
        if patch.operation == "REMOVE":
            patches.used(patch)
            return False
        if patch.operation in MERGES:
            merged(listener, patch)
            patches.used(patch)
    for patch in patches.to("LISTENER_FILTER"):
        if _is_listener(listener, patch):
            _patch_listener_filters(listener, patch, patches)
    _patch_chains(listener, patches)
    return True


def _patch_listener_filters(listener: Listener, patch: Patch, patches: Patches) -> None:
    name = _of(patch).get("listenerFilter")
    if patch.operation == "MERGE" and name is not None:
        # istiod merges into all, whichever is named.
        for each in listener.listener_filters:
            if _merge_filter(each, patch, renames=False):
                patches.used(patch)
    elif inserted(listener.listener_filters, patch, named(name)):
        patches.used(patch)


def _patch_chains(listener: Listener, patches: Patches) -> None:
    emptied = {
        at
        for at, chain in enumerate(listener.filter_chains)
        if chain.filters and _patch_chain(listener, chain, patches) and not chain.filters
    }
    default = listener.default_filter_chain
    if default.filters and not _patch_chain(listener, default, patches):
        listener.ClearField("default_filter_chain")
    for patch in patches.to("FILTER_CHAIN"):
        if patch.adds and _is_listener(listener, patch):
            listener.filter_chains.append(patch.value)
            patches.used(patch)
    # A chain without filters is one that was removed, but not where each filter was.
    for at in reversed(range(len(listener.filter_chains))):
        if not listener.filter_chains[at].filters and at not in emptied:
            del listener.filter_chains[at]


def _patch_chain(listener: Listener, chain: FilterChain, patches: Patches) -> bool:
    """Patch a chain; False where it is to be removed."""
    for patch in patches.to("FILTER_CHAIN"):
        if not _is_chain(listener, chain, patch):
            continue
        if patch.operation == "REMOVE":
            patches.used(patch)
            chain.ClearField("filters")
            return False
        if patch.operation in MERGES:
            patches.used(patch)
            if not _merge_socket(chain, patch):
                merged(chain, patch)
    _patch_filters(listener, chain, patches)
    return True


def _merge_socket(chain: FilterChain, patch: Patch) -> bool:
    """Merge a transport socket into one of the same name, and nothing else of the patch."""
    if not (patch.value.HasField("transport_socket") and chain.HasField("transport_socket")):
        return False
    ours, wanted = chain.transport_socket, patch.value.transport_socket
    if wanted.name != ours.name:
        return False
    if ours.HasField("typed_config") and wanted.HasField("typed_config"):
        merged_inside(
            ours.typed_config, wanted.typed_config, patch, "transport_socket.typed_config"
        )
    return True


def _patch_filters(listener: Listener, chain: FilterChain, patches: Patches) -> None:
    for patch in patches.to("NETWORK_FILTER"):
        if not _is_chain(listener, chain, patch):
            continue
        if inserted(chain.filters, patch, named(_filter_of(patch).get("name"))):
            patches.used(patch)
    for each in chain.filters:
        for patch in patches.to("NETWORK_FILTER"):
            if (
                patch.operation == "MERGE"
                and _is_chain(listener, chain, patch)
                and _is_filter(each, patch)
                and _merge_filter(each, patch)
            ):
                patches.used(patch)
        if each.name == MANAGER:
            meant = [
                patch
                for patch in patches.to("HTTP_FILTER")
                if _is_chain(listener, chain, patch) and _is_filter(each, patch)
            ]
            _patch_http_filters(each, meant, patches)


def _patch_http_filters(of: Filter, meant: Sequence[Patch], patches: Patches) -> None:
    manager = managers.HttpConnectionManager()
    if not meant or not of.typed_config.Unpack(manager):
        return
    for patch in meant:
        if inserted(manager.http_filters, patch, named(_sub_filter_of(patch).get("name"))):
            patches.used(patch)
    for each in manager.http_filters:
        for patch in meant:
            if patch.operation != "MERGE":
                continue
            if _sub_filter_of(patch).get("name", each.name) != each.name:
                continue
            if _merge_filter(each, patch):
                patches.used(patch)
    of.typed_config.Pack(manager, deterministic=True)


def _merge_filter(target: Any, patch: Patch, *, renames: bool = True) -> bool:  # noqa: ANN401  # filters of three types
    """Merge what a filter is configured with, if it is with anything, and its name."""
    if not target.HasField("typed_config"):
        return False
    if patch.value.HasField("typed_config"):
        merged_inside(target.typed_config, patch.value.typed_config, patch, "typed_config")
    if renames and patch.value.name:
        target.name = patch.value.name
    return True


def _is_listener(listener: Listener, patch: Patch) -> bool:
    match = _of(patch)
    if match.get("name", listener.name) != listener.name:
        return False
    port = listener.address.socket_address.port_value
    return bool(match.get("portNumber", port) == port)


def _is_chain(listener: Listener, chain: FilterChain, patch: Patch) -> bool:
    if not _is_listener(listener, patch):
        return False
    match = mapping(_of(patch).get("filterChain"))
    has = chain.filter_chain_match
    said = match.get("applicationProtocols")
    # Spaces are part of a name here.
    wanted = said.split(",") if said else ()
    return (
        match.get("name", chain.name) == chain.name
        and ("sni" not in match or match["sni"] in has.server_names)
        and match.get("transportProtocol", has.transport_protocol) == has.transport_protocol
        and set(wanted) <= set(has.application_protocols)
        and match.get("destinationPort", has.destination_port.value) == has.destination_port.value
    )


def _is_filter(of: Filter, patch: Patch) -> bool:
    match = _filter_of(patch)
    return not match or match.get("name", "") == of.name


def _of(patch: Patch) -> Mapping[str, Any]:
    return mapping(patch.match.get("listener"))


def _filter_of(patch: Patch) -> Mapping[str, Any]:
    return mapping(mapping(_of(patch).get("filterChain")).get("filter"))


def _sub_filter_of(patch: Patch) -> Mapping[str, Any]:
    return mapping(_filter_of(patch).get("subFilter"))
