"""One span for each LLM call, in the caller's trace, built from its record once it is over.

It is a child of Envoy's server span, has the true times, and exists only where the caller's trace
is sampled. It goes to one OTLP collector over gRPC, from a thread of its own. A collector that is
down or slow costs spans, which are counted, and nothing else.

Where spans go is said by the settings and by nothing else: no `OTEL_*` variable is read, no proxy
is asked, and no global tracer exists. (`SSL_CERT_FILE` and `SSL_CERT_DIR` name the trusted roots,
as for every program that uses OpenSSL.)
"""

import logging
import ssl
import threading
import time
from collections import deque
from typing import Final
from urllib.parse import urlsplit

import grpc
from opentelemetry.exporter.otlp.proto.grpc.exporter import logger as exporter_log
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from extproc.exchange.settling import Summary
from extproc.telemetry.span import span_of

QUEUE_MAX: Final = 4096
"""Spans that wait. Beyond it the oldest is dropped."""

BATCH_MAX: Final = 32
"""Spans sent in one call. Encoding them takes about 3 ms, for which decisions may have to wait."""

BATCH_SECONDS: Final = 0.5
"""How long a span waits for others to go with it."""

EXPORT_SECONDS: Final = 10.0
"""How long one batch is tried; a collector that is back by then has lost nothing."""

CLOSE_SECONDS: Final = 1.5
"""How long closing may take to send what waits; being cut off takes little more."""

CUT_OFF_SECONDS: Final = 0.4

COMPLAINT_SECONDS: Final = 60.0
"""The log says at most so often that spans are dropped."""

_SENDER: Final = (("x-sender", "llm-extproc"),)
"""Sent with each call. Without any, the exporter would take headers from the environment."""

_CHANNEL: Final = (("grpc.enable_http_proxy", 0),)
"""Otherwise gRPC obeys `http_proxy` and the like."""

_RETRIED: Final = (
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)
"""As OTLP says."""

_log = logging.getLogger(__name__)


class Spans:
    """Sends a span for each call to the collector at `endpoint` until it is closed.

    `endpoint` is `http://host:port`, or `https://host:port` for TLS with the system's roots.

    Raises:
        ValueError: `endpoint` is neither.
    """

    def __init__(self, endpoint: str, *, version: str = "") -> None:
        self._resource = Resource({"service.name": "llm-extproc", "service.version": version})
        self._sender = _Sender(_exporter_of(endpoint))

    @property
    def dropped(self) -> int:
        """How many spans no collector took."""
        return self._sender.dropped

    @property
    def sent(self) -> int:
        """How many spans a collector took."""
        return self._sender.sent

    def observe(self, summary: Summary) -> None:
        """Queue the call's span, if its caller's trace is sampled. Never waits."""
        span = span_of(summary, self._resource)
        if span is not None:
            self._sender.add(span)

    def close(self) -> None:
        """Send what waits, and end, within two seconds. What could not be sent is dropped."""
        self._sender.close()


class _Sender:
    """A bounded queue, and a thread that empties it."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.dropped = 0
        self.sent = 0
        self._exporter = exporter
        self._queue: deque[ReadableSpan] = deque()
        self._lock = threading.Lock()
        """Guards the queue and both counts."""
        self._is_full = threading.Event()
        """A whole batch waits, or it is time to end."""
        self._is_closing = False
        self._complain_at = 0.0
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def add(self, span: ReadableSpan) -> None:
        with self._lock:
            if self._is_closing:
                self.dropped += 1
                return
            if len(self._queue) >= QUEUE_MAX:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(span)
            is_batch = len(self._queue) >= BATCH_MAX
        if is_batch:
            self._is_full.set()

    def close(self) -> None:
        with self._lock:
            self._is_closing = True
        self._is_full.set()
        self._thread.join(CLOSE_SECONDS)
        self._exporter.shutdown()  # what is under way ends at once
        self._thread.join(CUT_OFF_SECONDS)
        with self._lock:
            self.dropped += len(self._queue)
            self._queue.clear()

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                result = self._exporter.export(batch)
            except Exception as error:  # noqa: BLE001  # a batch that can't be sent must not end the thread
                _log.debug("spans.failed %s", type(error).__name__)
                result = SpanExportResult.FAILURE
            is_sent = result is SpanExportResult.SUCCESS
            with self._lock:
                self.sent += len(batch) if is_sent else 0
                self.dropped += 0 if is_sent else len(batch)
            if not is_sent:
                self._complain()

    def _next_batch(self) -> list[ReadableSpan]:
        """Wait for spans, and take some; none once all is sent and it is time to end."""
        while True:
            self._is_full.wait(BATCH_SECONDS)
            with self._lock:
                count = min(BATCH_MAX, len(self._queue))
                batch = [self._queue.popleft() for _ in range(count)]
                if len(self._queue) < BATCH_MAX and not self._is_closing:
                    self._is_full.clear()
                if batch or self._is_closing:
                    return batch

    def _complain(self) -> None:
        now = time.monotonic()
        if now >= self._complain_at:
            self._complain_at = now + COMPLAINT_SECONDS
            _log.warning("spans.dropped the collector takes none; %d are lost so far", self.dropped)


def _exporter_of(endpoint: str) -> SpanExporter:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        msg = f"{endpoint!r} is neither http://host:port nor https://host:port"
        raise ValueError(msg)
    # Its lines would come for each batch, and quote what the collector says.
    exporter_log.disabled = True
    is_plain = parts.scheme == "http"
    # All that is not given here would be read from the environment.
    return OTLPSpanExporter(
        endpoint=endpoint,
        insecure=is_plain,
        credentials=None if is_plain else grpc.ssl_channel_credentials(_system_roots()),
        headers=_SENDER,
        timeout=EXPORT_SECONDS,
        compression=grpc.Compression.NoCompression,
        channel_options=_CHANNEL,  # type: ignore[arg-type]  # numbers are fine, and needed
        retryable_error_codes=_RETRIED,
        meter_provider=NoOpMeterProvider(),
    )


def _system_roots() -> bytes | None:
    """What this machine trusts; None for what comes with gRPC, where it says nothing."""
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode() or None
