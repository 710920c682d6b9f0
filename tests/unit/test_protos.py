"""protos/: what is committed is what the tools make of it."""

from pathlib import Path

import pytest

from protos import generate


def test_the_generated_code_is_fresh() -> None:
    for name, text in generate.generated().items():
        assert (generate.GENERATED / name).read_text() == text, "run python -m protos.generate"


def test_stale_code_is_noticed_and_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "GENERATED", tmp_path)

    assert generate.main(["--check"]) == 1
    assert "budgets_pb2.py is stale" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(generate.NAMES)
