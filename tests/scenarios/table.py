"""Whole requests and what becomes of them, written once.

Run on the bare exchange (`tests/scenarios`), over gRPC (`tests/shell`), through a real Envoy
(`tests/conformance`) and under the benchmark (`bench`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = Path(__file__).parent / "policy.yaml"


def chat(text: str = "Say hello.", *, model: str = "gpt-4", **more: Any) -> bytes:
    """A chat body."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": model, "messages": messages, **more}).encode()


@dataclass(frozen=True)
class Call:
    """One HTTP request."""

    body: bytes = b""
    tenant: str | None = "acme"
    path: str = "/v1/chat/completions"
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)

    def all_headers(self) -> dict[str, str]:
        """Those given, with who asks and what the body is."""
        headers = {"content-type": "application/json"} if self.body else {}
        if self.tenant is not None:
            headers["x-tenant-id"] = self.tenant
        return headers | dict(self.headers)


@dataclass(frozen=True)
class Scenario:
    """`call`, after the calls `before` it, is either refused with `reason` or goes to `tier`.

    `tier` None and `status` 200: it passes untouched. `says` is part of the refusal's body.
    """

    name: str
    call: Call
    tier: str | None = None
    status: int = 200
    reason: str = ""
    says: str = ""
    before: tuple[Call, ...] = ()
    upstream: Mapping[str, str | None] = field(default_factory=dict)
    """Headers that the upstream must see; None: must not."""


LONG = "hello world " * 5000
COMPLEX = "Explain the difference between these two designs. " * 600

