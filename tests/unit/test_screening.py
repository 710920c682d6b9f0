"""extproc/exchange/screening.py"""

import pytest

from extproc.exchange.screening import is_upgrade, screen
from extproc.llm.errors import Fault


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"upgrade": "websocket"}, True, id="HTTP/1.1"),
        pytest.param({":protocol": "websocket"}, True, id="HTTP/2"),
        pytest.param({":method": "CONNECT"}, True, id="a tunnel"),
        pytest.param({":method": "POST"}, False, id="none of them"),
    ],
)
def test_what_asks_for_another_protocol(headers: dict[str, str], expected: bool) -> None:
    assert is_upgrade(headers) is expected


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        pytest.param({}, None, id="nothing said is taken for JSON"),
        pytest.param({"content-type": "Application/JSON; charset=utf-8"}, None, id="JSON"),
        pytest.param({"content-type": "application/problem+json"}, None, id="a kind of JSON"),
        pytest.param(
            {"content-type": "multipart/form-data"}, Fault.UNSUPPORTED_MEDIA_TYPE, id="a form"
        ),
        pytest.param({"content-encoding": "identity"}, None, id="not encoded"),
        pytest.param(
            {"content-encoding": "identity, gzip"}, Fault.UNSUPPORTED_MEDIA_TYPE, id="two codings"
        ),
        pytest.param({"content-length": "100"}, None, id="as long as may be"),
        pytest.param({"content-length": "101"}, Fault.REQUEST_TOO_LARGE, id="one too long"),
        pytest.param({"content-length": "9" * 5000}, Fault.REQUEST_TOO_LARGE, id="absurdly long"),
        pytest.param({"content-length": "\u0669"}, None, id="digits of another script"),
        pytest.param({"content-length": "-1"}, None, id="no number"),
    ],
)
def test_what_the_head_tells_of_the_body(headers: dict[str, str], fault: Fault | None) -> None:
    refused = screen(headers, body_bytes_max=100)

    assert (refused.fault if refused else None) is fault
