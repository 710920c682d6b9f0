"""What `extproc/wire` writes by itself is what protobuf would have written."""

from typing import Any

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    ProcessingResponse,
)
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from extproc.exchange.actions import Route
from extproc.wire.encode import encode
from extproc.wire.writing import struct, varint

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
NUMBERS = st.integers(0, 1 << 53) | st.floats(allow_nan=False)
VALUES = st.recursive(
    TEXTS | st.booleans() | NUMBERS, lambda inner: st.dictionaries(TEXTS, inner, max_size=4)
)
METADATA = st.dictionaries(TEXTS, VALUES, max_size=8)
NAMES = st.text("abcdefgh-", min_size=1, max_size=40)


@given(METADATA)
def test_a_struct_reads_as_it_was_meant(values: dict[str, Any]) -> None:
    meant, written = Struct(), Struct()
    meant.update(values)

    written.ParseFromString(struct(values))

    assert written == meant


@given(st.integers(0, 1 << 40))
def test_a_length_is_read_back(number: int) -> None:
    message = HeaderValue()
    # Field 15 is none of its: what is not known is kept as it came.
    message.ParseFromString(b"\x78" + varint(number))

    assert message.SerializeToString() == b"\x78" + varint(number)


@given(
    headers=st.lists(st.tuples(NAMES, st.binary(max_size=2000)), max_size=8),
    removed=st.lists(NAMES, max_size=4),
    metadata=METADATA,
    body=st.none() | st.binary(max_size=3000),
)
def test_a_route_reads_as_it_was_meant(
    headers: list[tuple[str, bytes]],
    removed: list[str],
    metadata: dict[str, Any],
    body: bytes | None,
) -> None:
    options = [HeaderValueOption(header=HeaderValue(key=k, raw_value=v)) for k, v in headers]
    common = CommonResponse(
        header_mutation=HeaderMutation(set_headers=options, remove_headers=removed),
        clear_route_cache=True,
    )
    if body is not None:
        common.body_mutation.CopyFrom(BodyMutation(body=body))
    meant = ProcessingResponse(request_body=BodyResponse(response=common))
    meant.dynamic_metadata.update({"llm": metadata})

    written = ProcessingResponse()
    written.ParseFromString(encode(Route(tuple(headers), tuple(removed), metadata, body)))

    assert written == meant
