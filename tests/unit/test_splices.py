"""Streams are made to end with their usage: a change of a few bytes, and of no others."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.llm.body import Malformed, Splice, spliced
from extproc.llm.dialects import Dialect
from extproc.llm.parse import parse_request
from extproc.llm.request import LlmRequest

CHAT = '"model":"m","messages":[]'


def rewritten(body: str, dialect: Dialect = Dialect.OPENAI_CHAT) -> str:
    request = parse_request(dialect, body.encode())
    assert isinstance(request, LlmRequest), request
    if request.usage_splice is None:
        return body
    return spliced(body.encode(), [request.usage_splice]).decode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            f'{{{CHAT},"stream":true}}',
            f'{{"stream_options":{{"include_usage":true}},{CHAT},"stream":true}}',
            id="no options",
        ),
        pytest.param(
            f' \n{{ {CHAT},"stream":true }} ',
            f' \n{{"stream_options":{{"include_usage":true}}, {CHAT},"stream":true }} ',
            id="white space stays",
        ),
        pytest.param(
            f'{{{CHAT},"stream":true,"stream_options":null}}',
            f'{{{CHAT},"stream":true,"stream_options":{{"include_usage":true}}}}',
            id="options of null",
        ),
        pytest.param(
            f'{{{CHAT},"stream":true,"stream_options": {{ }} }}',
            f'{{{CHAT},"stream":true,"stream_options": {{"include_usage":true }} }}',
            id="empty options",
        ),
        pytest.param(
            f'{{{CHAT},"stream":true,"stream_options":{{"include_obfuscation":false}}}}',
            f'{{{CHAT},"stream":true,"stream_options":{{"include_usage":true,'
            '"include_obfuscation":false}}',
            id="other options",
        ),
        pytest.param(
            f'{{"stream_options":{{"a":[1,{{}}],"include_usage" : false}},{CHAT},"stream":true}}',
            f'{{"stream_options":{{"a":[1,{{}}],"include_usage" : true}},{CHAT},"stream":true}}',
            id="a client's false",
        ),
        pytest.param(
            f'{{"stream_options":{{"include_usage":null}},{CHAT},"stream":true}}',
            f'{{"stream_options":{{"include_usage":true}},{CHAT},"stream":true}}',
            id="a client's null",
        ),
    ],
)
def test_a_stream_is_made_to_end_with_its_usage(body: str, expected: str) -> None:
    assert rewritten(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f"{{{CHAT}}}", id="no stream"),
        pytest.param(f'{{{CHAT},"stream":false}}', id="no stream, in words"),
        pytest.param(
            f'{{{CHAT},"stream":true,"stream_options":{{"include_usage":true}}}}',
            id="the client asked itself",
        ),
    ],
)
def test_a_body_that_needs_no_change_stays(body: str) -> None:
    assert rewritten(body) == body


@pytest.mark.parametrize(
    ("dialect", "more", "is_asked"),
    [
        (Dialect.OPENAI_COMPLETIONS, '"prompt":"x"', True),
        (Dialect.OPENAI_RESPONSES, '"input":"x"', False),
        (Dialect.ANTHROPIC_MESSAGES, '"messages":[],"max_tokens":5', False),
    ],
)
def test_only_apis_that_know_the_option_are_asked(
    dialect: Dialect, more: str, is_asked: bool
) -> None:
    body = f'{{"model":"m",{more},"stream":true}}'

    assert ("include_usage" in rewritten(body, dialect)) == is_asked


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ('{"include_usage":"yes"}', "$.stream_options.include_usage"),
        ("[]", "$.stream_options"),
        ('{"include_usage":false,"include_usage":false}', "$.stream_options"),
    ],
)
def test_options_that_two_readers_could_read_differently_are_refused(
    options: str, path: str
) -> None:
    body = f'{{{CHAT},"stream":true,"stream_options":{options}}}'
    request = parse_request(Dialect.OPENAI_CHAT, body.encode())

    assert isinstance(request, Malformed)
    assert request.path == path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
options = st.dictionaries(st.text(max_size=8), json_values, max_size=4).flatmap(
    lambda known: st.sampled_from([True, False, None]).map(
        lambda value: known | {"include_usage": value}
    )
)


@given(st.none() | options, st.booleans())
def test_nothing_else_changes(given_options: dict[str, Any] | None, is_ascii: bool) -> None:
    body = {"model": "m", "messages": [], "stream": True, "stream_options": given_options}

    changed = json.loads(rewritten(json.dumps(body, ensure_ascii=is_ascii)))

    wanted = {**(given_options or {}), "include_usage": True}
    assert changed == {**body, "stream_options": wanted}


def test_two_changes_at_once_do_not_disturb_each_other() -> None:
    splices = [Splice((4, 5), b"four"), Splice((1, 1), b"<"), Splice((2, 3), b"")]

    assert spliced(b"012345", splices) == b"0<13four5"


def test_without_a_change_a_body_is_what_it_was() -> None:
    assert spliced(b"012345", []) == b"012345"
