"""What Istio's agent would bring of certificates, as far as a bare Envoy can have it otherwise."""

import copy
from collections.abc import Iterator
from typing import Any, Final

from extproc.mesh.upstream_tls import SYSTEM_ROOTS

Tree = dict[str, Any]

SYSTEM_ROOTS_FILE: Final = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian and Ubuntu keep them, Envoy's own images among these."""

_TRUSTED: Final = "validation_context_sds_secret_config"
_OWN: Final = "tls_certificate_sds_secret_configs"
_ROOT: Final = "file-root:"
_PAIR: Final = "file-cert:"
_ISTIOS: Final = frozenset(("default", "ROOTCA"))


def is_istios(cluster: Tree) -> bool:
    """Whether a cluster speaks Istio's own mutual TLS, to which a bare Envoy has no part."""
    socket = cluster.get("transport_socket", {})
    return not _ISTIOS.isdisjoint(secret.get("name") for secret in _secrets(socket))


def without_agent(cluster: Tree) -> Tree:
    """The cluster with files for secrets; in plain text where it would speak Istio's mutual TLS.

    Secrets that are no files stay: nobody has them.
    """
    if is_istios(cluster):
        return {key: value for key, value in cluster.items() if key != "transport_socket"}
    made = copy.deepcopy(cluster)
    context = made.get("transport_socket", {}).get("typed_config", {}).get("common_tls_context", {})
    combined = context.get("combined_validation_context", {})
    name = combined.get(_TRUSTED, {}).get("name", "")
    if name.startswith(_ROOT):
        file = name.removeprefix(_ROOT)
        trusted = {"filename": SYSTEM_ROOTS_FILE if file == SYSTEM_ROOTS else file}
        checked = combined.get("default_validation_context", {})
        context["validation_context"] = {**checked, "trusted_ca": trusted}
        del context["combined_validation_context"]
    names = [each.get("name", "") for each in context.get(_OWN, ())]
    if names and all(each.startswith(_PAIR) for each in names):
        del context[_OWN]
        context["tls_certificates"] = [_pair(each) for each in names]
    return made


def _pair(name: str) -> Tree:
    certificate, _, key = name.removeprefix(_PAIR).partition("~")
    return {"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}


def _secrets(socket: Tree) -> Iterator[Tree]:
    context = socket.get("typed_config", {}).get("common_tls_context", {})
    yield from context.get(_OWN, ())
    yield context.get("combined_validation_context", {}).get(_TRUSTED, {})
