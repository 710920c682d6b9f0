"""The fields of a VirtualService: which there are, what they may hold, which exclude each other.

Facts from istiod's `pkg/config/validation/virtualservice.go` and the API's schema. What istiod's
webhook would refuse is an error here too, and so is a field that is not translated.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from extproc.mesh.fields import (
    INT32_MAX,
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
from extproc.mesh.match_fields import MATCH, PORT_MAX
from extproc.mesh.text_fields import header_operations, host, line, regex, string_match

Fields = Mapping[str, Any]
"""Fields that were checked; durations as protobuf JSON writes them."""

DIRECT_RESPONSE_BYTES_MAX: Final = 1 << 20
RETRY_ON: Final = frozenset(
    (
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    )
)
REDIRECT_CODES: Final = {
    0: "MOVED_PERMANENTLY",
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
GRPC_STATUSES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC's status codes, in the order of their numbers."""

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_STATUSES: Final = frozenset(int(each) for each in HTTPStatus)

_PORT: Final = message({"number": integer(1, PORT_MAX)})
_PERCENT: Final = message({"value": number(0, 100)})
_DURATION: Final = duration()


def status_code(token: str) -> int | None:
    """The HTTP status that a part of `retryOn` is, or None where it is a word."""
    code = int(token) if _INTEGER.fullmatch(token) else None
    return code if code in _STATUSES else None


def _destination(manifest: Manifest, path: str, value: Tree) -> Tree:
    found = _DESTINATION(manifest, path, value)
    if "host" not in found:
        manifest.fail(f"{path}.host", "missing")
    if found.get("port") == {}:
        manifest.fail(f"{path}.port.number", "missing")
    return found


_DESTINATION: Final = message({"host": name, "subset": line, "port": _PORT})


_HEADERS: Final = message(
    {
        "request": header_operations(may_set_authority=True),
        "response": header_operations(may_set_authority=False),
    }
)


def _retry_on(manifest: Manifest, path: str, value: Tree) -> Tree:
    said: str = text(manifest, path, value)
    for token in said.split(",") if said else ():
        if token not in RETRY_ON and status_code(token) is None:
            manifest.fail(path, f"{token!r} is no reason to retry (nor may there be spaces)")
    return value


_RETRY: Final = message(
    {
        "attempts": integer(),
        "perTryTimeout": _DURATION,
        "retryOn": _retry_on,
        "retryRemoteLocalities": boolean,
        "retryIgnorePreviousHosts": boolean,
        "backoff": _DURATION,
    }
)


def _retries(manifest: Manifest, path: str, value: Tree) -> Tree:
    found = _RETRY(manifest, path, value)
    others = found.keys() & {"perTryTimeout", "retryOn", "retryRemoteLocalities"}
    if not found.get("attempts") and others:
        manifest.fail(path, f"attempts: 0 or none retries nothing; leave out {min(others)}")
    return found


def _redirect_code(manifest: Manifest, path: str, value: Tree) -> Tree:
    if integer()(manifest, path, value) not in REDIRECT_CODES:
        manifest.fail(path, f"must be one of {', '.join(map(str, REDIRECT_CODES))}")
    return value


def _no_other_routes(manifest: Manifest, path: str, value: Tree) -> Tree:
    if value:
        manifest.fail(path, "TLS and TCP routes are not translated")
    return value


def _regex_rewrite(manifest: Manifest, path: str, value: Tree) -> Tree:
    found = message({"match": regex, "rewrite": line})(manifest, path, value)
    if "match" not in found:
        manifest.fail(f"{path}.match", "missing")
    return found


_REWRITE: Final = message(
    {
        "uri": line,
        "authority": line,
        "uriRegexRewrite": _regex_rewrite,
    },
    frozenset(("uri", "uriRegexRewrite")),
)
_REDIRECT: Final = message(
    {
        "uri": line,
        "authority": line,
        "scheme": choice("", "http", "https"),
        "port": integer(1, PORT_MAX),
        "derivePort": choice("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"),
        "redirectCode": _redirect_code,
    },
    frozenset(("port", "derivePort")),
)


def _body_text(manifest: Manifest, path: str, value: Tree) -> Tree:
    if len(text(manifest, path, value).encode()) > DIRECT_RESPONSE_BYTES_MAX:
        manifest.fail(path, f"is longer than {DIRECT_RESPONSE_BYTES_MAX} bytes")
    return value


_DIRECT_RESPONSE: Final = message(
    {
        "status": integer(200, 599),
        "body": message(
            {"string": _body_text, "bytes": refused("not translated; use `string`")},
            frozenset(("string", "bytes")),
        ),
    }
)
_FAULT: Final = message(
    {
        "delay": message(
            {
                "fixedDelay": _DURATION,
                "exponentialDelay": refused("istiod does not translate it; use fixedDelay"),
                "percentage": _PERCENT,
                "percent": integer(0, 100),
            }
        ),
        "abort": message(
            {
                "httpStatus": integer(200, 600),
                "grpcStatus": choice(*GRPC_STATUSES),
                "http2Error": refused("istiod does not translate it; use httpStatus"),
                "percentage": _PERCENT,
            },
            frozenset(("httpStatus", "grpcStatus")),
        ),
    }
)


def _whole_seconds(manifest: Manifest, path: str, value: Tree) -> Tree:
    found: str = _DURATION(manifest, path, value)
    if "." in found:
        manifest.fail(path, "must be whole seconds")
    return found


_CORS: Final = message(
    {
        "allowOrigin": listed(line),
        "allowOrigins": listed(string_match),
        "allowMethods": listed(line),
        "allowHeaders": listed(line),
        "exposeHeaders": listed(line),
        "maxAge": _whole_seconds,
        "allowCredentials": boolean,
        "unmatchedPreflights": choice("UNSPECIFIED", "FORWARD", "IGNORE"),
    }
)
_DELEGATE: Final = refused("delegates are not translated; write the routes here")

VIRTUAL_SERVICE: Final = message(
    {
        "hosts": listed(host),
        "gateways": listed(name),
        "exportTo": listed(name),
        "tls": _no_other_routes,
        "tcp": _no_other_routes,
        "http": listed(
            message(
                {
                    "name": line,
                    "match": listed(MATCH),
                    "route": listed(
                        message(
                            {
                                "destination": _destination,
                                "weight": integer(0, INT32_MAX),
                                "headers": _HEADERS,
                            }
                        )
                    ),
                    "redirect": _REDIRECT,
                    "directResponse": _DIRECT_RESPONSE,
                    "delegate": _DELEGATE,
                    "rewrite": _REWRITE,
                    "timeout": _DURATION,
                    "retries": _retries,
                    "fault": _FAULT,
                    "mirror": _destination,
                    "mirrors": listed(
                        message({"destination": _destination, "percentage": _PERCENT})
                    ),
                    "mirrorPercent": integer(0, 100),
                    "mirrorPercentage": _PERCENT,
                    "corsPolicy": _CORS,
                    "headers": _HEADERS,
                }
            )
        ),
    }
)
