"""extproc/telemetry/turns.py: lines of several processes stay whole, in a pipe and in a file."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from extproc.telemetry.turns import SharedTurn, new_turn

WRITERS: Final = 3
LINES: Final = 200
LINE_BYTES: Final = 9000
"""More than a pipe takes at once."""

WRITER: Final = """\
import os, sys
from extproc.telemetry.audit import Audit
from extproc.telemetry.lines import FileLines, StreamLines
from extproc.telemetry.turns import SharedTurn
letter, turn, path = sys.argv[1], SharedTurn(int(sys.argv[2])), sys.argv[5:]
audit = Audit((FileLines(path[0], turn) if path else StreamLines(1, turn)).write)
os.close(2)
sys.stdin.read()
for _ in range(int(sys.argv[3])):
    audit._keep(letter.encode() * int(sys.argv[4]) + b"\\n")
while audit.waiting:
    audit.flush()
"""


def write(turn: int, output: int, *path: str) -> list["subprocess.Popen[bytes]"]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, letter, *map(str, (turn, LINES, LINE_BYTES - 1)), *path],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.PIPE,
            pass_fds=(turn,),
        )
        for letter in "abc"[:WRITERS]
    ]


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_lines_of_several_processes_stay_whole(kind: str, tmp_path: Path) -> None:
    turn = new_turn()
    reader, writer = os.pipe()
    path = tmp_path / "audit.jsonl"
    writers = write(turn, writer, *([str(path)] if kind == "file" else []))
    os.close(writer)
    for process in writers:
        assert process.stderr is not None
        assert process.stderr.read() == b""  # it is ready
        process.stderr.close()
    for process in writers:
        assert process.stdin is not None
        process.stdin.close()
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read()
    codes = [process.wait() for process in writers]
    os.close(turn)
    if kind == "file":
        found = path.read_bytes()

    assert codes == [0] * WRITERS
    lines = Counter(found.decode().splitlines())
    assert lines == {letter * (LINE_BYTES - 1): LINES for letter in "abc"[:WRITERS]}


def test_a_turn_is_given_back_by_death() -> None:
    turn = new_turn()
    code = (
        "import os, sys; from extproc.telemetry.turns import SharedTurn;"
        " SharedTurn(int(sys.argv[1])).take(); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(turn)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(turn,),
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        ours = SharedTurn(turn)
        with pytest.raises(BlockingIOError):
            ours.take()
        other.kill()
        other.wait()

        ours.take()

    ours.leave()
    os.close(turn)
