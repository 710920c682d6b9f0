"""extproc/mesh/agent_secrets.py: what Istio's agent would bring, where there is none."""

import json
from typing import Any

import pytest

from extproc.mesh.bootstrap import bootstrap, in_plain_text
from extproc.mesh.manifests import MeshError
from extproc.mesh.render import Rendered, render
from tests.mesh_worlds import CART, GATEWAY, INGRESS, virtual_service, world
from tests.unit.test_mesh_patches import envoy_filter, patch

ROUTES = virtual_service(
    """
    hosts: [shop.example]
    gateways: [ingress]
    http: [{route: [{destination: {host: cart}}]}]
    """
)
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
ports: [{name: http, port: 9000}]
endpoints: [{addresses: [10.1.0.1], conditions: {ready: true}}]
"""


def rule(tls: str) -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        "metadata: {name: cart, namespace: shop}\n"
        f"spec: {{host: cart, trafficPolicy: {{tls: {tls}}}}}\n"
    )


def rendered(*manifests: str) -> Rendered:
    return render(world(INGRESS, CART, SLICE, ROUTES, *manifests), GATEWAY)


def cart_of(tree: dict[str, Any]) -> dict[str, Any]:
    (found,) = (each for each in tree["static_resources"]["clusters"] if "cart" in each["name"])
    return dict(found)


def tls_of(tls: str) -> dict[str, Any]:
    socket = cart_of(bootstrap(rendered(rule(tls))))["transport_socket"]
    return dict(socket["typed_config"]["common_tls_context"])


def test_what_was_rendered_stays_as_it_was() -> None:
    found = rendered(rule("{mode: SIMPLE}"))
    before = json.dumps(found)

    bootstrap(found, address="127.0.0.1", port=0)

    assert json.dumps(found) == before


def test_secrets_of_files_are_read_from_the_files() -> None:
    tls = tls_of(
        "{mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem, caCertificates: /r.pem,"
        " subjectAltNames: [a.example]}"
    )

    assert tls["tls_certificates"] == [
        {"certificate_chain": {"filename": "/c.pem"}, "private_key": {"filename": "/k.pem"}}
    ]
    assert tls["validation_context"] == {
        "match_subject_alt_names": [{"exact": "a.example"}],
        "trusted_ca": {"filename": "/r.pem"},
    }
    assert "sds" not in json.dumps(tls)


def test_the_systems_roots_are_a_file_too() -> None:
    trusted = tls_of("{mode: SIMPLE, sni: a.example}")["validation_context"]["trusted_ca"]

    assert trusted == {"filename": "/etc/ssl/certs/ca-certificates.crt"}


def test_istios_own_tls_is_left_out_and_that_is_told() -> None:
    found = rendered(rule("{mode: ISTIO_MUTUAL}"))

    assert "transport_socket" not in cart_of(bootstrap(found))
    assert in_plain_text(found) == ("outbound|8080||cart.shop.svc.cluster.local",)
    assert in_plain_text(rendered(rule("{mode: SIMPLE}"))) == ()


def test_what_nobody_else_would_bring_is_an_error() -> None:
    value = {"name": "own", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}
    assert bootstrap(rendered(envoy_filter(patch("CLUSTER", "ADD", value))))

    of_leaf = {"name": "own", "lrs_server": {"ads": {}}}
    with pytest.raises(MeshError, match="own: needs what Istio's agent or istiod would bring"):
        bootstrap(rendered(envoy_filter(patch("CLUSTER", "ADD", of_leaf))))
