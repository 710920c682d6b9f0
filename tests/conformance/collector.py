"""An OTLP collector that keeps what it is sent."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


class Span(NamedTuple):
    """One span, ids in hex, times in nanoseconds, attributes as they were sent."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[tuple[str, int]]
    status: int


class Collector:
    """Takes spans in threads of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._came = threading.Condition()
        self._spans: list[Span] = []

    def take(self, request: ExportTraceServiceRequest, _: object) -> ExportTraceServiceResponse:
        found = [
            _span(span)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._came:
            self._spans.extend(found)
            self._came.notify_all()
        return ExportTraceServiceResponse()

    def wait_for(self, trace_id: str, count: int, *, seconds: float = 20) -> list[Span]:
        """The spans of a trace, once there are so many; fewer after that time."""

        def of_trace() -> list[Span]:
            return [span for span in self._spans if span.trace_id == trace_id]

        with self._came:
            self._came.wait_for(lambda: len(of_trace()) >= count, seconds)
            return of_trace()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect on a free port of 127.0.0.1 until the block ends."""
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    collector = Collector(port)
    method = grpc.unary_unary_rpc_method_handler(
        collector.take,
        request_deserializer=ExportTraceServiceRequest.FromString,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Export": method})
    server.add_generic_rpc_handlers((handler,))
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


def _span(span: Any) -> Span:
    return Span(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        {pair.key: _value(pair.value) for pair in span.attributes},
        [(event.name, event.time_unix_nano) for event in span.events],
        span.status.code,
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None
