"""Files that are watched: when they may have changed.

The system tells (inotify) of the file and of every symbolic link on the way to it, since a
ConfigMap changes by a link, `..data`, that is renamed over the one before. Besides their times are
looked at, for file systems that tell nothing. What is in them is `digests`' business.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final, NamedTuple

from watchfiles import awatch

POLL_SECONDS: Final = 1.0
"""How often the files' times are looked at, whatever the system tells."""

DEBOUNCE_MS: Final = 200
STEP_MS: Final = 100
"""How often whoever watches wakes up. Each time it needs the interpreter for microseconds."""

LINKS_MAX: Final = 40
"""On the way to one file; Linux follows as many."""

_log = logging.getLogger(__name__)
logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of each change


def trail(path: Path) -> list[Path]:
    """All that decides what `path` leads to: each link on the way, and the file in the end.

    The directories of these are real ones, without links.
    """
    found: list[Path] = []
    absolute = path.absolute()
    at, ahead = Path(absolute.anchor), list(absolute.parts[1:])
    while ahead:
        at = at.parent if (step := ahead.pop(0)) == ".." else at / step
        target = _target(at)
        if target is None:
            continue
        found.append(at)
        if len(found) > LINKS_MAX:
            return found
        at = Path(target.anchor) if target.is_absolute() else at.parent
        ahead = [*target.parts[1 if target.is_absolute() else 0 :], *ahead]
    return [*found, at]


def _target(path: Path) -> Path | None:
    try:
        return path.readlink()
    except OSError:
        return None


class _Watched(NamedTuple):
    """What the system is asked to tell about. Other directories: it must be asked anew."""

    names: frozenset[Path]
    directories: frozenset[tuple[Path, int]]
    """With their inodes: one that was made anew is another one."""


async def changes(files: Callable[[], Collection[Path]]) -> AsyncGenerator[None, None]:
    """Yield whenever one of the `files` may have changed, until the caller closes this.

    First at once: what is read after that, and changes later, is told.
    """
    marks = _marks(files())
    yield
    while True:
        watched = _watched(files())
        async with aclosing(_moments(watched)) as moments:
            async for is_told in moments:
                before, marks = marks, _marks(files())
                if is_told or marks != before:
                    yield
                if _watched(files()) != watched:
                    break


async def _moments(watched: _Watched) -> AsyncGenerator[bool, None]:
    """Yield True when the system tells of a change, False when some time went by."""
    directories = sorted(path for path, _ in watched.directories)
    events = awatch(
        *directories,
        watch_filter=lambda _, name: Path(name) in watched.names,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        rust_timeout=int(POLL_SECONDS * 1000),
        yield_on_timeout=True,
        recursive=False,
    )
    try:
        async with aclosing(events):
            async for found in events:
                yield bool(found)
    except (OSError, RuntimeError, ExceptionGroup) as error:
        _log.warning("settings.polled every %g s: %s", POLL_SECONDS, type(error).__name__)
    while True:
        await asyncio.sleep(POLL_SECONDS)
        yield False


def _watched(files: Iterable[Path]) -> _Watched:
    names = frozenset(name for path in files for name in trail(path))
    directories = set()
    for name in names:
        try:
            directories.add((name.parent, name.parent.stat().st_ino))
        except OSError:
            continue
    return _Watched(names, frozenset(directories))


def _marks(files: Iterable[Path]) -> dict[Path, tuple[int, ...]]:
    """What changes with a file's contents, without reading it; no entry where there is none."""
    marks: dict[Path, tuple[int, ...]] = {}
    for path in files:
        try:
            found = path.stat()
        except OSError:
            continue
        times = (found.st_mtime_ns, found.st_ctime_ns)
        marks[path] = (found.st_dev, found.st_ino, found.st_size, *times)
    return marks
