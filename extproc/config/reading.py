"""Settings read by a process of their own, so that decisions go on while a large file is read.

YAML keeps the interpreter busy in whichever thread it is read. So a child reads and checks, and
writes what it found in frames, each small enough to be taken between two decisions: a `Found`;
then, if nothing is wrong, the tenants and the keys, `ENTRIES_PER_FRAME` at a time. A frame begins
with its length, four bytes, the largest first.
"""

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeVar

import msgspec

from extproc.config.digests import Recorder
from extproc.config.loader import ConfigError, Loaded, Problem, load_file
from extproc.config.settings import Settings
from extproc.policy.tenants import Tenant

READ_SECONDS_MAX: Final = 300.0
"""Beyond it the child is ended. 100,000 tenants take 10 s of a free core."""

ENTRIES_PER_FRAME: Final = 100
"""Tenants or keys; the former take about a millisecond."""

PROBLEMS_MAX: Final = 100
"""Told of one file; the others are counted."""

NICE: Final = 10
"""Decisions come first where both want the same core."""

LENGTH_BYTES: Final = 4

READ_HERE_BYTES_MAX: Final = 1 << 20
"""Of a first file. Reading a larger one here leaves holes in memory for good: 2 KB a tenant."""

Value = TypeVar("Value")


class Found(msgspec.Struct, frozen=True):
    """What the child found; `settings`, without tenants, are None where there are problems."""

    digests: dict[str, bytes]
    problems: list[Problem]
    problems_left_out: int = 0
    settings: Settings | None = None
    tenants: int = 0
    keys: int = 0


class Read(NamedTuple):
    """What is to be taken over: sound settings, or the problems with them.

    `digests` are those of each file that was read, whatever came of it.
    """

    digests: Mapping[Path, bytes]
    loaded: Loaded | None
    problems: tuple[Problem, ...] = ()


class _CutOffError(Exception):
    """The child ended before all was there."""


_FOUND: Final = msgspec.msgpack.Decoder(Found)
_TENANTS: Final = msgspec.msgpack.Decoder(list[tuple[str, Tenant]])
_KEYS: Final = msgspec.msgpack.Decoder(list[tuple[str, str]])


async def read_apart(path: Path, known: Mapping[str, Tenant], *, nice: int = NICE) -> Read:
    """Read the settings file at `path` in another process.

    A tenant that is the same as in `known` is that one: what didn't change takes no memory.
    """
    try:
        async with asyncio.timeout(READ_SECONDS_MAX):
            return await _read_apart(path, known, nice)
    except TimeoutError:
        message = f"the process that reads it took longer than {READ_SECONDS_MAX:g} s"
    except OSError as error:
        message = f"no process can be started to read it: {error.strerror}"
    except _CutOffError as error:
        message = f"the process that reads it ended with {error}"
    return Read({}, None, (Problem(str(path), message),))


