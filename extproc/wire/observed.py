"""Messages of a filter in observability mode to what they say of an answer.

They ask for no reply, so nothing here is ever refused: what has nothing to say is None.
"""

from typing import Final, NamedTuple

from envoy.config.core.v3.base_pb2 import HeaderMap
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from extproc.exchange.names import METADATA_NAMESPACE, OBSERVE
from extproc.exchange.sightings import RESERVATION_CHARS_MAX

_STATUS_DIGITS: Final = 3
_READ: Final = frozenset({":status", "content-type", "content-encoding"})


class AnswerHead(NamedTuple):
    """The head of an answer, and which request it answers.

    `reservation` is empty where the metadata name none; `is_wanted` tells whether the record of
    the request will ask what was seen.
    """

    reservation: str
    is_wanted: bool
    status: int
    content_type: str
    content_encoding: str
    is_last: bool


class AnswerChunk(NamedTuple):
    """A piece of an answer; of trailers, an empty one."""

    data: bytes
    is_last: bool


def observed(message: ProcessingRequest) -> AnswerHead | AnswerChunk | None:
    """Turn one message into what it says of an answer; None if it is about anything else."""
    match message.WhichOneof("request"):
        case "response_body":
            body = message.response_body
            return AnswerChunk(body.body, body.end_of_stream)
        case "response_headers":
            return _head(message)
        case "response_trailers":
            return AnswerChunk(b"", is_last=True)
        case _:
            return None


def _head(message: ProcessingRequest) -> AnswerHead:
    head = message.response_headers
    read = _headers(head.headers)
    status = read.get(":status", "")
    noted = _noted(message)
    reservation = noted.get("reservation", "")
    return AnswerHead(
        reservation if len(reservation) <= RESERVATION_CHARS_MAX else "",
        is_wanted=noted.get("outcome") == "routed" and noted.get("meter") == OBSERVE,
        status=int(status) if _is_status(status) else 0,
        content_type=read.get("content-type", ""),
        content_encoding=read.get("content-encoding", ""),
        is_last=head.end_of_stream,
    )


def _is_status(text: str) -> bool:
    return len(text) == _STATUS_DIGITS and text.isascii() and text.isdigit()


def _headers(headers: HeaderMap) -> dict[str, str]:
    """Those that are read; of one that is repeated, the values in a list."""
    found: dict[str, str] = {}
    for header in headers.headers:
        if header.key in _READ:
            value = (header.raw_value or header.value.encode()).decode("utf-8", "replace")
            known = found.get(header.key)
            found[header.key] = value if known is None else f"{known},{value}"
    return found


def _noted(message: ProcessingRequest) -> dict[str, str]:
    """What the policy filter noted, as far as it is text."""
    namespaces = message.metadata_context.filter_metadata
    if METADATA_NAMESPACE not in namespaces:
        return {}
    fields = namespaces[METADATA_NAMESPACE].fields
    return {
        name: fields[name].string_value
        for name in ("reservation", "outcome", "meter")
        if name in fields
    }
