"""Refusals, in the JSON that the client's own SDK understands.

Shapes: OpenAI `{"error": {message, type, param, code}}`; Anthropic
`{"type": "error", "error": {type, message}}`. Statuses and types are those that the SDKs map
to their exception classes (openai-python and anthropic-sdk-python, `_exceptions.py`).
"""

import enum
from typing import Final, NamedTuple

import msgspec

from extproc.llm.dialects import Dialect


class Fault(enum.StrEnum):
    """Why a request is refused. Stable: a metric label, an audit field, part of `details`."""

    MALFORMED_REQUEST = "malformed_request"
    REQUEST_TOO_LARGE = "request_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    UPGRADE_REFUSED = "upgrade_refused"
    UNKNOWN_TENANT = "unknown_tenant"
    UNKNOWN_MODEL = "unknown_model"
    CONTEXT_EXCEEDED = "context_exceeded"
    BUDGET_TOO_SMALL = "budget_too_small"
    RATE_LIMITED = "rate_limited"
    BUDGET_EXHAUSTED = "budget_exhausted"
    TENANT_SUSPENDED = "tenant_suspended"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    OVERLOADED = "overloaded"

    @property
    def status(self) -> int:
        """The HTTP status."""
        return _FORMS[self].status


class _Form(NamedTuple):
    status: int
    openai_type: str
    openai_code: str | None
    anthropic_type: str


_INVALID: Final = "invalid_request_error"

_FORMS: Final = {
    Fault.MALFORMED_REQUEST: _Form(400, _INVALID, None, _INVALID),
    Fault.REQUEST_TOO_LARGE: _Form(413, _INVALID, "request_too_large", "request_too_large"),
    Fault.UNSUPPORTED_MEDIA_TYPE: _Form(415, _INVALID, "unsupported_media_type", _INVALID),
    Fault.UPGRADE_REFUSED: _Form(400, _INVALID, "upgrade_refused", _INVALID),
    Fault.UNKNOWN_TENANT: _Form(401, _INVALID, "invalid_api_key", "authentication_error"),
    Fault.UNKNOWN_MODEL: _Form(404, _INVALID, "model_not_found", "not_found_error"),
    Fault.CONTEXT_EXCEEDED: _Form(400, _INVALID, "context_length_exceeded", _INVALID),
    Fault.BUDGET_TOO_SMALL: _Form(400, _INVALID, "budget_too_small", _INVALID),
    Fault.RATE_LIMITED: _Form(
        429, "rate_limit_exceeded", "rate_limit_exceeded", "rate_limit_error"
    ),
    Fault.BUDGET_EXHAUSTED: _Form(
        429, "insufficient_quota", "insufficient_quota", "rate_limit_error"
    ),
    Fault.TENANT_SUSPENDED: _Form(
        429, "insufficient_quota", "insufficient_quota", "rate_limit_error"
    ),
    Fault.LEDGER_UNAVAILABLE: _Form(503, "server_error", "ledger_unavailable", "api_error"),
    Fault.OVERLOADED: _Form(503, "server_error", "overloaded", "overloaded_error"),
}


def error_body(dialect: Dialect, fault: Fault, message: str, *, param: str | None = None) -> bytes:
    """Write a refusal as `dialect` has it. `param` names the part of the body at fault."""
    form = _FORMS[fault]
    if dialect.is_anthropic:
        error: dict[str, object] = {"type": form.anthropic_type, "message": message}
        return msgspec.json.encode({"type": "error", "error": error})
    error = {
        "message": message,
        "type": form.openai_type,
        "param": param,
        "code": form.openai_code,
    }
    return msgspec.json.encode({"error": error})
