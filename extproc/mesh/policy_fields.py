"""The fields of a DestinationRule's `trafficPolicy`, as istiod's validation takes them."""

from typing import Final

from extproc.mesh.fields import (
    INT32_MAX,
    UINT32_MAX,
    Field,
    boolean,
    choice,
    duration,
    integer,
    listed,
    message,
    name,
    number,
    refused,
    text,
)
from extproc.mesh.manifests import Manifest, Tree

SECOND: Final = 1_000_000_000
RING_SIZE_MAX: Final = 8 << 20
MAGLEV_TABLE_SIZE_MAX: Final = 5_000_011
"""This and the former as Envoy has them."""

_COUNT: Final = integer(0, INT32_MAX)
_PERCENT: Final = integer(0, 100)

_CONNECTION_POOL: Final = message(
    {
        "tcp": message(
            {
                "maxConnections": _COUNT,
                "connectTimeout": duration(),
                "tcpKeepalive": message(
                    {
                        "probes": integer(0, UINT32_MAX),
                        "time": duration(SECOND),
                        "interval": duration(SECOND),
                    }
                ),
                "maxConnectionDuration": duration(),
                "idleTimeout": duration(),
            }
        ),
        "http": message(
            {
                "http1MaxPendingRequests": _COUNT,
                "http2MaxRequests": _COUNT,
                "maxRequestsPerConnection": _COUNT,
                "maxRetries": _COUNT,
                "idleTimeout": duration(),
                "h2UpgradePolicy": choice("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"),
                "useClientProtocol": boolean,
                "maxConcurrentStreams": _COUNT,
            }
        ),
    }
)

_OUTLIER_DETECTION: Final = message(
    {
        "splitExternalLocalOriginErrors": boolean,
        "consecutiveLocalOriginFailures": integer(0, UINT32_MAX),
        "consecutiveGatewayErrors": integer(0, UINT32_MAX),
        "consecutive5xxErrors": integer(0, UINT32_MAX),
        "consecutiveErrors": refused("istiod ignores it; write consecutive5xxErrors"),
        "interval": duration(),
        "baseEjectionTime": duration(),
        "maxEjectionPercent": _PERCENT,
        "minHealthPercent": _PERCENT,
        "outlierDetectionHttpErrorCodes": refused("not translated"),
    }
)

_CONSISTENT_HASH: Final = message(
    {
        "httpHeaderName": name,
        "httpCookie": message(
            {
                "name": name,
                "path": text,
                "ttl": duration(0),
                "attributes": listed(message({"name": name, "value": text})),
            },
            required=("name",),
        ),
        "useSourceIp": boolean,
        "httpQueryParameterName": name,
        "ringHash": message({"minimumRingSize": integer(0, RING_SIZE_MAX)}),
        "maglev": message({"tableSize": integer(0, MAGLEV_TABLE_SIZE_MAX)}),
        "minimumRingSize": integer(0, RING_SIZE_MAX),
    },
    frozenset(("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName")),
    frozenset(("ringHash", "maglev")),
)

_NO_LOCALITIES: Final = refused("localities are not known here; leave it out")

_LOAD_BALANCER: Final = message(
    {
        "simple": choice(
            "UNSPECIFIED",
            "LEAST_CONN",
            "RANDOM",
            "PASSTHROUGH",
            "ROUND_ROBIN",
            "LEAST_REQUEST",
        ),
        "consistentHash": _CONSISTENT_HASH,
        # On or off, it moves nothing while every endpoint lies in the same, unnamed locality.
        "localityLbSetting": message(
            {
                "enabled": boolean,
                "distribute": _NO_LOCALITIES,
                "failover": _NO_LOCALITIES,
                "failoverPriority": _NO_LOCALITIES,
            }
        ),
        "warmup": message(
            {
                "duration": duration(),
                "minimumPercent": number(0, 100),
                "aggression": number(1, 1e9),
            },
            required=("duration",),
        ),
        "warmupDurationSecs": duration(),
    },
    frozenset(("simple", "consistentHash")),
)

_TLS: Final = message(
    {
        "mode": choice("DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"),
        "clientCertificate": text,
        "privateKey": text,
        "caCertificates": text,
        "credentialName": refused("no secrets are known here; name files"),
        "subjectAltNames": listed(name),
        "sni": text,
        "insecureSkipVerify": boolean,
        "caCrl": text,
    }
)
_CERTIFICATE: Final = ("clientCertificate", "privateKey")


def _tls(manifest: Manifest, path: str, value: Tree) -> Tree:
    found = _TLS(manifest, path, value)
    mode = found.get("mode", "DISABLE")
    for field in _CERTIFICATE:
        if mode == "MUTUAL" and not found.get(field):
            manifest.fail(f"{path}.{field}", "missing, and the mode is MUTUAL")
        if mode != "MUTUAL" and found.get(field):
            manifest.fail(f"{path}.{field}", "is of mode MUTUAL alone")
    for field in ("caCertificates", "caCrl", "insecureSkipVerify"):
        if mode not in {"SIMPLE", "MUTUAL"} and found.get(field):
            manifest.fail(f"{path}.{field}", "is of the modes SIMPLE and MUTUAL alone")
    return found


# Where it is left out, Istio's documents say 20 % and its code 0.2 %.
_RETRY_BUDGET: Final = message(
    {"percent": number(0, 100), "minRetryConcurrency": integer(0, UINT32_MAX)},
    required=("percent",),
)
_ANY_LEVEL: Final[dict[str, Field]] = {
    "loadBalancer": _LOAD_BALANCER,
    "connectionPool": _CONNECTION_POOL,
    "outlierDetection": _OUTLIER_DETECTION,
    "tls": _tls,
}

_PORT: Final = message({"number": integer(1, 65535)}, required=("number",))
POLICY: Final = message(
    {
        **_ANY_LEVEL,
        "portLevelSettings": listed(message({"port": _PORT, **_ANY_LEVEL}, required=("port",))),
        "tunnel": refused("not translated"),
        "proxyProtocol": refused("not translated"),
        "retryBudget": _RETRY_BUDGET,
    }
)
