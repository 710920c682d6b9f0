"""What happens to an exchange, in order. The ledger's answers are events too."""

from collections.abc import Mapping
from typing import Any

from extproc.llm.record import Record
from extproc.policy.budgets import Denied, Reserved, Unavailable


class RequestHeaders(Record, frozen=True):
    """The head of a request, names in lower case, values of repeated names joined by commas.

    `jwt` holds what Envoy's jwt_authn filter has verified, by provider; `peer_uri` is the URI
    name in the peer's verified certificate, or empty. `is_late`: it had to wait for us for so long
    that the rest would come too late as well.
    """

    headers: Mapping[str, str]
    end_of_stream: bool
    jwt: Mapping[str, Any]
    peer_uri: str
    is_late: bool = False


class AttemptHeaders(Record, frozen=True):
    """The head of one attempt to serve a request that was routed, and the host chosen for it.

    Seen by a filter on a cluster, once for each attempt. `workload` is istiod's
    `pod;namespace;service;version;cluster`, or empty; `address` is `ip:port`.
    """

    headers: Mapping[str, str]
    workload: str
    address: str


class RequestBody(Record, frozen=True):
    """The whole body: Envoy buffers it for us."""

    data: bytes


Event = RequestHeaders | AttemptHeaders | RequestBody | Reserved | Denied | Unavailable
