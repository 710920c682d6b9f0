"""Names that proxies, upstreams and clients see. Stable: changing one is a breaking change."""

from typing import Final

TIER: Final = "x-llm-tier"
TENANT: Final = "x-tenant-id"
PRIORITY: Final = "x-request-priority"
MODEL: Final = "x-llm-model"
PROMPT_TOKENS: Final = "x-llm-prompt-tokens"
STREAM: Final = "x-llm-stream"

BUDGET_STATE: Final = "x-llm-budget-state"
"""On answers and refusals: what decided while the store of budgets was away."""

REQUEST_HEADERS: Final = (TIER, TENANT, PRIORITY, MODEL, PROMPT_TOKENS, STREAM)
"""Set by us; a client's own are stripped by the proxy before us, and by us again."""

ACCEPT_ENCODING: Final = "accept-encoding"

METADATA_NAMESPACE: Final = "llm"

OBSERVE: Final = "observe"
"""`meter` in the metadata, where answers are copied to us; else it is not there."""

PEER_URI_ATTRIBUTE: Final = "connection.uri_san_peer_certificate"
"""The attribute that the filter must be configured to send for `spiffe` identities."""

HOST_ADDRESS_ATTRIBUTE: Final = "upstream.address"
HOST_METADATA_ATTRIBUTE: Final = "xds.upstream_host_metadata"
"""Attributes of a filter on a cluster: they make its streams attempts."""

DETAILS_PREFIX: Final = "llm_"
"""`%RESPONSE_CODE_DETAILS%` of a refusal is this and the fault's name."""
