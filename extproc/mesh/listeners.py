"""Listeners as istiod makes them, before EnvoyFilters patch them.

A gateway's for HTTP, and a sidecar's for what it sends out by HTTP.
"""

from collections.abc import Mapping
from typing import Any, Final

from extproc.mesh.gateway_routes import servers
from extproc.mesh.manifests import MeshError, mapping, texts
from extproc.mesh.sidecar_routes import sidecar_configurations
from extproc.mesh.world import CLUSTER_ID, Proxy, World

Config = dict[str, Any]

MANAGER: Final = "envoy.filters.network.http_connection_manager"
ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104  # what istiod writes

_TYPES: Final = "type.googleapis.com/envoy.extensions.filters"
_HTTP: Final = frozenset(("HTTP", "HTTP2", "GRPC", "GRPC-WEB"))


def gateway_listeners(world: World, proxy: Proxy) -> list[Config]:
    """A gateway's listeners, sorted by name: one for each port on which a server speaks HTTP.

    Raises:
        MeshError: a server speaks something else, or with TLS, or two have one place to listen.
    """
    _check_servers(world, proxy)
    routes: dict[tuple[str, int], str] = {}
    for server in servers(world, proxy):
        port, _, bind = server.route_name.removeprefix("http.").partition(".")
        place = (bind or ANY_ADDRESS, int(port))
        if routes.setdefault(place, server.route_name) != server.route_name:
            why = f"another server listens on {place[0]}:{port} by another bind: Envoy refuses both"
            raise MeshError("Gateway " + server.gateway, why)
    made = [_gateway_listener(*place, name, proxy) for place, name in routes.items()]
    return sorted(made, key=lambda each: str(each["name"]))


def sidecar_listeners(world: World, proxy: Proxy) -> list[Config]:
    """A sidecar's listeners for what it sends out by HTTP to ports of any address, by name."""
    configurations, _ = sidecar_configurations(world, proxy, ())
    ports = [each["name"] for each in configurations if str(each["name"]).isdigit()]
    listeners = [_sidecar_listener(int(port), proxy) for port in ports]
    return sorted(listeners, key=lambda each: str(each["name"]))


def _check_servers(world: World, proxy: Proxy) -> None:
    for gateway in world.gateways:
        if not texts(gateway.spec.get("selector")).items() <= proxy.labels.items():
            continue
        said = gateway.mappings("spec.servers", gateway.spec.get("servers"))
        for at, server in enumerate(said):
            protocol = str(mapping(server.get("port")).get("protocol")).upper()
            if protocol not in _HTTP or server.get("tls"):
                gateway.fail(
                    f"spec.servers[{at}]",
                    f"{protocol} with TLS or without HTTP is not translated: a bare Envoy has no "
                    "certificates of Istio's; give a server of plain HTTP",
                )


def _gateway_listener(address: str, port: int, routes: str, proxy: Proxy) -> Config:
    manager = _manager(routes, f"outbound_{address}_{port};", proxy) | {
        "forward_client_cert_details": "SANITIZE_SET",
        "http_protocol_options": {},
        "server_name": "istio-envoy",
        "set_current_client_cert_details": dict.fromkeys(("cert", "dns", "subject", "uri"), True),
        "use_remote_address": True,
    }
    return {
        "address": _address(address, port),
        "filter_chains": [_chain(manager)],
        "max_connections_to_accept_per_socket_event": 1,
        "name": f"{address}_{port}",
        "traffic_direction": "OUTBOUND",
    }


def _sidecar_listener(port: int, proxy: Proxy) -> Config:
    name = f"{ANY_ADDRESS}_{port}"
    manager = _manager(str(port), f"outbound_{name};", proxy) | {"use_remote_address": False}
    plain = {"application_protocols": ["http/1.1", "h2c"], "transport_protocol": "raw_buffer"}
    return {
        "address": _address(ANY_ADDRESS, port),
        # Traffic comes by redirection, and whoever is redirected to keeps the port.
        "bind_to_port": False,
        "continue_on_listener_filters_timeout": True,
        "default_filter_chain": {
            "filter_chain_match": {},
            "filters": [_passed_through()],
            "name": "PassthroughFilterChain",
        },
        "filter_chains": [{"filter_chain_match": plain, **_chain(manager)}],
        "listener_filters": [
            _filter(
                "envoy.filters.listener.http_inspector", "listener.http_inspector.v3.HttpInspector"
            )
        ],
        "listener_filters_timeout": "0s",
        "name": name,
        "traffic_direction": "OUTBOUND",
    }


def _chain(manager: Mapping[str, Any]) -> Config:
    filters = [{"name": MANAGER, "typed_config": manager}]
    return {"filters": filters, "transport_socket_connect_timeout": "15s"}


def _manager(routes: str, stat_prefix: str, proxy: Proxy) -> Config:
    """A connection manager as gateways and sidecars have it."""
    ads = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    statistics = {"emit_filter_state": True, "stats_for_all_methods": False}
    return {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "http_filters": [
            _filter(
                "envoy.filters.http.grpc_stats", "http.grpc_stats.v3.FilterConfig", **statistics
            ),
            _filter("envoy.filters.http.fault", "http.fault.v3.HTTPFault"),
            _filter("envoy.filters.http.cors", "http.cors.v3.Cors"),
            _filter("envoy.filters.http.router", "http.router.v3.Router"),
        ],
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "proxy_100_continue": True,
        "rds": {"config_source": ads, "route_config_name": routes},
        "request_id_extension": {
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "use_request_id_for_trace_sampling": True,
            }
        },
        "stat_prefix": stat_prefix,
        "stream_idle_timeout": "0s",
        "tracing": {
            "client_sampling": {"value": 100},
            "custom_tags": [*_DRY_RUN_TAGS, *_identity_tags(proxy)],
            "overall_sampling": {"value": 100},
            "random_sampling": {"value": 1},
        },
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }


def _dry_run_tag(policy: str, tag: str, key: str) -> Config:
    path = [{"key": f"istio_dry_run_{policy}_shadow_{key}"}]
    where = {"key": "envoy.filters.http.rbac", "path": path}
    return {
        "metadata": {"kind": {"request": {}}, "metadata_key": where},
        "tag": f"istio.authorization.dry_run.{policy}_policy.{tag}",
    }


_DRY_RUN_TAGS: Final = tuple(
    _dry_run_tag(policy, tag, key)
    for policy in ("allow", "deny")
    for tag, key in (("name", "effective_policy_id"), ("result", "engine_result"))
)


def _identity_tags(proxy: Proxy) -> list[Config]:
    """Who the proxy is, as far as its labels, which nobody tells us, would not say more."""
    said = {
        "istio.canonical_revision": "latest",
        "istio.canonical_service": "unknown",
        "istio.cluster_id": CLUSTER_ID,
        "istio.mesh_id": "unknown",
        "istio.namespace": proxy.namespace,
    }
    return [{"literal": {"value": value}, "tag": tag} for tag, value in said.items()]


def _passed_through() -> Config:
    name = "PassthroughCluster"
    return _filter(
        "envoy.filters.network.tcp_proxy",
        "network.tcp_proxy.v3.TcpProxy",
        cluster=name,
        stat_prefix=name,
    )


def _filter(name: str, kind: str, **config: object) -> Config:
    return {"name": name, "typed_config": {"@type": f"{_TYPES}.{kind}", **config}}


def _address(address: str, port: int) -> Config:
    return {"socket_address": {"address": address, "port_value": port}}
