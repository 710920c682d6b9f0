"""extproc/telemetry/spans.py: spans as a real collector gets them, and collectors that fail."""

import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from extproc.exchange.settling import Summary
from extproc.telemetry import spans as module
from extproc.telemetry.spans import BATCH_MAX, QUEUE_MAX, Spans
from tests.unit.test_spans import BILL, PARENT_ID, TRACE_ID, called

SECONDS_MAX = 10
CALL = Summary(called(), "call", BILL, "settled")


class Collector(TraceServiceServicer):  # type: ignore[misc]  # generated without types
    """Keeps what it gets; `answer` may wait or refuse first."""

    def __init__(self, answer: Callable[[grpc.ServicerContext], object]) -> None:
        self.received: SimpleQueue[ExportTraceServiceRequest] = SimpleQueue()
        self.metadata: dict[str, Any] = {}
        self._answer = answer

    def Export(  # noqa: N802  # gRPC's name
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self.metadata = dict(context.invocation_metadata())
        self.received.put(request)
        self._answer(context)
        return ExportTraceServiceResponse()

    def spans(self) -> list[Span]:
        return [
            span
            for _ in range(self.received.qsize())
            for part in self.received.get().resource_spans
            for scope in part.scope_spans
            for span in scope.spans
        ]


@contextmanager
def collecting(
    answer: Callable[[grpc.ServicerContext], object] = id,
    *,
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[tuple[Collector, int]]:
    collector = Collector(answer)
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        add_TraceServiceServicer_to_server(collector, server)
        address = f"localhost:{port}"
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        server.start()
        try:
            yield collector, port
        finally:
            server.stop(None).wait(SECONDS_MAX)


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that nobody listens to, and nobody else gets."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.05)


def test_a_collector_gets_the_span_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    with collecting() as (collector, port):
        spans = Spans(f"http://localhost:{port}", version="1.2.3")
        spans.observe(CALL)
        spans.close()
        request = collector.received.get(timeout=SECONDS_MAX)

    (resource,) = request.resource_spans
    about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert about == {"service.name": "llm-extproc", "service.version": "1.2.3"}
    (span,) = resource.scope_spans[0].spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert len(span.span_id) == 8
    assert span.kind == Span.SPAN_KIND_CLIENT
    assert span.start_time_unix_nano == 1_789_041_600_123_456_000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 2_500_000_000
    (event,) = span.events
    assert event.time_unix_nano - span.start_time_unix_nano == 500_000_000
    values = {pair.key: pair.value for pair in span.attributes}
    assert values["llm.tenant_id"].string_value == "acme"
    assert values["llm.total.tokens"].int_value == 120
    assert values["llm.latency.ms"].double_value == 2500.0
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert (spans.sent, spans.dropped) == (1, 0)
    assert not caplog.records


def test_a_failed_call_arrives_as_an_error_with_its_cause() -> None:
    failed = Summary(called(status=503, flags="UF"), "call", BILL, "settled")
    with collecting() as (collector, port):
        spans = Spans(f"http://localhost:{port}")
        spans.observe(failed)
        spans.close()
        (span,) = collector.spans()

    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "503 UF")


def test_a_full_batch_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_SECONDS", 3600)
    with collecting() as (collector, port):
        spans = Spans(f"http://localhost:{port}")
        for _ in range(2):
            for _ in range(BATCH_MAX):
                spans.observe(CALL)
            request = collector.received.get(timeout=SECONDS_MAX)
            assert len(request.resource_spans[0].scope_spans[0].spans) == BATCH_MAX
        spans.close()


def test_what_is_no_full_batch_goes_soon() -> None:
    with collecting() as (collector, port):
        spans = Spans(f"http://localhost:{port}")
        spans.observe(CALL)
        collector.received.get(timeout=SECONDS_MAX)
        spans.close()


def test_nothing_is_sent_of_a_trace_that_is_not_sampled() -> None:
    trace = CALL.outcome.trace._replace(is_sampled=False)
    with collecting() as (collector, port):
        spans = Spans(f"http://localhost:{port}")
        spans.observe(CALL._replace(outcome=CALL.outcome._replace(trace=trace)))
        spans.close()

    assert collector.received.empty()
    assert (spans.sent, spans.dropped) == (0, 0)


def test_the_environment_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, dead_port: int, tmp_path: Path
) -> None:
    elsewhere = f"http://localhost:{dead_port}"
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, elsewhere)
    for signal in ("", "TRACES_"):
        of = f"OTEL_EXPORTER_OTLP_{signal}"
        monkeypatch.setenv(of + "ENDPOINT", elsewhere)
        monkeypatch.setenv(of + "HEADERS", "authorization=secret")
        monkeypatch.setenv(of + "INSECURE", "false")
        monkeypatch.setenv(of + "COMPRESSION", "unheard-of")
        monkeypatch.setenv(of + "TIMEOUT", "0.000001")
        monkeypatch.setenv(of + "CERTIFICATE", str(tmp_path / "none"))
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=b")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with collecting() as (collector, port):
        spans = Spans(f"http://localhost:{port}")
        spans.observe(CALL)
        spans.close()

    (part,) = collector.received.get(timeout=SECONDS_MAX).resource_spans
    assert [pair.key for pair in part.resource.attributes] == ["service.name", "service.version"]
    assert "authorization" not in collector.metadata


