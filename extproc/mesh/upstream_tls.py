"""What a DestinationRule's `tls` makes of a cluster.

Facts from istiod's `pilot/pkg/networking/core/cluster_tls.go`. Certificates come over SDS from
Istio's agent, whose cluster is `sds-grpc`: a bare Envoy has none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
SYSTEM_ROOTS: Final = "system"


def transport_socket(
    tls: Mapping[str, Any], sni: str, identities: Sequence[str], *, is_external: bool, is_h2: bool
) -> dict[str, Any] | None:
    """The socket for these settings; none in mode DISABLE.

    `sni` and `identities` are what Istio's own mutual TLS says and expects where the rule leaves it
    open; of a host outside Kubernetes (`is_external`) the latter are expected in any mode.
    """
    mode = tls.get("mode", "DISABLE")
    if mode == "DISABLE":
        return None
    names: Sequence[str] = tls.get("subjectAltNames", ())
    if mode == "ISTIO_MUTUAL":
        alpn = ["istio", "h2"] if is_h2 else ["istio"]
        trusted = {
            "combined_validation_context": {
                "default_validation_context": _names(names or identities),
                "validation_context_sds_secret_config": _secret("ROOTCA", is_awaited=True),
            }
        }
        certificates = [_secret("default", is_awaited=True)]
        server_name = tls.get("sni") or sni
    else:
        alpn = ["h2"] if is_h2 else []
        trusted = _trusted(tls, names or (identities if is_external else ()))
        certificates = (
            [_secret(f"file-cert:{tls['clientCertificate']}~{tls['privateKey']}")]
            if mode == "MUTUAL"
            else []
        )
        server_name = tls.get("sni", "")
    context: dict[str, Any] = {
        "@type": TYPE,
        "common_tls_context": {
            **({"alpn_protocols": alpn} if alpn else {}),
            **trusted,
            **({"tls_certificate_sds_secret_configs": certificates} if certificates else {}),
            "tls_params": {
                "tls_maximum_protocol_version": "TLSv1_3",
                "tls_minimum_protocol_version": "TLSv1_2",
            },
        },
    }
    if server_name:
        context["sni"] = server_name
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def automatic(tls: Mapping[str, Any]) -> dict[str, bool]:
    """What the host of each request decides of TLS that Istio doesn't: the name, and its check."""
    if tls.get("mode") not in {"SIMPLE", "MUTUAL"} or tls.get("sni"):
        return {}
    is_checked = not tls.get("subjectAltNames") and not tls.get("insecureSkipVerify")
    return {"auto_sni": True, **({"auto_san_validation": True} if is_checked else {})}


def _trusted(tls: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    if tls.get("insecureSkipVerify"):
        return {"validation_context": {}}
    crl = {"crl": {"filename": tls["caCrl"]}} if tls.get("caCrl") else {}
    roots = tls.get("caCertificates") or SYSTEM_ROOTS
    return {
        "combined_validation_context": {
            "default_validation_context": {**_names(names), **crl},
            "validation_context_sds_secret_config": _secret(f"file-root:{roots}"),
        }
    }


def _names(names: Sequence[str]) -> dict[str, Any]:
    return {"match_subject_alt_names": [{"exact": each} for each in names]} if names else {}


def _secret(name: str, *, is_awaited: bool = False) -> dict[str, Any]:
    """A secret from Istio's agent; `is_awaited`: for as long as it takes."""
    return {
        "name": name,
        "sds_config": {
            "api_config_source": {
                "api_type": "GRPC",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
                "set_node_on_first_message_only": True,
                "transport_api_version": "V3",
            },
            **({"initial_fetch_timeout": "0s"} if is_awaited else {}),
            "resource_api_version": "V3",
        },
    }