def read_first(path: Path) -> tuple[Loaded, Mapping[Path, bytes]]:
    """Read the settings file at `path`, before there is a loop; and the digests of what was read.

    Raises:
        ConfigError: the settings are wrong, or can't be read; it holds the problems.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size > READ_HERE_BYTES_MAX:
            read = asyncio.run(read_apart(path, {}, nice=0))
            if read.loaded is None:
                raise ConfigError(read.problems)
            return read.loaded, read.digests
    recorder = Recorder()
    return load_file(path, read=recorder.read), recorder.digests


async def _read_apart(path: Path, known: Mapping[str, Tenant], nice: int) -> Read:
    async with _child(path, nice) as child:
        frames = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(frames)
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(lambda: protocol, child.stdout)
        try:
            return await _take(frames, known)
        except asyncio.IncompleteReadError:
            raise _CutOffError(await asyncio.to_thread(child.wait)) from None
        finally:
            pipe.close()


@asynccontextmanager
async def _child(path: Path, nice: int) -> AsyncIterator["subprocess.Popen[bytes]"]:
    starting = asyncio.ensure_future(asyncio.to_thread(_start, path, nice))
    try:
        yield await asyncio.shield(starting)
    finally:
        await asyncio.shield(_end(starting))


async def _end(starting: "asyncio.Future[subprocess.Popen[bytes]]") -> None:
    """End a child, also one that whoever gave up has not seen started."""
    child = await starting
    with child:  # closes its pipe, which nobody may have taken over
        child.kill()
        await asyncio.to_thread(child.wait)


def _start(path: Path, nice: int) -> "subprocess.Popen[bytes]":
    """Start the child.

    Not by asyncio: uvloop forks, and gRPC's threads make the child crash now and then before it
    gets to its program. CPython asks for vfork, which runs nothing of gRPC's in between.
    """
    return subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, "-P", "-m", "extproc.config.reading", path, str(nice)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a traceback may quote a key
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


async def _take(frames: asyncio.StreamReader, known: Mapping[str, Tenant]) -> Read:
    """Take what a child writes, with a pause after each frame."""
    found = _FOUND.decode(await _next(frames))
    digests = {Path(name): digest for name, digest in found.digests.items()}
    if found.settings is None:
        problems = found.problems
        if found.problems_left_out:
            problems.append(Problem("$", f"and {found.problems_left_out} problems more"))
        return Read(digests, None, tuple(problems))
    tenants: dict[str, Tenant] = {}
    common: dict[object, object] = {}
    while len(tenants) < found.tenants:
        for name, tenant in _TENANTS.decode(await _next(frames)):
            old = known.get(name)
            if old == tenant:
                tenants[name] = old
            else:
                share(tenant, common)
                tenants[name] = tenant
        _keep_untraced()
    keys: dict[str, str] = {}
    while len(keys) < found.keys:
        keys.update(_KEYS.decode(await _next(frames)))
    settings = msgspec.structs.replace(found.settings, tenants=tenants)
    return Read(digests, Loaded(settings, keys))


def share(tenant: Tenant, common: dict[object, object]) -> None:
    """Let what tenants have in common be one object: their plans, names and windows of budgets."""
    put = msgspec.structs.force_setattr  # nobody else has seen it yet
    put(tenant, "plan", common.setdefault(tenant.plan, tenant.plan))
    for budget in tenant.budgets:
        put(budget, "id", common.setdefault(budget.id, budget.id))
        put(budget, "window", common.setdefault(budget.window, budget.window))


def _keep_untraced() -> None:
    """Take what is there out of the garbage collector's sight, but for fresh garbage.

    It stays for long, and tracing 100,000 tenants would hold up decisions for 100 ms and more.
    """
    gc.collect(1)
    gc.freeze()


async def _next(frames: asyncio.StreamReader) -> bytes:
    await asyncio.sleep(0)
    length = int.from_bytes(await frames.readexactly(LENGTH_BYTES))
    return await frames.readexactly(length)


def write(path: Path, out: BinaryIO) -> None:
    """Be the child: read `path` and write down what is found."""
    recorder = Recorder()
    loaded, problems = None, list[Problem]()
    try:
        loaded = load_file(path, read=recorder.read)
    except ConfigError as error:
        problems = list(error.problems)
    except Exception as error:  # noqa: BLE001  # told in our own words: it may quote a key
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        problems = [Problem(str(path), f"a bug of ours: {type(error).__name__} in {where}")]
    digests = {str(name): digest for name, digest in recorder.digests.items()}
    if loaded is None:
        told = problems[:PROBLEMS_MAX]
        _write(out, Found(digests, told, len(problems) - len(told)))
        return
    tenants, keys = loaded.settings.tenants, loaded.keys
    settings = msgspec.structs.replace(loaded.settings, tenants={})
    _write(out, Found(digests, [], 0, settings, len(tenants), len(keys)))
    for part in (*_parts(tenants), *_parts(keys)):
        _write(out, part)


def _parts(entries: Mapping[str, Value]) -> Iterator[list[tuple[str, Value]]]:
    left = iter(entries.items())
    while part := list(islice(left, ENTRIES_PER_FRAME)):
        yield part


def _write(out: BinaryIO, value: object) -> None:
    frame = msgspec.msgpack.encode(value)
    out.write(len(frame).to_bytes(LENGTH_BYTES) + frame)


if __name__ == "__main__":
    os.nice(int(sys.argv[2]))
    gc.disable()  # nothing of what is read is garbage
    write(Path(sys.argv[1]), sys.stdout.buffer)
