"""EnvoyFilters applied to listeners: themselves, their chains, network filters and HTTP filters."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as managers,
)

from extproc.mesh.envoy_filters import Patch
from extproc.mesh.inserting import inserted, named
from extproc.mesh.manifests import mapping
from extproc.mesh.patches import MERGES, Patches, merged
from extproc.mesh.proto import merge_any

MANAGER: Final = "envoy.filters.network.http_connection_manager"


def patch_listeners(listeners: list[Listener], patches: Patches) -> list[Listener]:
    """Apply what is for listeners and all within; those that are added come after the others."""
    kept = [listener for listener in listeners if _patch_listener(listener, patches)]
    return kept + patches.added("LISTENER")


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
    name = _of(patch).get("listenerFilter", "")
    if patch.operation in MERGES:
        for each in listener.listener_filters:
            if name == each.name and _merge_filter(each, patch.value, renames=False):
                patches.used(patch)
    elif inserted(listener.listener_filters, patch, named(name or None)):
        patches.used(patch)


def _patch_chains(listener: Listener, patches: Patches) -> None:
    removed = [
        at
        for at, chain in enumerate(listener.filter_chains)
        if chain.filters and not _patch_chain(listener, chain, patches)
    ]
    if listener.default_filter_chain.filters and not _patch_chain(
        listener, listener.default_filter_chain, patches
    ):
        listener.ClearField("default_filter_chain")
    for patch in patches.to("FILTER_CHAIN"):
        if patch.operation == "ADD" and _is_listener(listener, patch):
            listener.filter_chains.append(patch.value)
            patches.used(patch)
    for at in reversed(removed):
        del listener.filter_chains[at]


def _patch_chain(listener: Listener, chain: FilterChain, patches: Patches) -> bool:
    """Patch a chain; False where it is to be removed."""
    for patch in patches.to("FILTER_CHAIN"):
        if not _is_chain(listener, chain, patch):
            continue
        if patch.operation == "REMOVE":
            patches.used(patch)
            return False
        if patch.operation in MERGES:
            patches.used(patch)
            if not _merge_socket(chain, patch.value):
                merged(chain, patch)
    _patch_filters(listener, chain, patches)
    return True


def _merge_socket(chain: FilterChain, value: Any) -> bool:  # noqa: ANN401  # a FilterChain
    """Merge a transport socket into one of the same name, and nothing else of the patch."""
    if not (value.HasField("transport_socket") and chain.HasField("transport_socket")):
        return False
    if value.transport_socket.name != chain.transport_socket.name:
        return False
    return merge_any(chain.transport_socket.typed_config, value.transport_socket.typed_config)


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
                and _merge_filter(each, patch.value)
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
    if not meant:
        return
    manager = managers.HttpConnectionManager()
    of.typed_config.Unpack(manager)
    for patch in meant:
        if inserted(manager.http_filters, patch, named(_sub_filter_of(patch).get("name"))):
            patches.used(patch)
    for each in manager.http_filters:
        for patch in meant:
            if patch.operation != "MERGE":
                continue
            if _sub_filter_of(patch).get("name", each.name) != each.name:
                continue
            if _merge_filter(each, patch.value):
                patches.used(patch)
    of.typed_config.Pack(manager, deterministic=True)


def _merge_filter(target: Any, value: Any, *, renames: bool = True) -> bool:  # noqa: ANN401  # filters of three types
    """Merge what a filter is configured with, if it is with anything, and its name."""
    if not target.HasField("typed_config"):
        return False
    if value.HasField("typed_config"):
        merge_any(target.typed_config, value.typed_config)
    if renames and value.name:
        target.name = value.name
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
    wanted = [each for each in str(match.get("applicationProtocols", "")).split(",") if each]
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