SCENARIOS = (
    Scenario(
        "a premium subscriber gets premium",
        Call(chat()),
        tier="premium",
        upstream={
            "x-llm-tier": "premium",
            "x-tenant-id": "acme",
            "x-request-priority": "0",
            "x-llm-model": "gpt-4",
            "x-llm-stream": None,
        },
    ),
    Scenario(
        "a plain request of the standard plan gets default",
        Call(chat(), tenant="initech"),
        tier="default",
        upstream={"x-llm-tier": "default", "x-request-priority": "2"},
    ),
    Scenario(
        "a complex request of the standard plan gets standard",
        Call(chat(COMPLEX), tenant="initech"),
        tier="standard",
    ),
    Scenario(
        "a body that asks for a stream is marked for the router",
        Call(chat(stream=True)),
        tier="premium",
        upstream={"x-llm-stream": "true"},
    ),
    Scenario(
        "a client's own tier header gains nothing",
        Call(chat(), tenant="initech", headers={"x-llm-tier": "premium"}),
        tier="default",
    ),
    Scenario(
        "a client's own stream header is taken off",
        Call(chat(), headers={"x-llm-stream": "true"}),
        tier="premium",
        upstream={"x-llm-stream": None},
    ),
    Scenario(
        "an API key tells the tenant",
        Call(chat(), tenant=None, headers={"authorization": "Bearer sk-acme"}),
        tier="premium",
        upstream={"x-tenant-id": "acme"},
    ),
    Scenario(
        "Anthropic's key header tells the tenant",
        Call(
            chat(max_tokens=9), tenant=None, path="/v1/messages", headers={"x-api-key": "sk-acme"}
        ),
        tier="premium",
    ),
    Scenario(
        "an unknown key is refused",
        Call(chat(), tenant=None, headers={"authorization": "Bearer sk-nobody"}),
        status=401,
        reason="unknown_tenant",
        says="invalid_api_key",
    ),
    Scenario(
        "a tenant that nobody knows is refused",
        Call(chat(), tenant="nobody"),
        status=401,
        reason="unknown_tenant",
    ),
    Scenario(
        "a tenant named twice is refused",
        Call(chat(), tenant="acme,initech"),
        status=401,
        reason="unknown_tenant",
    ),
    Scenario(
        "nobody at all is refused, as Anthropic says it",
        Call(chat(max_tokens=9), tenant=None, path="/v1/messages"),
        status=401,
        reason="unknown_tenant",
        says="authentication_error",
    ),
    Scenario("another path passes untouched", Call(b'{"x": 1}', path="/v1/files", tenant=None)),
    Scenario("a GET of an LLM path passes untouched", Call(method="GET", tenant=None)),
    Scenario(
        "a tier header on another path is taken off",
        Call(b"{}", path="/v1/files", tenant=None, headers={"x-llm-tier": "premium"}),
        upstream={"x-llm-tier": None},
    ),
    Scenario(
        "a tenant header that is trusted is left on another path",
        Call(b"{}", path="/v1/files"),
        upstream={"x-tenant-id": "acme"},
    ),
    Scenario(
        "an upgrade on an LLM path is refused",
        Call(method="GET", headers={"connection": "Upgrade", "upgrade": "websocket"}),
        status=400,
        reason="upgrade_refused",
    ),
    Scenario(
        "a path spelt otherwise is still an LLM call",
        Call(chat(), tenant=None, path="/v1//chat/./completions/?a=b"),
        status=401,
        reason="unknown_tenant",
    ),
    Scenario("the platform's own path speaks chat", Call(chat(), path="/v1/chat"), tier="premium"),
    Scenario(
        "embeddings are calls too",
        Call(
            b'{"model": "text-embedding-3-small", "input": ["a", "b"]}',
            path="/v1/embeddings",
            tenant="initech",
        ),
        tier="default",
    ),
    Scenario(
        "a body that is not JSON is refused",
        Call(b"{"),
        status=400,
        reason="malformed_request",
        says="not JSON",
    ),
    Scenario(
        "a body that is no object is refused", Call(b"[]"), status=400, reason="malformed_request"
    ),
    Scenario(
        "a body without a model is refused",
        Call(b'{"messages": []}'),
        status=400,
        reason="malformed_request",
        says="model",
    ),
    Scenario(
        "a wrong type is refused with its path",
        Call(b'{"model": "gpt-4", "messages": [{"role": "user", "content": 7}]}'),
        status=400,
        reason="malformed_request",
        says="messages[0].content",
    ),
    Scenario(
        "a key that stands twice is refused",
        Call(b'{"model": "gpt-4", "messages": [], "model": "gpt-3.5-turbo"}'),
        status=400,
        reason="malformed_request",
        says="twice",
    ),
    Scenario(
        "NaN is refused",
        Call(b'{"model": "gpt-4", "messages": [], "temperature": NaN}'),
        status=400,
        reason="malformed_request",
    ),
    Scenario(
        "a number beyond range is refused",
        Call(b'{"model": "gpt-4", "messages": [], "max_tokens": 1e999}'),
        status=400,
        reason="malformed_request",
        says="max_tokens",
    ),
    Scenario(
        "invalid UTF-8 is refused",
        Call(b'{"model": "gpt-4", "messages": [], "user": "\xff"}'),
        status=400,
        reason="malformed_request",
        says="UTF-8",
    ),
    Scenario(
        "a lone surrogate is refused",
        Call(b'{"model": "gpt-4", "messages": [{"role": "user", "content": "\\ud800"}]}'),
        status=400,
        reason="malformed_request",
    ),
    Scenario(
        "endless nesting is refused",
        Call(b'{"model": "gpt-4", "messages": [], "x": ' + b"[" * 9999 + b"]" * 9999 + b"}"),
        status=400,
        reason="malformed_request",
        says="nested",
    ),
    Scenario(
        "an empty body is refused",
        Call(b"", headers={"content-type": "application/json", "content-length": "0"}),
        status=400,
        reason="malformed_request",
        says="empty",
    ),
    Scenario(
        "a body that is not said to be JSON is refused",
        Call(chat(), headers={"content-type": "text/plain"}),
        status=415,
        reason="unsupported_media_type",
    ),
    Scenario(
        "a compressed body is refused",
        Call(b"\x1f\x8b\x08", headers={"content-encoding": "gzip"}),
        status=415,
        reason="unsupported_media_type",
    ),
    Scenario(
        "a body over the limit is refused",
        Call(chat("x" * 1_048_576)),
        status=413,
        reason="request_too_large",
    ),
    Scenario(
        "an unknown model is refused where the settings say so",
        Call(chat(model="gpt-99")),
        status=404,
        reason="unknown_model",
        says="model_not_found",
    ),
    Scenario(
        "a prompt too long for a tier moves to the next that holds it",
        Call(chat(LONG)),
        tier="standard",
    ),
    Scenario(
        "a prompt too long for every tier is refused",
        Call(chat(LONG), tenant="short"),
        status=400,
        reason="context_exceeded",
        says="context_length_exceeded",
    ),
    Scenario(
        "a full rate budget is refused, to be tried again",
        Call(chat(max_tokens=280), tenant="hourly"),
        before=(Call(chat(max_tokens=280), tenant="hourly"),),
        status=429,
        reason="rate_limited",
        says="rate_limit_exceeded",
    ),
    Scenario(
        "a request that no window can hold is refused for good",
        Call(chat(max_tokens=400), tenant="tiny"),
        status=400,
        reason="budget_too_small",
        says="can never hold",
    ),
    Scenario(
        "money that is short is served by a cheaper tier",
        Call(chat(max_tokens=1000), tenant="poor"),
        tier="standard",
        upstream={"x-llm-model": "gpt-3.5-turbo"},
    ),
    Scenario(
        "money that is gone is refused, not to be tried again",
        Call(chat(max_tokens=160), tenant="broke"),
        before=(Call(chat(max_tokens=160), tenant="broke"),),
        status=429,
        reason="budget_exhausted",
        says="insufficient_quota",
    ),
    Scenario(
        "a suspended tenant is refused before its body is read",
        Call(b"{", tenant="suspended"),
        status=429,
        reason="tenant_suspended",
    ),
)
