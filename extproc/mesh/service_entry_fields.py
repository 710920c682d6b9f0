"""The fields of a ServiceEntry, as istiod's validation takes them."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

from extproc.mesh.fields import (
    UINT32_MAX,
    choice,
    integer,
    labels,
    listed,
    message,
    name,
    refused,
    text,
)
from extproc.mesh.manifests import Manifest, Tree

PROTOCOLS: Final = (
    "HTTP",
    "HTTPS",
    "GRPC",
    "GRPC-WEB",
    "HTTP2",
    "MONGO",
    "TCP",
    "TLS",
    "REDIS",
    "MYSQL",
)

_PORT: Final = integer(1, 65535)


def _protocol(manifest: Manifest, path: str, value: Tree) -> Tree:
    return choice(*PROTOCOLS)(manifest, path, value.upper() if isinstance(value, str) else value)


def _endpoint_ports(manifest: Manifest, path: str, value: Tree) -> Tree:
    if not isinstance(value, dict):
        manifest.fail(path, "must be a mapping")
    return {key: _PORT(manifest, f"{path}.{key}", item) for key, item in value.items()}


_UNKNOWN_PLACE: Final = refused("localities are not known here; leave it out")
_ENTRY: Final = message(
    {
        "hosts": listed(name),
        "addresses": listed(name),
        "ports": listed(
            message(
                {"number": _PORT, "name": name, "protocol": _protocol, "targetPort": _PORT},
                required=("number", "name"),
            )
        ),
        "location": choice("MESH_EXTERNAL", "MESH_INTERNAL"),
        "resolution": choice("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"),
        "endpoints": listed(
            message(
                {
                    "address": name,
                    "ports": _endpoint_ports,
                    "labels": labels,
                    "weight": integer(0, UINT32_MAX),
                    "locality": _UNKNOWN_PLACE,
                    "network": _UNKNOWN_PLACE,
                    "serviceAccount": refused("not translated; write subjectAltNames"),
                }
            )
        ),
        "workloadSelector": refused("not translated; list the endpoints"),
        "exportTo": listed(name),
        "subjectAltNames": listed(text),
    }
)


def service_entry(entry: Manifest) -> Mapping[str, Any]:
    """Its `spec`, checked.

    Raises:
        MeshError: a field is wrong, or is not translated, or istiod would refuse the whole.
    """
    found: Mapping[str, Any] = _ENTRY(entry, "spec", entry.spec)
    ports = found.get("ports", [])
    for key in ("hosts", "ports"):
        if not found.get(key):
            entry.fail(f"spec.{key}", "missing")
    for at, port in enumerate(ports):
        for key in ("number", "name"):
            if [each.get(key) for each in ports].count(port[key]) > 1:
                entry.fail(f"spec.ports[{at}].{key}", f"{port[key]!r} stands here twice")
    _check_endpoints(entry, found, {port["name"] for port in ports})
    return found


def _check_endpoints(entry: Manifest, found: Mapping[str, Any], names: set[str]) -> None:
    resolution, said = found.get("resolution", "NONE"), found.get("endpoints", [])
    if resolution == "NONE" and said:
        entry.fail("spec.endpoints", "there may be none where resolution is NONE")
    if resolution == "DNS_ROUND_ROBIN" and len(said) > 1:
        entry.fail("spec.endpoints", "there may be one where resolution is DNS_ROUND_ROBIN")
    if resolution.startswith("DNS") and not said:
        for at, host in enumerate(found["hosts"]):
            if host.startswith("*"):
                entry.fail(f"spec.hosts[{at}]", "a wildcard can't be resolved; say endpoints")
    for at, endpoint in enumerate(said):
        _check_endpoint(entry, f"spec.endpoints[{at}]", endpoint, resolution, names)


def _check_endpoint(
    entry: Manifest, path: str, endpoint: Mapping[str, Any], resolution: str, names: set[str]
) -> None:
    address = endpoint.get("address", "")
    if not address or "://" in address:
        entry.fail(f"{path}.address", "must be an IP address or, for DNS, a name")
    if resolution == "STATIC" and not _is_ip(address):
        entry.fail(f"{path}.address", "must be an IP address where resolution is STATIC")
    for port in endpoint.get("ports", {}):
        if port not in names:
            entry.fail(f"{path}.ports.{port}", "is no port of the entry")


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
