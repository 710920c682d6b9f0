"""`ProcessingRequest` to events.

Unknown messages, and those that we never ask for, are a `ProtocolError`: an empty answer to a
message one does not understand would let the request pass unprocessed.
"""

from collections.abc import Container, Mapping
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import Metadata
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import HttpHeaders, ProcessingRequest
from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Value

from extproc.exchange.events import AttemptHeaders, RequestBody, RequestHeaders
from extproc.exchange.names import (
    HOST_ADDRESS_ATTRIBUTE,
    HOST_METADATA_ATTRIBUTE,
    PEER_URI_ATTRIBUTE,
)
from extproc.exchange.phases import ProtocolError
from extproc.policy.identity import JWT_NAMESPACE

_ATTRIBUTES_KEY: Final = "envoy.filters.http.ext_proc"
"""Fixed by Envoy, whatever the filter is called."""

_ISTIO: Final = "istio"
"""The namespace of what istiod says of a host."""

_DEBUG_MARK: Final = "goo.gle/"

_NO_VALUE: Final = Value()

_JOINED_BY: Final = {"cookie": "; "}


def decode(
    message: ProcessingRequest,
    headers_read: Container[str] | None = None,
    *,
    is_late: bool = False,
) -> RequestHeaders | AttemptHeaders | RequestBody:
    """Turn one message into an event, which has those headers that are read; or all.

    `is_late`: the message had to wait for us for longer than is well.

    Raises:
        ProtocolError: the kind is not one that we serve, or the filter is configured so that
            the body would not come whole.
    """
    kind = message.WhichOneof("request")
    if kind == "request_headers":
        return _headers(message, message.request_headers, headers_read, is_late)
    if kind == "request_body":
        return RequestBody(message.request_body.body)
    msg = f"{kind or 'a message of an unknown kind'} is not served here"
    raise ProtocolError(msg)


def _headers(
    message: ProcessingRequest,
    head: HttpHeaders,
    read: Container[str] | None,
    is_late: bool,  # noqa: FBT001  # by position: it is on everybody's way
) -> RequestHeaders | AttemptHeaders:
    _check_mode(message)
    headers: dict[str, str] = {}
    for header in head.headers.headers:
        name = header.key
        if read is not None and name not in read:
            continue
        # Envoy fills raw_value; `value` is for peers that send text.
        value = (header.raw_value or header.value.encode()).decode("utf-8", "replace")
        known = headers.get(name)
        headers[name] = value if known is None else known + _JOINED_BY.get(name, ",") + value
    attributes = _attributes(message)
    if HOST_ADDRESS_ATTRIBUTE in attributes:
        return AttemptHeaders(
            headers,
            _workload(attributes.get(HOST_METADATA_ATTRIBUTE, _NO_VALUE).string_value),
            attributes[HOST_ADDRESS_ATTRIBUTE].string_value,
        )
    peer_uri = attributes.get(PEER_URI_ATTRIBUTE, _NO_VALUE).string_value
    return RequestHeaders(headers, head.end_of_stream, _jwt(message), peer_uri, is_late)


def _check_mode(message: ProcessingRequest) -> None:
    """Refuse a filter whose body comes in pieces: the first piece would be judged as the whole."""
    if not message.HasField("protocol_config"):
        return
    mode = message.protocol_config.request_body_mode
    if mode not in (ProcessingMode.BUFFERED, ProcessingMode.NONE):
        name = ProcessingMode.BodySendMode.Name(mode)
        msg = f"the filter's request_body_mode is {name}; it must be BUFFERED"
        raise ProtocolError(msg)


def _jwt(message: ProcessingRequest) -> Mapping[str, Any]:
    if not message.HasField("metadata_context"):
        return {}
    namespaces = message.metadata_context.filter_metadata
    return MessageToDict(namespaces[JWT_NAMESPACE]) if JWT_NAMESPACE in namespaces else {}


def _attributes(message: ProcessingRequest) -> Mapping[str, Value]:
    if _ATTRIBUTES_KEY not in message.attributes:
        return {}
    fields: Mapping[str, Value] = message.attributes[_ATTRIBUTES_KEY].fields
    return fields


def _workload(host_metadata: str) -> str:
    """Find istiod's name for a host in its metadata, which Envoy sends as protobuf's text.

    Some builds (1.37.0) put a word in front, so that nobody parse it: there is no other way.
    """
    metadata = Metadata()
    text = host_metadata.lstrip()
    if text.startswith(_DEBUG_MARK):
        text = text.partition(" ")[2]
    try:
        text_format.Parse(text, metadata, allow_unknown_field=True)
    except text_format.ParseError:
        return ""
    if _ISTIO not in metadata.filter_metadata:
        return ""
    workload: str = metadata.filter_metadata[_ISTIO].fields["workload"].string_value
    return workload
