"""Settings that change while we serve: read apart, looked at whole, swapped by one reference.

1.  A file is read once it has stayed the same for `QUIET_SECONDS`: whatever comes sooner is one
    change, and half a file is none.
2.  Whatever is wrong changes nothing, and is told: in the log, the metrics, and the admin server.
3.  Nothing is slow between two decisions: encodings are loaded before the swap, tenants that
    left are forgotten bit by bit.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

from extproc.config.digests import digests_of
from extproc.config.lasting import kept
from extproc.config.loader import Loaded, Problem
from extproc.config.reading import read_apart
from extproc.config.settings import Settings
from extproc.config.watching import changes
from extproc.policy.tenants import Tenant
from extproc.server.rulebook import Rulebook
from extproc.tokens.encodings import EncodingUnavailableError

QUIET_SECONDS: Final = 0.2
"""How long a file must stay as it is before it is read."""

RETRY_SECONDS: Final = 30.0
"""Until what failed for no fault of the file is tried again."""

FORGET_SECONDS: Final = 5.0
FORGOTTEN_PER_TURN: Final = 100
"""Tenants: less than a tenth of a millisecond."""

PROBLEMS_LOGGED_MAX: Final = 20

Result = Literal["taken", "refused"]

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """The file that the settings came from, what was in it and in those it names, and meant."""

    path: Path
    digests: Mapping[Path, bytes]
    settings: Settings


class Warming(Protocol):
    """Loads encodings, so that no request waits for one."""

    def warm(self, encodings: Collection[str]) -> None:
        """Load them. Raises EncodingUnavailableError."""


class Reloading:
    """Follows `source`. `count` is told how each reload went."""

    def __init__(
        self,
        rulebook: Rulebook,
        source: Source,
        counter: Warming,
        clock: Callable[[], float],
        count: Callable[[Result], None],
    ) -> None:
        self._rulebook = rulebook
        self._source = source
        self._counter = counter
        self._clock = clock
        self._count = count
        self._digests = dict(source.digests)
        self._is_forced = False
        self._wake = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    def ask(self) -> None:
        """Read the file anew, whether or not it has changed."""
        self._is_forced = True
        self._wake.set()

    async def run(self) -> None:
        """Follow the file until cancelled. Never fails."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._watch())
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._look()
                except Exception as error:  # noqa: BLE001  # what is in force stays so
                    _say_where("settings.failed", error)
                    self._refuse((Problem("$", f"a bug of ours: {type(error).__name__}"),))

    async def _watch(self) -> None:
        while True:
            try:
                async with aclosing(changes(lambda: tuple(self._digests))) as moments:
                    async for _ in moments:
                        self._wake.set()
            except Exception as error:  # noqa: BLE001  # whatever it is, settings must be followed
                _say_where("settings.unwatched", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _look(self) -> None:
        """Take the file over, if it has changed or if we were asked to."""
        found = await asyncio.to_thread(digests_of, self._digests)
        if found == self._digests and not self._is_forced:
            return
        while True:
            await asyncio.sleep(QUIET_SECONDS)
            before, found = found, await asyncio.to_thread(digests_of, self._digests)
            if found == before:
                break
        path = self._source.path
        read = await read_apart(path, self._rulebook.loaded.settings.tenants)
        if any(read.digests.get(name, digest) != digest for name, digest in found.items()):
            self._wake.set()  # it changed once more, just now
            return
        self._is_forced = False
        self._digests = {**found, **read.digests}
        if not read.digests:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self.ask)
        if read.loaded is None:
            self._refuse(read.problems)
        else:
            await self._take(read.loaded)

    async def _take(self, loaded: Loaded) -> None:
        rulebook = self._rulebook
        old = rulebook.loaded.settings
        new = kept(loaded.settings, running=old, begun=self._source.settings)
        encodings = {model.encoding for model in new.settings.models.values()}
        try:
            await asyncio.to_thread(self._counter.warm, encodings)
        except EncodingUnavailableError as error:
            self._refuse((Problem("$.models", str(error)),))
            return
        rulebook.take(loaded._replace(settings=new.settings), self._clock(), new.needs_restart)
        self._tasks.create_task(_forget(list(old.tenants), list(old.tenants.values())))
        self._count("taken")
        _log.info("settings.taken %d tenants", len(new.settings.tenants))
        for name in new.needs_restart:
            _log.warning("settings.needs_restart %s: changed in the file, not in force", name)

    def _refuse(self, problems: tuple[Problem, ...]) -> None:
        self._rulebook.refuse(tuple(map(str, problems)), self._clock())
        self._count("refused")
        told = [*map(str, problems[:PROBLEMS_LOGGED_MAX])]
        if len(problems) > len(told):
            told.append(f"and {len(problems) - len(told)} more")
        _log.error(
            "settings.refused: those before stay in force\n%s",
            "\n".join(f"  {line}" for line in told),
        )


async def _forget(names: list[str], tenants: list[Tenant]) -> None:
    """Let go of what is not in force any more: all at once would hold up decisions.

    First whatever began with it ends.
    """
    await asyncio.sleep(FORGET_SECONDS)
    while tenants:
        del names[-FORGOTTEN_PER_TURN:], tenants[-FORGOTTEN_PER_TURN:]
        await asyncio.sleep(0)


def _say_where(what: str, error: Exception) -> None:
    """Log where it failed, but not the message: it may quote a key."""
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s %s\n%s", what, type(error).__name__, where)
