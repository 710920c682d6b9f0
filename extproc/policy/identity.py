"""Who asks: the tenant, told from what the proxy vouches for or from a key.

The sources are tried in the settings' order; the first that yields a name wins, whether or
not a tenant of that name exists. Secrets are compared by hash and kept nowhere.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Final

import msgspec

from extproc.llm.record import Record
from extproc.policy.section import Section

JWT_NAMESPACE: Final = "envoy.filters.http.jwt_authn"
"""Where Envoy's jwt_authn filter puts the payload of a token that it has verified."""

API_KEY_CHARS_MAX: Final = 4096
TENANT_CHARS_MAX: Final = 256

HeaderName = Annotated[
    str,
    msgspec.Meta(
        pattern="^[a-z0-9!#$%&'*+.^_`|~-]+$",
        max_length=128,
        description="the name of a header, in lower case",
    ),
]


class ApiKey(Section, frozen=True, kw_only=True):
    """A key in a header, known to us by its SHA-256 only."""

    header: HeaderName = "authorization"
    scheme: str = ""
    file: str


class IdentitySource(Section, frozen=True, kw_only=True, dict=True):
    """One way to tell the tenant. Exactly one field is given."""

    jwt_claim: str | None = None
    spiffe: str | None = None
    api_key: ApiKey | None = None
    header: HeaderName | None = None

    @cached_property
    def title(self) -> str:
        """What it is called in logs and metadata."""
        if self.jwt_claim is not None:
            return f"jwt_claim {self.jwt_claim}"
        if self.spiffe is not None:
            return "spiffe"
        return "api_key" if self.api_key is not None else f"header {self.header}"


class Evidence(Record, frozen=True):
    """What a request brings that can tell who asks.

    `headers` have lower-case names; `jwt` is the namespace `JWT_NAMESPACE`; `peer_uri` is the
    URI name in the certificate of the peer, as Envoy verified it, or empty.
    """

    headers: Mapping[str, str]
    jwt: Mapping[str, Any]
    peer_uri: str


class Identified(Record, frozen=True):
    """A name, and the source that yielded it."""

    name: str
    source: str


def identify(
    sources: tuple[IdentitySource, ...], keys: Mapping[str, str], evidence: Evidence
) -> Identified | None:
    """Return the first name that a source yields, or None.

    `keys` maps the SHA-256 of an API key, in lower-case hex, to a tenant.
    """
    for source in sources:
        name = _ask(source, keys, evidence)
        if name and len(name) <= TENANT_CHARS_MAX:
            return Identified(name, source.title)
    return None


def _ask(source: IdentitySource, keys: Mapping[str, str], evidence: Evidence) -> str | None:
    if source.jwt_claim is not None:
        return _claim(evidence.jwt, source.jwt_claim)
    if source.spiffe is not None:
        found = re.search(source.spiffe, evidence.peer_uri) if evidence.peer_uri else None
        return found and found.group("tenant")
    if source.api_key is not None:
        return _key_owner(source.api_key, keys, evidence.headers)
    return evidence.headers.get(source.header or "")


def _claim(jwt: Mapping[str, Any], name: str) -> str | None:
    """Find a claim in the payload of whichever provider verified the token.

    A name with dots is first taken as it is, then as a path into nested claims.
    """
    for payload in jwt.values():
        if not isinstance(payload, Mapping):
            continue
        value: Any = payload.get(name)
        if value is None and "." in name:
            value = payload
            for step in name.split("."):
                value = value.get(step) if isinstance(value, Mapping) else None
        if isinstance(value, str):
            return value
    return None


def _key_owner(source: ApiKey, keys: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
    value = headers.get(source.header, "")
    if source.scheme:
        scheme, _, value = value.partition(" ")
        if scheme.lower() != source.scheme.lower():
            return None
    value = value.strip()
    if not value or len(value) > API_KEY_CHARS_MAX:
        return None
    return keys.get(hashlib.sha256(value.encode()).hexdigest())
