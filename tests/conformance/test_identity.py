"""Who asks, as Envoy vouches for it."""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.conformance.harness import Mesh, chat, mark, running

SECRET = secrets.token_bytes(32)
ISSUER = "https://issuer.example"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: Mapping[str, Any], *, secret: bytes = SECRET) -> str:
    """A JWT, signed with a secret that Envoy knows, or with another."""
    parts = [{"alg": "HS256", "typ": "JWT"}, {"iss": ISSUER, **claims}]
    signed = ".".join(b64(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def jwt_filter() -> dict[str, Any]:
    """Envoy's own filter: it verifies a token where there is one, and puts it into metadata."""
    keys = {"keys": [{"kty": "oct", "alg": "HS256", "k": b64(SECRET)}]}
    provider = {
        "issuer": ISSUER,
        "local_jwks": {"inline_string": json.dumps(keys)},
        "payload_in_metadata": "issuer",
        "from_headers": [{"name": "x-token"}],
    }
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"issuer": provider},
        "rules": [
            {
                "match": {"prefix": "/"},
                "requires": {
                    "requires_any": {
                        "requirements": [{"provider_name": "issuer"}, {"allow_missing": {}}]
                    }
                },
            }
        ],
    }
    return {"name": "envoy.filters.http.jwt_authn", "typed_config": config}


@pytest.fixture(scope="module")
def trusting(
    tmp_path_factory: pytest.TempPathFactory, adapters: Mapping[str, int], envoy_version: str
) -> Iterator[Mesh]:
    """A mesh whose Envoy verifies tokens, and whose settings go by a claim in them."""
    folder = tmp_path_factory.mktemp("trusting")
    wiring = {"authentication": jwt_filter()}
    identity = [{"jwt_claim": "org.tenant"}]
    with running(folder, adapters, envoy_version, wiring=wiring, identity=identity) as mesh:
        yield mesh


async def test_a_claim_that_envoy_verified_tells_the_tenant(trusting: Mesh) -> None:
    step = mark()
    headers = {"x-token": token({"org": {"tenant": "initech"}}), "x-tenant-id": "acme"}

    answer = await trusting.send(chat(), step=step, tenant=None, headers=headers)

    entry = await trusting.the_entry(step)
    assert (answer.status, answer.served_by) == (200, "local-llama")
    assert entry.header("x-tenant-id") == "initech"


async def test_a_claim_that_nobody_verified_tells_nothing(trusting: Mesh) -> None:
    step = mark()
    forged = token({"org": {"tenant": "acme"}}, secret=b"another")

    answer = await trusting.send(chat(), step=step, tenant=None, headers={"x-token": forged})

    assert answer.status == 401
    assert await trusting.books(step) == []


async def test_no_claim_is_no_tenant(trusting: Mesh) -> None:
    step = mark()

    answer = await trusting.send(chat(), step=step, tenant=None)

    (record,) = await trusting.log.wait_for(step, count=1)
    assert (answer.status, record.details) == (401, "llm_unknown_tenant")
