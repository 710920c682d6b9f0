"""`llm-extproc mesh lint`: what it prints, and its exit codes."""

import argparse
import json
from pathlib import Path

import pytest

from extproc.cli_mesh_lint import add_lint
from extproc.config.loader import ConfigError

EXAMPLES = Path(__file__).parents[1] / "mesh_lint"
SETTINGS = """
version: 1
identity: [{jwt_claim: tenant}]
models: {m: {encoding: cl100k_base, context_tokens: 8192, output_tokens_max: 4096}}
tiers: {premium: {model: m}, gold: {model: m}}
plans: {all: [{tier: gold}]}
tenants: {acme: {plan: all}}
"""


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_lint(parser.add_subparsers())
    options = parser.parse_args(["lint", *map(str, arguments)])
    code: int = options.run(options)
    return code


def test_clean_manifests_are_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(EXAMPLES / "no-catch-all" / "good.yaml") == 0
    assert capsys.readouterr().out == "no findings\n"


def test_findings_are_exit_1_and_say_where_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    bad = EXAMPLES / "one-attempt-is-a-retry" / "bad.yaml"

    assert run(bad) == 1

    first, fix, _, last = capsys.readouterr().out.splitlines()
    assert first == (
        f"{bad}:14: [one-attempt-is-a-retry] VirtualService ai-platform/llm-router"
        " spec.http[0].retries.attempts — 1: it counts retries, not tries: the request is sent"
        " twice"
    )
    assert fix == "    fix: retries: {attempts: 0}"
    assert last == "1 finding in 1 file"


def test_programs_get_a_list_of_objects(capsys: pytest.CaptureFixture[str]) -> None:
    run("--json", EXAMPLES / "stream-retried" / "bad.yaml", EXAMPLES / "no-catch-all" / "bad.yaml")

    told = json.loads(capsys.readouterr().out)
    assert {each["rule"] for each in told} == {"stream-retried", "no-catch-all"}
    assert set(told[0]) == {"file", "line", "resource", "path", "rule", "what", "why", "fix"}


@pytest.mark.parametrize("text", ["a: [", "kind: 3", "[]", "a: 1\na: 2\n"])
def test_what_cannot_be_read_is_exit_2(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)

    assert run(file) == 2
    assert str(file) in capsys.readouterr().err
    assert run(tmp_path / "none.yaml") == 2


def test_settings_of_a_file_go_before_those_of_a_config_map(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(SETTINGS)
    good = EXAMPLES / "tier-without-route" / "good.yaml"

    assert run(good) == 0
    assert run("--settings", file, good) == 0  # `gold` has no served_by: any route may be its
    file.write_text(SETTINGS.replace("{m: {", "{m: {served_by: [x], "))
    capsys.readouterr()
    assert run("--settings", file, good) == 1
    assert "'gold'" in capsys.readouterr().out


def test_settings_that_are_wrong_are_left_to_the_caller(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    for text in (b"version: 2\n", b"\xff"):
        file.write_bytes(text)
        with pytest.raises(ConfigError):
            run("--settings", file, EXAMPLES / "no-catch-all" / "good.yaml")
    with pytest.raises(ConfigError):
        run("--settings", tmp_path, EXAMPLES / "no-catch-all" / "good.yaml")


def test_the_keys_of_tenants_need_not_be_there(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(SETTINGS.replace("jwt_claim: tenant", "api_key: {header: a, file: b}"))

    assert run("--settings", file, EXAMPLES / "tier-without-route" / "good.yaml") == 0
