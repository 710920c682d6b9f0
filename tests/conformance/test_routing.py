"""Which adapter a request reaches, and with which headers."""

import grpc
import grpc.aio
import pytest

from tests.conformance.harness import CHAT, DEADLINE_SECONDS, Mesh, chat, mark

SHARED = "gpt35-adapter|local-llama"
COMPLEX = "Explain the difference between these two designs. " * 700
OURS = (
    "x-llm-tier",
    "x-tenant-id",
    "x-request-priority",
    "x-llm-model",
    "x-llm-prompt-tokens",
    "x-llm-stream",
)
SPOOFED = dict.fromkeys(OURS, "premium") | {"x-tenant-id": "acme"}


@pytest.mark.parametrize(
    ("tenant", "body", "tier", "adapter"),
    [
        pytest.param("acme", chat(), "premium", "gpt4-adapter", id="premium"),
        pytest.param("initech", chat(COMPLEX), "standard", SHARED, id="standard"),
        pytest.param("initech", chat(), "default", "local-llama", id="default"),
        pytest.param("oddity", chat(), "odd", "local-llama", id="a tier without a route"),
    ],
)
async def test_each_tier_reaches_its_adapter(
    mesh: Mesh, tenant: str, body: bytes, tier: str, adapter: str
) -> None:
    step = mark()

    answer = await mesh.send(body, step=step, tenant=tenant)

    (record,) = await mesh.log.wait_for(step, count=1)
    entry = await mesh.the_entry(step)
    assert answer.status == 200
    assert answer.served_by == entry.adapter == record.cluster
    assert entry.adapter in adapter.split("|")
    assert (record.llm["tier"], record.llm["tenant"]) == (tier, tenant)
    assert (entry.header("x-llm-tier"), entry.header("x-tenant-id")) == (tier, tenant)
    assert entry.header("x-llm-prompt-tokens") == f"{record.llm['prompt_tokens']:.0f}"


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_spoofed_headers_gain_nothing_on_an_llm_call(mesh: Mesh, version: str) -> None:
    step = mark()
    if version == "HTTP/2":
        await _send_by_grpc(mesh, CHAT, {"x-demo-step": step, **SPOOFED})
        (record,) = await mesh.log.wait_for(step, count=1)
        assert (record.protocol, record.details) == ("HTTP/2", "llm_unknown_tenant")
        return

    await mesh.send(chat(), step=step, tenant="initech", headers=SPOOFED)

    entry = await mesh.the_entry(step)
    assert entry.adapter == "local-llama"
    assert {name: entry.header(name) for name in OURS} == {
        "x-llm-tier": "default",
        "x-tenant-id": "initech",
        "x-request-priority": "2",
        "x-llm-model": "local-llama",
        "x-llm-prompt-tokens": entry.header("x-llm-prompt-tokens"),
        "x-llm-stream": None,
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", CHAT),
        ("DELETE", "/v1/messages"),
        ("GET", "/v1/models"),
        ("POST", "/v1/files"),
        ("PUT", "/anything?x-llm-tier=premium"),
    ],
)
async def test_spoofed_headers_gain_nothing_elsewhere(mesh: Mesh, method: str, path: str) -> None:
    step = mark()
    body = b"{}" if method in ("POST", "PUT") else None

    answer = await mesh.send(body, step=step, method=method, path=path, headers=SPOOFED)

    entry = await mesh.the_entry(step)
    assert (answer.status, entry.adapter, entry.path) == (200, "platform", path)
    assert [name for name in OURS if entry.header(name) is not None] == []


async def test_another_spelling_of_a_path_is_the_same_call(mesh: Mesh) -> None:
    step = mark()

    answer = await mesh.send(chat(), step=step, tenant=None, path="/v1//chat/%63ompletions/?a=b")

    assert answer.status == 401
    assert await mesh.books(step) == []


async def _send_by_grpc(mesh: Mesh, path: str, headers: dict[str, str]) -> None:
    """Speak HTTP/2: a gRPC client is one."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh.gateway.port}") as channel:
        method = channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError):
            await method(b"{}", metadata=tuple(headers.items()), timeout=DEADLINE_SECONDS)
