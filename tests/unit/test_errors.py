"""extproc/llm/errors.py"""

import json

import pytest

from extproc.llm.dialects import Dialect
from extproc.llm.errors import Fault, error_body


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_fault_has_a_body_in_every_dialect(fault: Fault, dialect: Dialect) -> None:
    told = json.loads(error_body(dialect, fault, 'say "why"', param="model"))

    assert told["error"]["message"] == 'say "why"'
    if dialect.is_anthropic:
        assert (told["type"], set(told["error"])) == ("error", {"type", "message"})
    else:
        assert set(told["error"]) == {"message", "type", "param", "code"}
        assert told["error"]["param"] == "model"


def test_statuses_are_those_of_the_contract() -> None:
    assert {fault: fault.status for fault in Fault} == {
        Fault.MALFORMED_REQUEST: 400,
        Fault.REQUEST_TOO_LARGE: 413,
        Fault.UNSUPPORTED_MEDIA_TYPE: 415,
        Fault.UPGRADE_REFUSED: 400,
        Fault.UNKNOWN_TENANT: 401,
        Fault.UNKNOWN_MODEL: 404,
        Fault.CONTEXT_EXCEEDED: 400,
        Fault.BUDGET_TOO_SMALL: 400,
        Fault.RATE_LIMITED: 429,
        Fault.BUDGET_EXHAUSTED: 429,
        Fault.TENANT_SUSPENDED: 429,
        Fault.LEDGER_UNAVAILABLE: 503,
        Fault.OVERLOADED: 503,
    }


def test_an_exhausted_quota_and_a_rate_are_told_apart_as_openai_does() -> None:
    codes = [
        json.loads(error_body(Dialect.OPENAI_CHAT, fault, ""))["error"]["code"]
        for fault in (Fault.RATE_LIMITED, Fault.BUDGET_EXHAUSTED, Fault.UNKNOWN_TENANT)
    ]

    assert codes == ["rate_limit_exceeded", "insufficient_quota", "invalid_api_key"]
