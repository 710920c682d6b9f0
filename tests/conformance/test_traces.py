"""The caller's trace goes on through Envoy, and its spans tell what the call was."""

import secrets
from collections.abc import Iterator, Mapping

import pytest

from tests.conformance.collector import Collector, Span, collecting
from tests.conformance.harness import Mesh, chat, mark, running

SERVER = "gpt4-adapter.ai-platform.svc.cluster.local:8080/*"
ATTEMPT = "router llm-fallback-premium egress"
"""Names of Envoy's spans, as istiod has them. Two more are those of its calls to the filters."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def traced(
    tmp_path_factory: pytest.TempPathFactory,
    adapters: Mapping[str, int],
    envoy_version: str,
    collector: Collector,
) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("traced")
    wiring = {"collector_port": collector.port}
    telemetry = {"audit": "off", "spans": f"http://127.0.0.1:{collector.port}"}
    with running(folder, adapters, envoy_version, wiring=wiring, telemetry=telemetry) as mesh:
        yield mesh


OWN = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4",
    "gen_ai.response.model": "gpt-4",
    "gen_ai.request.temperature": 0.5,
    "gen_ai.usage.input_tokens": 2,
    "gen_ai.usage.output_tokens": 7,
    "llm.model": "gpt-4",
    "llm.tenant_id": "acme",
    "llm.temperature": 0.5,
    "llm.prompt.tokens": 2,
    "llm.completion.tokens": 7,
    "llm.total.tokens": 9,
}


def named(spans: list[Span], name: str) -> Span:
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, [span.name for span in spans]
    return found[0]


async def test_the_spans_of_envoy_tell_what_the_call_was(
    traced: Mesh, collector: Collector
) -> None:
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)

    await traced.send(
        chat(stream=True, temperature=0.5, max_tokens=7),
        step=mark(),
        headers={"traceparent": f"00-{trace}-{caller}-01", "x-adapter-pause-ms": "5"},
    )

    spans = collector.wait_for(trace, 5)
    server = named(spans, SERVER)
    assert server.parent_id == caller
    assert named(spans, ATTEMPT).parent_id == server.span_id
    told = {name: value for name, value in server.attributes.items() if name.startswith("llm.")}
    assert float(told.pop("llm.tokens.per.second")) > 0
    assert float(told.pop("llm.latency.ms")) > 0
    assert told == {
        "llm.model": "gpt-4",
        "llm.tenant_id": "acme",
        "llm.temperature": "0.5",
        "llm.prompt.tokens": "2",
        "llm.prompt.tokens.estimated": "10",
        "llm.completion.tokens": "7",
        "llm.total.tokens": "9",
        "llm.tier": "premium",
        "llm.served_model": "gpt-4",
    }
    assert server.attributes["gen_ai.usage.output_tokens"] == "7"


async def test_the_service_adds_a_span_of_its_own_with_the_true_times(
    traced: Mesh, collector: Collector
) -> None:
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)

    await traced.send(
        chat(stream=True, temperature=0.5, max_tokens=7),
        step=mark(),
        headers={"traceparent": f"00-{trace}-{caller}-01", "x-adapter-pause-ms": "20"},
    )

    spans = collector.wait_for(trace, 5)
    server = named(spans, SERVER)
    own = named(spans, "chat gpt-4")
    assert own.parent_id == server.span_id
    assert abs(own.start - server.start) < 5_000_000
    assert abs(own.end - server.end) < 50_000_000
    assert own.end - own.start > 100_000_000
    ((_, first),) = own.events
    assert own.start < first < own.end
    told = {name: own.attributes[name] for name in OWN}
    assert told == OWN
    assert own.attributes["llm.tokens.per.second"] > 0
    assert own.status == 0


async def test_a_refusal_is_an_error_in_the_trace(traced: Mesh, collector: Collector) -> None:
    trace = secrets.token_hex(16)

    await traced.send(
        b"{",
        step=mark(),
        headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"},
    )

    (own,) = [s for s in collector.wait_for(trace, 3) if "error.type" in s.attributes]
    assert own.status == 2
    assert own.attributes["error.type"] == "malformed_request"


async def test_a_caller_that_does_not_sample_gets_no_spans(
    traced: Mesh, collector: Collector
) -> None:
    unsampled, sampled = secrets.token_hex(16), secrets.token_hex(16)
    for trace, flag in ((unsampled, "00"), (sampled, "01")):
        parent = f"00-{trace}-{secrets.token_hex(8)}-{flag}"
        await traced.send(chat(), step=mark(), headers={"traceparent": parent})

    # What was sent last has come, so what was sent before it never will.
    assert len(collector.wait_for(sampled, 5)) == 5
    assert collector.wait_for(unsampled, 1, seconds=0) == []
