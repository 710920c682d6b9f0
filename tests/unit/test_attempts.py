"""extproc/exchange/attempts.py and its wire: the model that a body names follows the host."""

import json
from pathlib import Path

import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse

from extproc.exchange.actions import Keep, ReadBody, Replace, told
from extproc.exchange.events import AttemptHeaders, RequestBody, RequestHeaders
from extproc.exchange.machine import Exchange
from extproc.exchange.phases import ProtocolError
from extproc.wire.decode import decode
from tests.scenarios.harness import Bare
from tests.unit.test_wire import sent_for

GPT4 = "p-0;ai-platform;gpt4-adapter;v1;Kubernetes"
GPT35 = "p-1;ai-platform;gpt35-adapter;v1;Kubernetes"
BODY = b'{"temperature": 0.10, "model": "gpt-4-turbo",\n "messages": []}'


def new_exchange() -> Exchange:
    return Bare(Path("examples/policy.yaml")).new_exchange()


def head(workload: str = "", meant: str = "gpt-4", address: str = "10.0.0.1:80") -> AttemptHeaders:
    return AttemptHeaders({"x-llm-model": meant} if meant else {}, workload, address)


def test_the_host_of_the_model_that_was_meant_gets_the_body_as_it_is() -> None:
    exchange = new_exchange()

    action = exchange.receive(head(GPT4))
    assert action == Keep({"served_model": "gpt-4"})
    with pytest.raises(ProtocolError):
        exchange.receive(RequestBody(BODY))


def test_another_host_gets_a_body_that_names_its_own_model_and_nothing_else_changed() -> None:
    exchange = new_exchange()

    assert exchange.receive(head(GPT35)) == ReadBody()
    action = exchange.receive(RequestBody(BODY))
    assert action == Replace(
        BODY.replace(b"gpt-4-turbo", b"gpt-3.5-turbo"), {"served_model": "gpt-3.5-turbo"}
    )


@pytest.mark.parametrize("workload", ["", "p;n;stranger;v1;K", ";;;;", "x" * 9000])
def test_a_host_that_no_model_names_is_left_alone(workload: str) -> None:
    assert new_exchange().receive(head(workload)) == Keep({"served_model": "gpt-4"})


def test_a_request_that_was_never_routed_by_us_is_left_alone() -> None:
    assert new_exchange().receive(head(GPT35, meant="")) == Keep({})


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages": []}', b'{"model":1,"model":2}'])
def test_a_body_that_names_no_model_goes_as_it_is(body: bytes) -> None:
    exchange = new_exchange()
    exchange.receive(head(GPT35))

    assert exchange.receive(RequestBody(body)) == Replace(None, {"served_model": "gpt-3.5-turbo"})


def test_attempts_are_told_apart_from_decisions() -> None:
    assert told(Keep({})) == ("attempt_kept", "")
    assert told(Replace(None, {})) == ("attempt_replaced", "")


# --- The wire

# As Envoy 1.36.4 and 1.40.0 send them; the white space varies from run to run. 1.37.0 has a word
# in front.
METADATA = (
    'filter_metadata { key: "istio" value { fields  { key: "workload" value '
    '{ string_value: "p-1;ai-platform;gpt35-adapter;v1;Kubernetes" } } } } '
)


def message(**attributes: str) -> ProcessingRequest:
    made = ProcessingRequest()
    header = made.request_headers.headers.headers.add()
    header.key, header.raw_value = "x-llm-model", b"gpt-4"
    made.attributes["envoy.filters.http.ext_proc"].update(
        {name.replace("__", "."): value for name, value in attributes.items()}
    )
    return made


@pytest.mark.parametrize(
    ("metadata", "workload"),
    [
        (METADATA, GPT35),
        ("goo.gle/debugstr   " + METADATA, GPT35),
        ("", ""),
        ("{", ""),
        ("filter_metadata { key: 'x' }", ""),
        ("a: 1", ""),
    ],
)
def test_a_filter_on_a_cluster_shows_attempts(metadata: str, workload: str) -> None:
    sent = message(upstream__address="10.0.0.1:80", xds__upstream_host_metadata=metadata)

    assert decode(sent) == head(workload)


def test_without_a_host_there_is_no_attempt() -> None:
    assert isinstance(decode(message(xds__cluster_name="x")), RequestHeaders)


def test_a_kept_attempt_sends_no_body_to_us() -> None:
    kept = sent_for(Keep({"served_model": "gpt-4"}))

    assert kept.WhichOneof("response") == "request_headers"
    assert kept.mode_override.response_header_mode == kept.mode_override.SKIP
    assert served(kept) == "gpt-4"


def test_a_replaced_body_comes_with_its_length() -> None:
    replaced = sent_for(Replace(b"{}", {"served_model": "m"}))
    common = replaced.request_body.response

    assert common.body_mutation.body == b"{}"
    assert [(h.header.key, h.header.raw_value) for h in common.header_mutation.set_headers] == [
        ("content-length", b"2")
    ]
    assert not common.clear_route_cache
    assert served(replaced) == "m"


def test_a_body_that_stays_is_not_touched() -> None:
    common = sent_for(Replace(None, {})).request_body.response

    assert not common.HasField("body_mutation")
    assert not common.HasField("header_mutation")


def served(response: ProcessingResponse) -> str:
    metadata = json.loads(json.dumps(dict(response.dynamic_metadata["llm"].items())))
    return str(metadata["served_model"])
