"""Every bench runs as a whole, shortly: what it finds is nothing to go by, that it runs is."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("name", "row"),
    [
        pytest.param(
            "micro", "| a suspended tenant is refused before its body is read |", id="micro"
        ),
        pytest.param("size", "| 262144 | cold |", id="size"),
        pytest.param("sse", "| STREAMED |", id="sse"),
        pytest.param("scale", "| refused | 0 |", id="scale"),
        pytest.param("overload", "| 2.0 |", id="overload"),
    ],
)
def test_it_runs(name: str, row: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", "--brief"],
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
    )

    assert done.returncode == 0, done.stderr
    assert row in done.stdout
