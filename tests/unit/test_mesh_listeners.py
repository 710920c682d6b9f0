"""extproc/mesh/listeners.py: which listeners there are, and on what they listen."""

import pytest

from extproc.mesh.listeners import gateway_listeners, sidecar_listeners
from extproc.mesh.manifests import MeshError
from tests.mesh_worlds import CART, GATEWAY, INGRESS, SIDECAR, world

MONGO = CART.replace("cart", "mongo").replace("http, port: 8080", "tcp, port: 27017")


def servers(*said: str) -> str:
    whole = ", ".join(f'{{{each}, hosts: ["*"]}}' for each in said)
    return INGRESS.partition("  servers:")[0] + f"  servers: [{whole}]\n"


HTTP_80 = "port: {number: 80, name: http, protocol: HTTP}"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], []),
        ([HTTP_80], [("0.0.0.0_80", "http.80")]),
        ([HTTP_80, "port: {number: 80, name: grpc, protocol: GRPC}"], [("0.0.0.0_80", "http.80")]),
        (
            ["port: {number: 81, name: h2, protocol: HTTP2}", HTTP_80],
            [("0.0.0.0_80", "http.80"), ("0.0.0.0_81", "http.81")],
        ),
        (
            [HTTP_80, f"{HTTP_80}, bind: 127.0.0.5"],
            [("0.0.0.0_80", "http.80"), ("127.0.0.5_80", "http.80.127.0.0.5")],
        ),
    ],
)
def test_a_gateway_has_a_listener_for_each_place(
    said: list[str], expected: list[tuple[str, str]]
) -> None:
    found = gateway_listeners(world(servers(*said)), GATEWAY)

    assert [
        (
            each["name"],
            each["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["route_config_name"],
        )
        for each in found
    ] == expected


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            [HTTP_80, f"{HTTP_80}, bind: 0.0.0.0"],
            "Gateway shop/ingress: another server listens on 0.0.0.0:80 by another bind",
        ),
        (
            ["port: {number: 80, name: tcp, protocol: TCP}"],
            r"spec.servers\[0\]: TCP with TLS or without HTTP is not translated",
        ),
        (
            ["port: {number: 443, name: tls, protocol: HTTPS}, tls: {mode: SIMPLE}"],
            r"spec.servers\[0\]: HTTPS",
        ),
    ],
)
def test_what_has_no_listener_of_plain_http_is_an_error(said: list[str], why: str) -> None:
    with pytest.raises(MeshError, match=why):
        gateway_listeners(world(servers(*said)), GATEWAY)


def test_a_sidecar_has_listeners_for_ports_that_speak_http() -> None:
    found = sidecar_listeners(world(CART, MONGO), SIDECAR)

    assert [(each["name"], each["bind_to_port"]) for each in found] == [("0.0.0.0_8080", False)]
