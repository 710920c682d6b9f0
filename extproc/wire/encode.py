"""Actions to `ProcessingResponse`, as it goes over the wire.

Facts of Envoy that shape this: header values go into `raw_value` (`value` is ignored and sets
the empty string); `clear_route_cache` counts only beside a header mutation; a `mode_override`
that leaves a body mode out means NONE; values overwrite, whatever `append_action` says.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, assert_never

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ImmediateResponse,
    ProcessingResponse,
)
from google.protobuf.message import Message

from extproc.exchange import actions
from extproc.exchange.actions import Header, Keep, PassThrough, ReadBody, Reject, Replace, Route
from extproc.exchange.names import METADATA_NAMESPACE
from extproc.wire.writing import block, flag, struct, tag

_READ_BODY: Final[bytes] = ProcessingResponse(
    request_headers=HeadersResponse(response=CommonResponse())
).SerializeToString()

_NOTHING_MORE: Final = ProcessingMode(
    request_body_mode=ProcessingMode.NONE,
    response_body_mode=ProcessingMode.NONE,
    response_header_mode=ProcessingMode.SKIP,
)

_REQUEST_BODY: Final = tag(ProcessingResponse, "request_body")
_DYNAMIC_METADATA: Final = tag(ProcessingResponse, "dynamic_metadata")
_RESPONSE: Final = tag(BodyResponse, "response")
_HEADER_MUTATION: Final = tag(CommonResponse, "header_mutation")
_BODY_MUTATION: Final = tag(CommonResponse, "body_mutation")
_BODY: Final = tag(BodyMutation, "body")
_SET_HEADERS: Final = tag(HeaderMutation, "set_headers")
_CLEAR_ROUTE_CACHE: Final = flag(CommonResponse, "clear_route_cache")


def encode(action: actions.Final | ReadBody) -> bytes:
    """Turn an action into the message that makes Envoy do it."""
    match action:
        case Route():
            return _route(action)
        case ReadBody():
            return _READ_BODY
        case PassThrough():
            return _pass_through(action)
        case Reject():
            return _reject(action)
        case Keep():
            return _keep(action)
        case Replace():
            return _replace(action)
        case _:
            assert_never(action)


def _route(action: Route) -> bytes:
    """The answer to most requests, so it is written from pieces."""
    headers = [_set_header(name, value) for name, value in action.set_headers]
    mutation = b"".join(headers) + _removed(action.remove_headers)
    common = block(_HEADER_MUTATION, mutation) + _CLEAR_ROUTE_CACHE
    if action.body is not None:
        common += block(_BODY_MUTATION, block(_BODY, action.body))
    return block(_REQUEST_BODY, block(_RESPONSE, common)) + _metadata(action.metadata)


@lru_cache(maxsize=4096)
def _set_header(name: str, value: bytes) -> bytes:
    option = HeaderValueOption(header=HeaderValue(key=name, raw_value=value))
    return block(_SET_HEADERS, _bytes(option))


@lru_cache(maxsize=64)
def _removed(names: tuple[str, ...]) -> bytes:
    return _bytes(HeaderMutation(remove_headers=names))


def _metadata(values: Mapping[str, Any]) -> bytes:
    return block(_DYNAMIC_METADATA, struct({METADATA_NAMESPACE: values}))


def _pass_through(action: PassThrough) -> bytes:
    common = CommonResponse()
    if action.remove_headers:
        common.header_mutation.remove_headers.extend(action.remove_headers)
        common.clear_route_cache = True
    return _of_headers(common)


def _keep(action: Keep) -> bytes:
    return _of_headers(CommonResponse()) + _metadata(action.metadata)


def _of_headers(common: CommonResponse) -> bytes:
    """All that there is to say: nothing more of this request is sent to us."""
    headers = HeadersResponse(response=common)
    return _bytes(ProcessingResponse(request_headers=headers, mode_override=_NOTHING_MORE))


def _replace(action: Replace) -> bytes:
    common = CommonResponse()
    if action.body is not None:
        common.body_mutation.body = action.body
        size = b"%d" % len(action.body)
        common.header_mutation.set_headers.extend(_headers([("content-length", size)]))
    response = ProcessingResponse(request_body=BodyResponse(response=common))
    return _bytes(response) + _metadata(action.metadata)


def _reject(action: Reject) -> bytes:
    immediate = ImmediateResponse(
        headers=HeaderMutation(set_headers=_headers(action.headers)),
        body=action.body,
        details=action.details,
    )
    immediate.status.code = action.status
    response = ProcessingResponse(immediate_response=immediate)
    return _bytes(response) + _metadata(action.metadata)


def _headers(headers: Iterable[Header]) -> list[HeaderValueOption]:
    return [
        HeaderValueOption(header=HeaderValue(key=name, raw_value=value)) for name, value in headers
    ]


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString())
