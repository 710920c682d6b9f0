"""extproc/demo/process.py: children are ready before they are used, and gone afterwards."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from extproc.demo.process import StartError, child

PYTHON = sys.executable
WAITS = "import time; print('ready 7', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " + WAITS


def test_a_child_is_gone_when_the_block_ends(tmp_path: Path) -> None:
    with child("waits", [PYTHON, "-c", WAITS], directory=tmp_path) as running:
        assert running.wait_for_line("ready ") == "7"
        assert running.process.poll() is None

    assert running.process.poll() == -signal.SIGTERM


def test_a_child_is_gone_when_the_block_is_interrupted(tmp_path: Path) -> None:
    processes = []

    def interrupted() -> None:
        with child("waits", [PYTHON, "-c", WAITS], directory=tmp_path) as running:
            processes.append(running.process)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert processes[0].poll() is not None


def test_a_stopped_child_is_ended_too(tmp_path: Path) -> None:
    with child("waits", [PYTHON, "-c", STUBBORN], directory=tmp_path) as running:
        running.wait_for_line("ready ")
        os.kill(running.process.pid, signal.SIGSTOP)

    assert running.process.poll() == -signal.SIGTERM


def test_a_child_that_ends_before_it_is_ready_leaves_its_last_words(tmp_path: Path) -> None:
    dies = "print('no such file'); raise SystemExit(3)"

    with (
        child("dies", [PYTHON, "-c", dies], directory=tmp_path) as running,
        pytest.raises(StartError) as failed,
    ):
        running.wait_for_line("ready ")

    assert str(failed.value) == "dies ended with code 3; its last words:\n  no such file"


if sys.platform == "linux":  # it is the kernel that does it there

    def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
        parent = (
            "import os, pathlib, sys\n"
            "from extproc.demo.process import child\n"
            f"with child('waits', [sys.executable, '-c', {WAITS!r}],\n"
            f"           directory=pathlib.Path({str(tmp_path)!r})) as running:\n"
            "    running.wait_for_line('ready ')\n"
            "    print(running.process.pid, flush=True)\n"
            "    os.kill(os.getpid(), 9)\n"
        )

        killed = subprocess.run([PYTHON, "-c", parent], stdout=subprocess.PIPE, check=False)

        assert killed.returncode == -signal.SIGKILL
        assert is_gone(int(killed.stdout))


def is_gone(pid: int) -> bool:
    """Wait for a process that is no child of ours."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], 10)[0])
    finally:
        os.close(watch)
