"""extproc/config/watching.py and digests.py: real files, and what is noticed of them."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import pytest
import watchfiles

from extproc.config import watching
from extproc.config.digests import UNREADABLE, digests_of
from extproc.config.watching import LINKS_MAX, changes, trail

SECONDS_MAX: Final = 30.0


def noticed(files: Callable[[], list[Path]], *steps: Callable[[], object]) -> int:
    """Take each step once what the one before changed was noticed; say how many were.

    Fails if one never is.
    """

    async def watch() -> int:
        count = 0
        async with aclosing(changes(files)) as moments:
            await anext(moments)
            for step in steps:
                waiting = asyncio.ensure_future(anext(moments))
                await asyncio.sleep(0)  # from here on it watches
                step()
                async with asyncio.timeout(SECONDS_MAX):
                    await waiting
                count += 1
        return count

    return asyncio.run(watch())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path.resolve() / "directory" / "file"
    path.parent.mkdir()
    path.write_text("one")
    return path


def replace(path: Path, text: str) -> None:
    new = path.with_name("new")
    new.write_text(text)
    new.rename(path)


async def deaf(*directories: Path, **_: object) -> AsyncGenerator[set[Any], None]:
    """A system that can't tell of changes: too many are watching, or it has no inotify."""
    if directories:
        msg = "OS file watch limit reached"
        raise OSError(msg)
    yield set()


@pytest.fixture(params=["told", "polled"])
def _means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "polled":
        monkeypatch.setattr(watching, "awatch", deaf)


@pytest.mark.usefixtures("_means")
def test_each_way_to_change_a_file_is_noticed(file: Path) -> None:
    steps = (
        lambda: file.write_text("two"),
        lambda: replace(file, "three"),
        file.unlink,
        lambda: file.write_text("four"),
    )

    assert noticed(lambda: [file], *steps) == len(steps)


@pytest.mark.usefixtures("_means")
def test_a_link_on_the_way_that_leads_elsewhere_is_noticed(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "data").symlink_to("a")
    (tmp_path / "link").symlink_to("data/file")

    def swap() -> None:
        (tmp_path / "tmp").symlink_to("b")
        (tmp_path / "tmp").rename(tmp_path / "data")

    steps = (swap, lambda: (tmp_path / "b" / "file").write_text("changed"))
    assert noticed(lambda: [tmp_path / "link"], *steps) == len(steps)


@pytest.mark.usefixtures("_means")
def test_what_changes_after_the_first_moment_is_noticed(file: Path) -> None:
    async def watch() -> None:
        async with aclosing(changes(lambda: [file])) as moments, asyncio.timeout(SECONDS_MAX):
            await anext(moments)
            replace(file, "two")  # nothing watches yet
            await anext(moments)

    asyncio.run(watch())


def asked_anew(
    monkeypatch: pytest.MonkeyPatch, files: list[Path], *steps: Callable[[], object]
) -> None:
    """See that the system tells of the last step, whose place it was not asked about at first.

    Times tell nothing here: what is noticed was told.
    """
    real = watchfiles.awatch
    directories: list[tuple[Path, ...]] = []
    monkeypatch.setattr(watching, "_marks", lambda _: {})

    async def watch() -> None:
        anew = asyncio.Event()

        def awatch(*asked: Path, **more: Any) -> AsyncGenerator[Any, None]:
            directories.append(asked)
            if len(directories) > 1:
                anew.set()
            return real(*asked, **more)

        monkeypatch.setattr(watching, "awatch", awatch)
        noticed = asyncio.Queue[None]()

        async def follow() -> None:
            async with aclosing(changes(lambda: files)) as moments:
                await anext(moments)
                async for _ in moments:
                    noticed.put_nowait(None)

        following = asyncio.ensure_future(follow())
        await asyncio.sleep(0)  # from here on it watches
        async with asyncio.timeout(SECONDS_MAX):
            for step in steps[:-1]:
                step()
            await anew.wait()
            while not noticed.empty():
                noticed.get_nowait()
            steps[-1]()
            await noticed.get()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(watch())


def test_a_directory_that_was_made_anew_is_watched_anew(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remake() -> None:
        file.parent.rename(file.parent.with_name("old"))
        file.parent.mkdir()
        file.write_text("new")

    asked_anew(monkeypatch, [file], remake, lambda: replace(file, "newer"))


def test_files_that_are_named_later_are_watched_too(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    files = [file]

    def name_another() -> None:
        files.append(other)
        file.write_text("names another")

    asked_anew(monkeypatch, files, name_another, lambda: other.write_text("x"))


def test_a_system_that_cannot_tell_is_said_once(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "awatch", deaf)

    noticed(lambda: [file], lambda: replace(file, "two"), lambda: replace(file, "three"))

    assert caplog.messages == ["settings.polled every 1 s: OSError"]


def test_a_trail_has_every_link_and_the_file(tmp_path: Path) -> None:
    real = tmp_path.resolve()
    (real / "..1").mkdir()
    (real / "..1" / "file").write_text("x")
    (real / "..data").symlink_to("..1")
    (real / "file").symlink_to("..data/file")
    (real / "far").symlink_to(real / "file")
    (real / "up").symlink_to("..1/../file")

    inside = [real / "file", real / "..data", real / "..1" / "file"]
    assert trail(real / "far") == [real / "far", *inside]
    assert trail(real / "up") == [real / "up", *inside]
    assert trail(real / "nowhere" / "file") == [real / "nowhere" / "file"]


def test_a_link_to_itself_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")

    assert len(trail(tmp_path / "loop")) == LINKS_MAX + 1


def test_digests_tell_what_is_in_files(file: Path, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")
    paths = [file, tmp_path / "nowhere", tmp_path / "binary"]
    before = digests_of(paths)
    assert [before[path] == UNREADABLE for path in paths] == [False, True, True]

    replace(file, "one")
    assert digests_of(paths) == before

    file.write_text("two")
    assert digests_of(paths) != before
