"""Clusters in the making."""

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, NamedTuple

from extproc.mesh.world import Host, Port, Protocol, Proxy

OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class Draft(NamedTuple):
    """A cluster in the making: itself, and its HttpProtocolOptions, empty until one is set."""

    cluster: dict[str, Any]
    options: dict[str, Any]

    @property
    def istio(self) -> dict[str, Any]:
        """Its metadata for Istio's own filters and for telemetry."""
        found: dict[str, Any] = self.cluster["metadata"]["filter_metadata"]["istio"]
        return found

    @property
    def is_h2(self) -> bool:
        """Whether it always speaks HTTP/2."""
        return "http2_protocol_options" in self.options.get("explicit_http_config", {})

    def speak_h2(self) -> None:
        """Always speak HTTP/2."""
        self.options.pop("use_downstream_protocol_config", None)
        self.options["explicit_http_config"] = {"http2_protocol_options": {}}

    def speak_as_asked(self) -> None:
        """Speak what each request came in."""
        self.options.pop("explicit_http_config", None)
        self.options["use_downstream_protocol_config"] = {
            "http_protocol_options": {},
            "http2_protocol_options": {},
        }

    def speak_as_port(self, port: Port, proxy: Proxy) -> None:
        """Speak what the port does. A gateway speaks HTTP/1.1 where nobody said what that is."""
        if port.protocol.is_http2:
            self.speak_h2()
        elif port.protocol is Protocol.AUTO and proxy.kind == "sidecar":
            self.speak_as_asked()

    def built(self) -> dict[str, Any]:
        """The cluster with its options, if there are any."""
        if self.options:
            if "use_downstream_protocol_config" not in self.options:
                self.options.setdefault("explicit_http_config", {"http_protocol_options": {}})
            self.cluster["typed_extension_protocol_options"] = {
                OPTIONS: {"@type": f"type.googleapis.com/{OPTIONS}", **self.options}
            }
        return self.cluster


def draft(name: str, kind: str, hosts: Iterable[Host] = (), **more: object) -> Draft:
    """A cluster of that name and discovery type, with the hosts it is for in its metadata."""
    cluster = {"name": name, "alt_stat_name": f"{name};", "type": kind, **more}
    services = [
        {"host": each.hostname, "name": each.name, "namespace": each.namespace} for each in hosts
    ]
    if services:
        cluster["metadata"] = {"filter_metadata": {"istio": {"services": services}}}
    return Draft(cluster, {})


def is_v6(proxy: Proxy) -> bool:
    """Whether the proxy lives on IPv6 alone."""
    return bool(proxy.address) and isinstance(ip_address(proxy.address), IPv6Address)
