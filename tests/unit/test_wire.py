"""extproc/wire: what Envoy sends, and what it must be sent."""

import pytest
from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from google.protobuf.json_format import MessageToDict

from extproc.exchange.actions import Final, PassThrough, ReadBody, Reject, Route
from extproc.exchange.events import RequestBody, RequestHeaders
from extproc.exchange.phases import ProtocolError
from extproc.wire.decode import decode
from extproc.wire.encode import encode


def headers(*pairs: tuple[str, bytes], end_of_stream: bool = False) -> ProcessingRequest:
    found = HeaderMap(headers=[HeaderValue(key=key, raw_value=value) for key, value in pairs])
    return ProcessingRequest(
        request_headers=HttpHeaders(headers=found, end_of_stream=end_of_stream)
    )


def sent_for(action: Final | ReadBody) -> ProcessingResponse:
    """What Envoy will read."""
    sent = ProcessingResponse()
    sent.ParseFromString(encode(action))
    return sent


def test_headers_become_a_mapping() -> None:
    event = decode(headers((":path", b"/v1/chat"), ("accept", b"*/*"), end_of_stream=True))

    assert event == RequestHeaders({":path": "/v1/chat", "accept": "*/*"}, True, {}, "")  # noqa: FBT003


def test_a_repeated_header_is_joined_so_that_no_copy_is_overlooked() -> None:
    event = decode(headers(("x-tenant-id", b"acme"), ("x-tenant-id", b"initech")))

    assert isinstance(event, RequestHeaders)
    assert event.headers["x-tenant-id"] == "acme,initech"


def test_bytes_that_are_no_text_do_not_break_a_header() -> None:
    event = decode(headers(("x-a", b"\xff\xfe")))

    assert isinstance(event, RequestHeaders)
    assert event.headers["x-a"] == "\ufffd\ufffd"


def test_a_value_sent_as_text_is_read_too() -> None:
    message = ProcessingRequest(
        request_headers=HttpHeaders(headers=HeaderMap(headers=[HeaderValue(key="a", value="b")]))
    )

    event = decode(message)

    assert isinstance(event, RequestHeaders)
    assert event.headers == {"a": "b"}


def test_what_the_proxy_vouches_for_is_read() -> None:
    message = headers((":path", b"/"))
    metadata = message.metadata_context.filter_metadata
    metadata["envoy.filters.http.jwt_authn"].update({"idp": {"tenant": "acme"}})
    metadata["other"].update({"idp": {"tenant": "initech"}})
    message.attributes["envoy.filters.http.ext_proc"].update(
        {"connection.uri_san_peer_certificate": "spiffe://x/ns/acme/sa/app"}
    )

    event = decode(message)

    assert isinstance(event, RequestHeaders)
    assert event.jwt == {"idp": {"tenant": "acme"}}
    assert event.peer_uri == "spiffe://x/ns/acme/sa/app"


def test_a_body_is_its_bytes() -> None:
    message = ProcessingRequest(request_body=HttpBody(body=b"{}", end_of_stream=True))

    assert decode(message) == RequestBody(b"{}")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(ProcessingRequest(), id="nothing"),
        pytest.param(ProcessingRequest(response_headers=HttpHeaders()), id="response headers"),
        pytest.param(ProcessingRequest(response_body=HttpBody()), id="a response body"),
        pytest.param(ProcessingRequest(request_trailers=HttpTrailers()), id="trailers"),
    ],
)
def test_a_message_that_we_never_ask_for_is_the_peers_fault(message: ProcessingRequest) -> None:
    with pytest.raises(ProtocolError, match="is not served here"):
        decode(message)


@pytest.mark.parametrize(
    ("mode", "is_served"),
    [
        (ProcessingMode.BUFFERED, True),
        (ProcessingMode.NONE, True),
        (ProcessingMode.STREAMED, False),
        (ProcessingMode.BUFFERED_PARTIAL, False),
    ],
)
def test_a_body_that_would_come_in_pieces_is_refused(mode: int, is_served: bool) -> None:
    message = headers((":path", b"/"))
    message.protocol_config.CopyFrom(ProtocolConfiguration(request_body_mode=mode))

    if is_served:
        decode(message)
    else:
        with pytest.raises(ProtocolError, match="must be BUFFERED"):
            decode(message)


def test_reading_the_body_changes_nothing() -> None:
    assert MessageToDict(sent_for(ReadBody())) == {"requestHeaders": {"response": {}}}


def test_passing_through_turns_every_later_message_off() -> None:
    sent = sent_for(PassThrough(()))

    assert sent.mode_override.request_body_mode == ProcessingMode.NONE
    assert not sent.request_headers.response.clear_route_cache
    assert sent.WhichOneof("response") == "request_headers"


def test_a_header_that_is_taken_off_makes_the_route_be_chosen_anew() -> None:
    common = sent_for(PassThrough(("x-llm-tier",))).request_headers.response

    assert list(common.header_mutation.remove_headers) == ["x-llm-tier"]
    assert common.clear_route_cache


def test_a_route_is_headers_in_raw_values_a_fresh_route_and_metadata() -> None:
    sent = sent_for(
        Route((("x-llm-tier", b"premium"),), ("x-llm-stream",), {"n": 1, "o": {"p": "q"}}, None)
    )

    common = sent.request_body.response
    (option,) = common.header_mutation.set_headers
    assert (option.header.key, option.header.raw_value, option.header.value) == (
        "x-llm-tier",
        b"premium",
        "",
    )
    assert list(common.header_mutation.remove_headers) == ["x-llm-stream"]
    assert common.clear_route_cache
    assert not common.HasField("body_mutation")
    assert MessageToDict(sent.dynamic_metadata) == {"llm": {"n": 1, "o": {"p": "q"}}}


def test_a_rewritten_body_goes_back_whole() -> None:
    sent = sent_for(Route((), (), {}, b"{}"))

    assert sent.request_body.response.body_mutation.body == b"{}"


def test_a_refusal_is_an_answer_of_its_own() -> None:
    sent = sent_for(
        Reject(429, (("retry-after", b"7"),), b"{}", "llm_rate_limited", {"reason": "r"})
    )

    immediate = sent.immediate_response
    assert (immediate.status.code, immediate.body, immediate.details) == (
        429,
        b"{}",
        "llm_rate_limited",
    )
    assert immediate.headers.set_headers[0].header.raw_value == b"7"
    assert MessageToDict(sent.dynamic_metadata) == {"llm": {"reason": "r"}}
