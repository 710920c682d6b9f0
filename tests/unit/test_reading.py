"""extproc/config/reading.py: what the child tells is what a loader in this process would."""

import asyncio
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from extproc.config import reading
from extproc.config.loader import ConfigError, load_file
from extproc.config.reading import (
    ENTRIES_PER_FRAME,
    PROBLEMS_MAX,
    Read,
    read_apart,
    read_first,
    write,
)
from extproc.policy.tenants import Tenant
from tests.scenarios.table import SETTINGS
from tests.unit.config_good import FILES, GOOD, HASH, spoiled, text_of

MANY = 2 * ENTRIES_PER_FRAME + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tenants = {f"t{number}": {"plan": "tin"} for number in range(MANY)}
    path = tmp_path / "settings.yaml"
    path.write_text(text_of(spoiled({"tenants": tenants, "limits/tenants": MANY})))
    keys = {f"{number:064x}": f"t{number}" for number in range(MANY)}
    (tmp_path / "keys.yaml").write_text(text_of(keys))
    return path


def read(path: Path, known: dict[str, Tenant] | None = None) -> Read:
    return asyncio.run(read_apart(path, known or {}))


@pytest.mark.parametrize("which", ["many", "everything", "of the scenarios"])
def test_what_is_read_apart_is_what_is_read_here(path: Path, which: str) -> None:
    if which == "everything":
        path.write_text(text_of(GOOD))
        path.with_name("keys.yaml").write_text(FILES["keys.yaml"])
    if which == "of the scenarios":
        path = SETTINGS

    found = read(path)

    assert found.problems == ()
    assert found.loaded == load_file(path)
    assert path in found.digests


def test_tenants_that_did_not_change_stay_the_same_objects(path: Path) -> None:
    known = dict(load_file(path).settings.tenants)
    known["t1"] = Tenant(plan="another")

    loaded = read(path, known).loaded

    assert loaded is not None
    assert loaded.settings.tenants["t0"] is known["t0"]
    assert loaded.settings.tenants["t1"] == Tenant(plan="tin")


def test_problems_are_told_as_they_are_here(path: Path) -> None:
    path.write_text(text_of(spoiled({"version": 2, "plans/gold": []})))
    path.with_name("keys.yaml").write_text(FILES["keys.yaml"])
    with pytest.raises(ConfigError) as refused:
        load_file(path)

    found = read(path)

    assert found.loaded is None
    assert found.problems == refused.value.problems
    assert set(found.digests) == {path, path.with_name("keys.yaml")}


def test_very_many_problems_are_counted(path: Path) -> None:
    path.write_text(text_of(spoiled({f"tenants/{n}": {} for n in range(PROBLEMS_MAX + 5)})))

    *told, last = map(str, read(path).problems)

    assert len(told) == PROBLEMS_MAX
    assert last.startswith("$: and ")


def test_a_file_that_is_away_is_a_problem_and_is_still_watched(tmp_path: Path) -> None:
    found = read(tmp_path / "nowhere.yaml")

    assert found.digests == {tmp_path / "nowhere.yaml": b""}
    assert "No such file or directory" in str(found.problems[0])


def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """Let the child be another program."""
    script = tmp_path / "child"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("exit 7", "the process that reads it ended with 7"),
        ("kill -9 $$", "the process that reads it ended with -9"),
        ("printf '\\0\\0\\0\\011half'; exit 0", "the process that reads it ended with 0"),
        ("exec sleep 300", "the process that reads it took longer than 0.5 s"),
        (None, "no process can be started to read it: No such file or directory"),
    ],
)
def test_a_child_that_fails_is_a_problem_and_no_digest(
    monkeypatch: pytest.MonkeyPatch, path: Path, text: str | None, problem: str
) -> None:
    monkeypatch.setattr(reading, "READ_SECONDS_MAX", 0.5 if "sleep" in (text or "") else 30)
    if text is None:
        monkeypatch.setattr(sys, "executable", str(path.with_name("nowhere")))
    else:
        program(monkeypatch, path.parent, text)

    found = read(path)

    assert [str(one) for one in found.problems] == [f"{path}: {problem}"]
    assert (found.loaded, found.digests) == (None, {})


def test_a_bug_in_the_child_is_told_without_what_it_is_about(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(HASH)

    monkeypatch.setattr(reading, "load_file", broken)
    out = io.BytesIO()

    write(path, out)

    assert b"a bug of ours: RuntimeError in test_reading.py" in out.getvalue()
    assert HASH.encode() not in out.getvalue()


@pytest.mark.parametrize("is_starting", [False, True], ids=["started", "starting"])
def test_no_child_outlives_whoever_gave_up_on_it(
    monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path, *, is_starting: bool
) -> None:
    number = tmp_path / "number"
    os.mkfifo(number)
    program(monkeypatch, tmp_path, f"echo $$ > {number}; exec sleep 99")
    start = reading._start  # noqa: SLF001  # a moment within it
    started, given_up = threading.Event(), threading.Event()

    def start_slowly(path: Path, nice: int) -> "subprocess.Popen[bytes]":
        child = start(path, nice)
        if is_starting:
            given_up.wait()
        started.set()
        return child

    monkeypatch.setattr(reading, "_start", start_slowly)

    async def give_up() -> int:
        reading_it = asyncio.ensure_future(read_apart(path, {}))
        child = int(await asyncio.to_thread(number.read_text))
        if not is_starting:
            await asyncio.to_thread(started.wait)
        reading_it.cancel()
        await asyncio.sleep(0)
        given_up.set()
        with pytest.raises(asyncio.CancelledError):
            await reading_it
        return child

    with pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(give_up()), 0)


@pytest.mark.parametrize("largest", [0, 1 << 20], ids=["apart", "here"])
def test_a_first_file_is_the_same_wherever_it_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr(reading, "READ_HERE_BYTES_MAX", largest)
    expected = read(path)

    assert read_first(path) == (expected.loaded, expected.digests)

    path.write_text("version: 2")
    with pytest.raises(ConfigError) as refused:
        read_first(path)
    assert refused.value.problems == read(path).problems


def test_tenants_have_what_is_equal_in_common(path: Path) -> None:
    loaded = read(path).loaded
    assert loaded is not None
    plans = [tenant.plan for tenant in loaded.settings.tenants.values()]

    assert len(set(map(id, plans))) == len(set(plans)) < len(plans)
