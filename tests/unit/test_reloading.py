"""extproc/server/reloading.py: when a file is read, and what becomes of what was read."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from extproc.config.digests import digests_of
from extproc.config.loader import Loaded, Problem
from extproc.config.reading import Read
from extproc.policy.tenants import Tenant
from extproc.server import reloading
from extproc.server.reloading import PROBLEMS_LOGGED_MAX, Reloading, Source
from extproc.server.rulebook import Attempt, Rulebook
from extproc.tokens.encodings import EncodingUnavailableError
from tests.unit.config_good import read, spoiled, text_of

NOW: Final = 1789041600.0
GOOD: Final = read(text_of(spoiled({})))
NEW: Final = read(text_of(spoiled({"tenants/new": {"plan": "tin"}})))


class World:
    """A file, and a reader that answers what it is told to, in turn."""

    def __init__(self, path: Path) -> None:
        path.write_text("as it was")
        self.path = path
        self.book = Rulebook(GOOD)
        self.counts: list[str] = []
        self.warmed: list[Collection[str]] = []
        self.answers: list[Callable[[], Read]] = []
        self.unavailable = False
        source = Source(path, digests_of([path]), GOOD.settings)
        self.reloading = Reloading(self.book, source, self, lambda: NOW, self.counts.append)
        self.done = asyncio.Event()
        self.may_watch = asyncio.Event()
        self.may_watch.set()
        self.watches = asyncio.Event()

    def warm(self, encodings: Collection[str]) -> None:
        self.warmed.append(encodings)
        if self.unavailable:
            msg = "llama3 can't be loaded"
            raise EncodingUnavailableError(msg)

    def found(self, loaded: Loaded | None, *problems: Problem) -> Read:
        return Read(digests_of([self.path]), loaded, problems)

    async def read_apart(self, _: Path, __: Mapping[str, Tenant]) -> Read:
        answer = self.answers.pop(0)
        if not self.answers:
            self.done.set()
        return answer()

    async def changes(self, _: object) -> AsyncGenerator[None, None]:
        """Nothing more changes."""
        await self.may_watch.wait()
        yield
        self.watches.set()
        await asyncio.get_running_loop().create_future()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path / "settings.yaml")
    monkeypatch.setattr(reloading, "read_apart", made.read_apart)
    monkeypatch.setattr(reloading, "changes", made.changes)
    monkeypatch.setattr(reloading, "QUIET_SECONDS", 0.0)
    return made


def run(world: World, *answers: Callable[[], Read]) -> None:
    """Let it run until all answers were asked for, and one more look was taken."""
    world.answers.extend(answers)

    async def go() -> None:
        running = asyncio.ensure_future(world.reloading.run())
        async with asyncio.timeout(30):
            await world.watches.wait()
            if answers:
                await world.done.wait()
            await looked(world)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(go())


async def looked(world: World) -> None:
    """Wait until it waits: whatever woke it up has been looked at."""
    waiting: Any = world.reloading._wake  # noqa: SLF001  # nothing else tells that it does nothing
    while waiting.is_set() or not waiting._waiters:  # noqa: SLF001  # as above
        await asyncio.to_thread(int)


def test_a_file_that_is_the_same_is_not_read(world: World) -> None:
    world.path.write_text("as it was")

    run(world)

    assert (world.counts, world.book.last_attempt) == ([], None)


def test_no_file_is_looked_at_before_it_is_watched(world: World) -> None:
    """Or what changes in between would never be noticed."""
    world.path.write_text("new")
    world.may_watch.clear()

    async def go() -> None:
        running = asyncio.ensure_future(world.reloading.run())
        async with asyncio.timeout(30):
            await looked(world)
            assert world.book.last_attempt is None
            world.may_watch.set()
            await world.watches.wait()
            await looked(world)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    world.answers.append(lambda: world.found(NEW))
    asyncio.run(go())

    assert world.book.loaded == NEW


def test_whoever_asks_gets_it_read_all_the_same(world: World) -> None:
    world.reloading.ask()

    run(world, lambda: world.found(NEW))

    assert (world.counts, world.book.loaded) == (["taken"], NEW)
    assert world.book.last_attempt == Attempt(NOW)


def test_encodings_are_there_before_the_swap(world: World) -> None:
    world.path.write_text("new")
    world.unavailable = True

    run(world, lambda: world.found(NEW))

    assert world.warmed == [{"o200k_base", "llama3"}]
    assert (world.counts, world.book.loaded) == (["refused"], GOOD)
    assert world.book.last_attempt == Attempt(NOW, ("$.models: llama3 can't be loaded",))


def test_what_changed_once_more_while_it_was_read_is_read_again(world: World) -> None:
    def half() -> Read:
        world.path.write_text("whole")
        return Read(digests_of([world.path]), GOOD)

    world.path.write_text("half")

    run(world, half, lambda: world.found(NEW))

    assert (world.counts, world.book.loaded) == (["taken"], NEW)


def test_a_reader_that_fails_is_asked_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "RETRY_SECONDS", 0.0)
    world.path.write_text("new")

    run(world, lambda: Read({}, None, (Problem("f", "killed"),)), lambda: world.found(NEW))

    assert (world.counts, world.book.loaded) == (["refused", "taken"], NEW)


def test_a_bug_of_ours_is_told_and_the_next_change_is_followed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Read:
        world.reloading.ask()
        msg = "5ecret"
        raise ValueError(msg)

    world.path.write_text("new")

    run(world, broken, lambda: world.found(NEW))

    assert (world.counts, world.book.loaded) == (["refused", "taken"], NEW)
    assert "settings.failed ValueError" in caplog.text
    assert "5ecret" not in caplog.text


def test_a_log_does_not_fill_up_with_problems(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    problems = [Problem(f"$.{number}", "wrong") for number in range(PROBLEMS_LOGGED_MAX + 3)]
    world.path.write_text("new")

    run(world, lambda: world.found(None, *problems))

    head, *lines = caplog.messages[0].splitlines()
    assert head == "settings.refused: those before stay in force"
    assert (len(lines), lines[-1]) == (PROBLEMS_LOGGED_MAX + 1, "  and 3 more")
    assert world.book.last_attempt == Attempt(NOW, tuple(map(str, problems)))
