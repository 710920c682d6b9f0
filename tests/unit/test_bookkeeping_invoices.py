"""extproc/bookkeeping/invoices.py, layouts.py and names.py: what providers export."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from extproc.bookkeeping import invoices
from extproc.bookkeeping.invoices import Row, Used, read_invoice
from extproc.bookkeeping.layouts import LAYOUTS
from extproc.bookkeeping.lines import BooksError
from extproc.bookkeeping.names import match

DAY = dt.date(2026, 9, 10)
SECONDS = 1_788_998_400
"""2026-09-10, its first second."""


def rows(tmp_path: Path, text: str | bytes) -> list[Row]:
    path = tmp_path / "export"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_invoice(path)


OPENAI_USAGE = f"""\
start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,model,batch,\
input_tokens,output_tokens,input_cached_tokens
{SECONDS},0,2026-09-10T00:00:00+00:00,,p,10.0,gpt-4o-2024-08-06,FALSE,59200.0,10646.0,5760.0
{SECONDS + 86400},0,2026-09-11T00:00:00+00:00,,,,,,,,
"""
OPENAI_COSTS = f"""\
start_time\tend_time\tstart_time_iso\tamount_value\tamount_currency\tline_item
{SECONDS}\t0\t\t0.1234567\tusd\tgpt-4o-2024-08-06, input
{SECONDS}\t0\t\t0.5\tusd\t
"""
OPENAI_OLD = f"""\
timestamp,n_requests,operation,n_context_tokens_total,n_generated_tokens_total,model
{SECONDS + 7},3,completion,400,50,gpt-4-0613
"""
ANTHROPIC_USAGE = """\
\ufeffusage_date_utc,model_version,api_key,workspace,usage_type,context_window,\
usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,\
usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,\
web_search_count
2026-09-10,claude-sonnet-4-5-20250929,k,Default,standard,\u2264 200k,100,20,3,4000,55,0
"""
ANTHROPIC_COSTS = """\
usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,cost_type
2026-09-10,Claude Haiku 4.5,Default,k,message,\u2264 200k,input_no_cache,1.25,token
"""
GENERIC = 'date;model;input_tokens;cost_usd\n2026-09-10;m;"1,234";$0.5\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            OPENAI_USAGE,
            [
                Row(DAY, "gpt-4o-2024-08-06", Used(10, 59200, 10646, None)),
                Row(dt.date(2026, 9, 11), "", Used(0, 0, 0, None)),
            ],
            id="OpenAI's usage",
        ),
        pytest.param(
            OPENAI_COSTS,
            [
                Row(DAY, "gpt-4o-2024-08-06", Used(None, None, None, 123_457)),
                Row(DAY, "", Used(None, None, None, 500_000)),
            ],
            id="OpenAI's costs",
        ),
        pytest.param(
            OPENAI_OLD, [Row(DAY, "gpt-4-0613", Used(3, 400, 50, None))], id="OpenAI's activity"
        ),
        pytest.param(
            ANTHROPIC_USAGE,
            [Row(DAY, "claude-sonnet-4-5-20250929", Used(None, 4123, 55, None))],
            id="Anthropic's usage",
        ),
        pytest.param(
            ANTHROPIC_COSTS,
            [Row(DAY, "Claude Haiku 4.5", Used(None, None, None, 1_250_000))],
            id="Anthropic's costs",
        ),
        pytest.param(GENERIC, [Row(DAY, "m", Used(None, 1234, None, 500_000))], id="any other"),
        pytest.param(
            "date,model,requests\r\n20260910,m,2\r\n",
            [Row(DAY, "m", Used(2, None, None, None))],
            id="a date without dashes",
        ),
        pytest.param(
            "date,model,requests\n2026-09-11T01:00:00+02:00,m,2\n",
            [Row(DAY, "m", Used(2, None, None, None))],
            id="an instant elsewhere",
        ),
    ],
)
def test_a_table_is_read(tmp_path: Path, text: str, expected: list[Row]) -> None:
    assert rows(tmp_path, text) == expected


def page(*buckets: dict[str, Any], has_more: bool = False) -> dict[str, Any]:
    return {"object": "page", "data": list(buckets), "has_more": has_more, "next_page": None}


OPENAI_RESULT = {"input_tokens": 1000, "output_tokens": 500, "input_cached_tokens": 800,
                 "num_model_requests": 5, "model": "gpt-5-2025-08-07"}  # fmt: skip
ANTHROPIC_RESULT = {
    "uncached_input_tokens": 1500, "cache_read_input_tokens": 200, "output_tokens": 500,
    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
    "model": "claude-opus-4", "server_tool_use": {"web_search_requests": 10},
}  # fmt: skip


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(
            page(
                {"start_time": SECONDS, "results": [OPENAI_RESULT]},
                {"start_time": SECONDS + 86400, "results": []},
            ),
            [
                Row(DAY, "gpt-5-2025-08-07", Used(5, 1000, 500, None)),
                Row(dt.date(2026, 9, 11), "", Used(0, 0, 0, None)),
            ],
            id="OpenAI's usage",
        ),
        pytest.param(
            page(
                {
                    "start_time": SECONDS,
                    "results": [
                        {"amount": {"value": 0.06, "currency": "usd"}, "line_item": None},
                        {"amount": {"value": 0.1, "currency": "usd"}, "line_item": "gpt-4o, input"},
                    ],
                }
            ),
            [
                Row(DAY, "", Used(None, None, None, 60_000)),
                Row(DAY, "gpt-4o", Used(None, None, None, 100_000)),
            ],
            id="OpenAI's costs",
        ),
        pytest.param(
            [
                page(
                    {"starting_at": "2026-09-10T00:00:00Z", "results": [ANTHROPIC_RESULT]},
                    has_more=True,
                ),
                page(),
            ],
            [Row(DAY, "claude-opus-4", Used(None, 3200, 500, None))],
            id="Anthropic's usage, in two pages",
        ),
        pytest.param(
            page(
                {
                    "starting_at": "2026-09-10T00:00:00Z",
                    "results": [{"amount": "123.45", "currency": "USD", "model": "claude-opus-4"}],
                }
            ),
            [Row(DAY, "claude-opus-4", Used(None, None, None, 1_234_500))],
            id="Anthropic's costs, in cents",
        ),
        pytest.param(
            [{"date": "2026-09-10", "model": "m", "requests": 3}],
            [Row(DAY, "m", Used(3, None, None, None))],
            id="any other",
        ),
    ],
)
def test_a_page_is_read(tmp_path: Path, document: object, expected: list[Row]) -> None:
    assert rows(tmp_path, json.dumps(document)) == expected


HEAD = "date,model,requests,cost_usd\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unknown columns: none"),
        ("date,model\n2026-09-10,m\n", "unknown columns: date, model. Looked for: OpenAI usage"),
        ("\x1b[2J,b\n", r"unknown columns: \?\[2J, b"),
        ("[]", "unknown columns: none"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('["x"]', "unknown columns"),
        (json.dumps(page(has_more=True)), "has_more"),
        (b"\xff\xfe\x00", "no UTF-8 text"),
        ('[{"date": "2026-09-10", "model": "m", "requests": "x"}]', "row 1: requests is no number"),
        (HEAD + "2026-09-10,m,many,1\n", "export, row 2: requests is no number"),
        (HEAD + "2026-09-10,m,1,nan\n", "row 2: cost_usd is no number"),
        (HEAD + "2026-09-10,m,1,1e999999\n", "row 2: cost_usd is no number"),
        (HEAD + "2026-09-10,m,1,1\nyesterday,m,1,1\n", "row 3: the day is no date"),
        (HEAD + ",m,1,1\n", "row 2: the day is no date"),
        (HEAD + "999999999999999999,m,1,1\n", "row 2: the day is no date"),
        (OPENAI_COSTS.replace("usd", "eur"), "row 2: the currency is eur, not USD"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_can_not_be_read_is_one_line_that_says_where(
    tmp_path: Path, text: str | bytes, problem: str
) -> None:
    with pytest.raises(BooksError, match=problem) as refused:
        rows(tmp_path, text)

    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "export"))


def test_an_export_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BooksError, match="none: No such file"):
        read_invoice(tmp_path / "none")


def test_an_export_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoices, "BYTES_MAX", len(GENERIC))
    assert rows(tmp_path, GENERIC)
    with pytest.raises(BooksError, match="larger than"):
        rows(tmp_path, GENERIC + "\n")


def test_what_is_looked_for_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    for layout in LAYOUTS:
        for column in layout.needs:
            assert f"`{column.partition('.')[0]}`" in text or column in ("amount_value", "currency")


OURS = ("gpt-4", "gpt-4o", "claude-sonnet", "claude-haiku-4-5-20251001", "local")


@pytest.mark.parametrize(
    ("invoiced", "expected"),
    [
        pytest.param("gpt-4", "gpt-4", id="the same"),
        pytest.param("gpt-4-0613", "gpt-4", id="a date"),
        pytest.param("gpt-4o-2024-08-06", "gpt-4o", id="the longest"),
        pytest.param("claude-sonnet-4-5@20250929", "claude-sonnet", id="versions and dates"),
        pytest.param("claude-sonnet-latest", "claude-sonnet", id="the latest"),
        pytest.param("gpt-4-turbo", None, id="another model"),
        pytest.param("gpt-4o-mini-2024-07-18", None, id="another model with a date"),
        pytest.param("gpt-41", None, id="a longer name"),
        pytest.param("Claude Haiku 4.5", "claude-haiku-4-5-20251001", id="a display name"),
        pytest.param("claude", None, id="less than a name"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_an_invoices_model_is_ours_with_a_version(invoiced: str, expected: str | None) -> None:
    assert match(invoiced, OURS, {}) == expected


def test_what_is_said_counts_more_than_what_is_alike() -> None:
    assert match("gpt-4-0613", OURS, {"gpt-4-0613": "local"}) == "local"


def test_a_name_that_could_be_two_of_ours_is_none() -> None:
    assert match("claude-haiku-4-5", ("claude-haiku-4-5-1", "claude-haiku-4-5-2"), {}) is None
