"""extproc/policy/identity.py"""

import hashlib
from typing import Any

import pytest

from extproc.policy.identity import ApiKey, Evidence, Identified, IdentitySource, identify

KEY = "sk-1"
KEYS = {hashlib.sha256(KEY.encode()).hexdigest(): "acme"}
JWT = IdentitySource(jwt_claim="tenant")
SPIFFE = IdentitySource(spiffe=r"^spiffe://[^/]+/ns/(?P<tenant>[^/]+)/")
BEARER = IdentitySource(api_key=ApiKey(file="keys.yaml", scheme="Bearer"))
BARE_KEY = IdentitySource(api_key=ApiKey(file="keys.yaml", header="x-api-key"))
HEADER = IdentitySource(header="x-tenant-id")


def evidence(
    headers: dict[str, str] | None = None, jwt: dict[str, Any] | None = None, peer_uri: str = ""
) -> Evidence:
    return Evidence(headers or {}, jwt or {}, peer_uri)


@pytest.mark.parametrize(
    ("source", "given", "name"),
    [
        pytest.param(JWT, evidence(jwt={"idp": {"tenant": "acme"}}), "acme", id="a claim"),
        pytest.param(
            JWT,
            evidence(jwt={"a": {}, "b": {"tenant": "acme"}}),
            "acme",
            id="a claim of a second provider",
        ),
        pytest.param(
            JWT, evidence(jwt={"idp": {"tenant": 7}}), None, id="a claim that is no string"
        ),
        pytest.param(JWT, evidence(jwt={"idp": "text"}), None, id="a payload that is no object"),
        pytest.param(
            IdentitySource(jwt_claim="org.team"),
            evidence(jwt={"idp": {"org": {"team": "acme"}}}),
            "acme",
            id="a nested claim",
        ),
        pytest.param(
            IdentitySource(jwt_claim="org.team"),
            evidence(jwt={"idp": {"org.team": "acme", "org": {"team": "x"}}}),
            "acme",
            id="a claim with a dot in its name",
        ),
        pytest.param(
            SPIFFE,
            evidence(peer_uri="spiffe://cluster.local/ns/acme/sa/app"),
            "acme",
            id="a peer's namespace",
        ),
        pytest.param(
            SPIFFE,
            evidence(peer_uri="spiffe://cluster.local/sa/app"),
            None,
            id="a peer of another shape",
        ),
        pytest.param(SPIFFE, evidence(), None, id="no certificate"),
        pytest.param(
            BEARER, evidence({"authorization": f"Bearer {KEY}"}), "acme", id="a bearer key"
        ),
        pytest.param(
            BEARER,
            evidence({"authorization": f"bearer  {KEY} "}),
            "acme",
            id="a scheme in small letters",
        ),
        pytest.param(
            BEARER, evidence({"authorization": f"Basic {KEY}"}), None, id="another scheme"
        ),
        pytest.param(BEARER, evidence({"authorization": KEY}), None, id="no scheme"),
        pytest.param(BEARER, evidence({"authorization": "Bearer sk-2"}), None, id="an unknown key"),
        pytest.param(
            BEARER,
            evidence({"authorization": "Bearer " + "x" * 9999}),
            None,
            id="a key too long to hash",
        ),
        pytest.param(
            BARE_KEY, evidence({"x-api-key": KEY}), "acme", id="a key in a header of its own"
        ),
        pytest.param(HEADER, evidence({"x-tenant-id": "acme"}), "acme", id="a trusted header"),
        pytest.param(HEADER, evidence({"x-tenant-id": ""}), None, id="an empty header"),
        pytest.param(HEADER, evidence({"x-tenant-id": "x" * 999}), None, id="a name too long"),
    ],
)
def test_each_source_yields_a_name_or_nothing(
    source: IdentitySource, given: Evidence, name: str | None
) -> None:
    found = identify((source,), KEYS, given)

    assert (found.name if found else None) == name


def test_the_first_source_that_yields_a_name_wins() -> None:
    given = evidence({"authorization": f"Bearer {KEY}", "x-tenant-id": "initech"})

    assert identify((JWT, HEADER, BEARER), KEYS, given) == Identified(
        "initech", "header x-tenant-id"
    )
    assert identify((JWT, BEARER, HEADER), KEYS, given) == Identified("acme", "api_key")


def test_nothing_to_go_by_is_nobody() -> None:
    assert identify((JWT, SPIFFE, BEARER, HEADER), KEYS, evidence()) is None
