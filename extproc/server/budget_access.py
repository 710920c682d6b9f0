"""Who may look after budgets: nobody, but for what is allowed here.

A peer counts as loopback only if it calls from 127.0.0.1 or ::1 itself. Istio's proxies call the
service beside them from 127.0.0.6, and a proxy that hands on a call says so in its metadata: both
come from somewhere else.
"""

import hmac
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

TOKEN_CHARS_MIN: Final = 16
TOKEN_BYTES_MAX: Final = 4096

_LOOPBACK: Final = ("ipv4:127.0.0.1:", "ipv6:[::1]:", "ipv6:%5B::1%5D:")
_HANDED_ON: Final = frozenset(
    ("forwarded", "via", "x-envoy-external-address", "x-forwarded-client-cert", "x-forwarded-for")
)
_BEARER: Final = "Bearer "
_NAMES: Final = ("peer_spiffe_id", "x509_subject_alternative_name")


class Caller(NamedTuple):
    """What gRPC tells of a caller: where it is, its metadata, and its verified certificate."""

    peer: str
    metadata: Sequence[tuple[str, str | bytes]]
    certificate: Mapping[str, Sequence[bytes]]


class Access(NamedTuple):
    """Any one of these is enough. Without any, nobody may."""

    is_loopback_trusted: bool = False
    identities: frozenset[str] = frozenset()
    """URI or DNS names of client certificates, in full."""
    token_file: Path | None = None
    """Read at every call, so that the token may be changed. What is shorter than
    `TOKEN_CHARS_MIN` or longer than `TOKEN_BYTES_MAX` is no token."""

    def who(self, caller: Caller) -> str:
        """By what right the caller may; empty if it may not."""
        for name in _names(caller.certificate):
            if name in self.identities:
                return name
        presented, token = _token(caller.metadata), self._token()
        # Of digests: how long the token is, is not told either.
        if token and hmac.compare_digest(sha256(presented).digest(), sha256(token).digest()):
            return "token"
        if self.is_loopback_trusted and _is_loopback(caller):
            return "loopback"
        return ""

    def _token(self) -> bytes:
        if self.token_file is None:
            return b""
        try:
            with self.token_file.open("rb") as file:
                token = file.read(TOKEN_BYTES_MAX + 1).strip()
        except OSError:
            return b""
        return token if TOKEN_CHARS_MIN <= len(token) <= TOKEN_BYTES_MAX else b""


def caller_of(context: Any) -> Caller:  # noqa: ANN401  # grpc has no types
    """Read it from a call's context."""
    certificate: Mapping[str, Sequence[bytes]] = context.auth_context() or {}
    return Caller(context.peer(), tuple(context.invocation_metadata() or ()), certificate)


def _names(certificate: Mapping[str, Sequence[bytes]]) -> list[str]:
    if list(certificate.get("transport_security_type", ())) != [b"ssl"]:
        return []
    return [name.decode(errors="replace") for key in _NAMES for name in certificate.get(key, ())]


def _token(metadata: Sequence[tuple[str, str | bytes]]) -> bytes:
    values = [value for name, value in metadata if name == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].startswith(_BEARER):
        return b""
    return values[0].removeprefix(_BEARER).strip().encode(errors="replace")


def _is_loopback(caller: Caller) -> bool:
    is_handed_on = any(name in _HANDED_ON for name, _ in caller.metadata)
    return caller.peer.startswith(_LOOPBACK) and not is_handed_on