@pytest.mark.usefixtures("hasty")
def test_a_collector_that_is_dead_costs_its_spans_and_one_line(
    dead_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    spans = Spans(f"http://127.0.0.1:{dead_port}")
    with caplog.at_level(logging.DEBUG):
        for _ in range(3 * BATCH_MAX):
            spans.observe(CALL)
        spans.close()

    assert (spans.sent, spans.dropped) == (0, 3 * BATCH_MAX)
    lines = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert len(lines) == 1
    assert lines[0].startswith("spans.dropped")


@pytest.mark.usefixtures("hasty")
def test_a_collector_that_hangs_holds_up_nobody() -> None:
    is_over = threading.Event()

    def hang(_: grpc.ServicerContext) -> None:
        is_over.wait(SECONDS_MAX)

    with collecting(hang) as (collector, port):
        spans = Spans(f"http://localhost:{port}")
        for _ in range(BATCH_MAX):
            spans.observe(CALL)
        collector.received.get(timeout=SECONDS_MAX)
        begun = time.monotonic()
        for _ in range(QUEUE_MAX + 5):
            spans.observe(CALL)
        assert spans.dropped == 5
        spans.close()
        took = time.monotonic() - begun
        is_over.set()

    assert (spans.sent, spans.dropped) == (0, BATCH_MAX + QUEUE_MAX + 5)
    assert took < 2


def test_a_thread_that_hangs_does_not_keep_the_process(dead_port: int) -> None:
    before = set(threading.enumerate())
    spans = Spans(f"http://127.0.0.1:{dead_port}")
    begun = {thread for thread in threading.enumerate() if thread.name == "spans"} - before
    spans.close()

    assert [thread.daemon for thread in begun] == [True]


def test_closing_is_bounded() -> None:
    assert module.CLOSE_SECONDS + module.CUT_OFF_SECONDS < 2


def test_a_span_that_comes_too_late_is_dropped() -> None:
    with collecting() as (_, port):
        spans = Spans(f"http://localhost:{port}")
        spans.close()
        spans.observe(CALL)

    assert spans.dropped == 1


def test_a_collector_that_is_away_for_a_moment_loses_nothing() -> None:
    answers = iter([True])

    def once_unavailable(context: grpc.ServicerContext) -> None:
        if next(answers, False):
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    with collecting(once_unavailable) as (collector, port):
        spans = Spans(f"http://localhost:{port}")
        for _ in range(BATCH_MAX):
            spans.observe(CALL)
        collector.received.get(timeout=SECONDS_MAX)
        collector.received.get(timeout=SECONDS_MAX)
        spans.close()

    assert (spans.sent, spans.dropped) == (BATCH_MAX, 0)


def test_a_batch_that_is_refused_for_good_does_not_end_the_thread() -> None:
    answers = iter([True])

    def once_refused(context: grpc.ServicerContext) -> None:
        if next(answers, False):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    with collecting(once_refused) as (collector, port):
        spans = Spans(f"http://localhost:{port}")
        for _ in range(2 * BATCH_MAX):
            spans.observe(CALL)
        collector.received.get(timeout=SECONDS_MAX)
        collector.received.get(timeout=SECONDS_MAX)
        spans.close()

    assert (spans.sent, spans.dropped) == (BATCH_MAX, BATCH_MAX)


@pytest.mark.parametrize("endpoint", ["localhost:4317", "grpc://a:1", "http://", "", "https:///x"])
def test_an_endpoint_says_whether_it_is_encrypted(endpoint: str) -> None:
    with pytest.raises(ValueError, match="http"):
        Spans(endpoint)


def test_https_trusts_what_the_system_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    about = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make.split(), *about.split(), *files], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    assert ssl.get_default_verify_paths().cafile == str(certificate)
    with collecting(credentials=credentials) as (collector, port):
        spans = Spans(f"https://localhost:{port}")
        spans.observe(CALL)
        spans.close()

    assert len(collector.spans()) == 1
