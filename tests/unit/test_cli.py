"""extproc/cli.py and extproc/explain.py: what a person types, sees, and gets as an exit code."""

import json
import socket
from pathlib import Path

import pytest

from extproc.cli import main
from tests.scenarios.table import SETTINGS, chat


@pytest.fixture
def body(tmp_path: Path) -> Path:
    file = tmp_path / "body.json"
    file.write_bytes(chat("Hello there.", stream=True, max_tokens=50))
    return file


def explain(body: Path, *more: str) -> int:
    return main(["explain", "--settings", str(SETTINGS), "--request", str(body), *more])


def test_check_says_that_a_file_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(SETTINGS)]) == 0
    assert "sound" in capsys.readouterr().out


def test_check_prints_every_problem_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("version: 2\nidentity: []\nmodels: {}\ntiers: {}\nplans: {}\ntenant: {}\n")

    assert main(["check", str(file)]) == 2

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("$") for line in lines)


def test_a_file_that_is_not_there_is_a_problem_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "nowhere.yaml: can't be read: No such file or directory\n"


def test_explain_tells_the_whole_decision(body: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(body, "--header", "x-tenant-id=initech") == 0

    told = capsys.readouterr().out
    for part in (
        "tenant      initech (told by header x-tenant-id), plan standard",
        "request     openai_chat, model gpt-4, streamed",
        "tokens      10 in the prompt, as gpt-4 counts (exact)",
        "1. standard    no: complexity",
        "2. default     applies",
        "outcome     routed to tier default, model local-llama",
        "x-llm-stream: true",
    ):
        assert part in told


def test_explain_shows_each_tier_that_was_tried_and_why_it_was_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(chat(max_tokens=1000))

    assert explain(body, "--header", "authorization=Bearer sk-poor", "--json") == 0

    told = json.loads(capsys.readouterr().out)
    assert [(tier["tier"], tier["taken"]) for tier in told["tiers"]] == [
        ("premium", False),
        ("standard", True),
    ]
    assert "can never hold" in told["tiers"][0]["because"]
    assert told["outcome"]["headers"]["x-llm-tier"] == "standard"
    assert told["budgets"][0]["budget"] == "month"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        pytest.param(("--header", "x-tenant-id=nobody"), "refused with 401", id="nobody"),
        pytest.param(("--claim", "tenant=acme"), "told by jwt_claim tenant", id="a claim"),
        pytest.param(("--peer-uri", "spiffe://x/ns/acme/sa/y"), "told by spiffe", id="a peer"),
        pytest.param(("--path", "/v1/files"), "untouched", id="another path"),
    ],
)
def test_explain_takes_what_a_proxy_would_bring(
    body: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, str], part: str
) -> None:
    assert explain(body, *more) == 0
    assert part in capsys.readouterr().out


def test_a_header_without_a_value_is_a_mistake_in_the_command(body: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        explain(body, "--header", "x-tenant-id")

    assert ended.value.code == 2


def test_a_request_that_is_not_there_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(Path("nowhere.json")) == 2
    assert "No such file" in capsys.readouterr().err


def test_an_address_in_use_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert main(["serve", "--settings", str(SETTINGS), "--port", str(port)]) == 2

    assert str(port) in capsys.readouterr().err


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"]


def test_serve_says_when_another_package_has_overwritten_otlps_messages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("opentelemetry.proto.common.v1.common_pb2.InstrumentationScope")

    assert main(["serve", "--settings", str(SETTINGS)]) == 2
    assert "--force-reinstall opentelemetry-proto" in capsys.readouterr().err


def test_a_transport_that_nobody_knows_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLM_EXTPROC_TRANSPORT", "pigeon")

    assert main(["serve", "--settings", str(SETTINGS)]) == 2
    assert capsys.readouterr().err == "LLM_EXTPROC_TRANSPORT: expected one of h2, grpcio\n"
