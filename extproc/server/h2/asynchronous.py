"""Handlers that need a task: where something has to be waited for."""

import asyncio
import logging
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

import grpc

from extproc.server.h2 import answers
from extproc.server.h2.call import Call
from extproc.server.h2.heads import Head

MESSAGES_MAX: Final = 16
"""Of one call, taken from the connection and not read yet; then the peer has to wait."""

T = TypeVar("T")
S = TypeVar("S")

_log = logging.getLogger(__name__)
_running: Final[set["asyncio.Task[None]"]] = set()


def background(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """Run this beside everything else. What it raises is logged."""
    task = asyncio.get_running_loop().create_task(work)
    _running.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: "asyncio.Task[None]") -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log_bug("task.failed", error)


def log_bug(event: str, error: BaseException) -> None:
    """Say where it was, but not its message: that may quote a prompt or a key."""
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s %s\n%s", event, type(error).__name__, where)


async def finished(seconds: float) -> None:
    """Wait until nothing runs in the background of this loop any more, but no longer than this."""
    loop = asyncio.get_running_loop()
    ours = [task for task in _running if task.get_loop() is loop]
    if ours:
        await asyncio.wait(ours, timeout=seconds)


class Resumed(Generic[T]):
    """A coroutine that was begun by hand, and goes on within a task.

    It was sent `None` once, and `waits_for` is what it yielded: what asyncio has it wait for.
    """

    def __init__(self, work: Coroutine[Any, Any, T], waits_for: object) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, T]:
        waits_for = self._waits_for
        while True:
            try:
                try:
                    sent = yield waits_for
                except BaseException as error:  # noqa: BLE001  # it is the coroutine's
                    waits_for = self._work.throw(error)
                else:
                    waits_for = self._work.send(sent)
            except StopIteration as done:
                value: T = done.value
                return value


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run this now, and what it has to wait for in the background."""
    try:
        waits_for = work.send(None)
    except StopIteration:
        return
    except Exception as error:  # noqa: BLE001  # whoever asked has gone on
        log_bug("task.failed", error)
    else:
        background(_rest_of(Resumed(work, waits_for)))


async def _rest_of(work: Resumed[None]) -> None:
    await work


class Answering(Protocol):
    """As much of a `Call` as those need who only answer it."""

    @property
    def is_open(self) -> bool:
        """Whether anybody still listens."""

    @property
    def head(self) -> Head:
        """What it began with."""

    @property
    def is_late(self) -> bool:
        """Whether what comes now has waited for too long."""

    def expect(self) -> None:
        """Say that another message was asked for."""

    def expect_no_more(self) -> None:
        """Say that it has come, or never will."""

    def took(self, seconds: float) -> None:
        """Say how long one worked on it."""

    def send(self, message: bytes) -> None:
        """Send an answer."""

    def finish(self, status: int = answers.OK, text: str = "") -> None:
        """End the call."""

    def pause(self) -> None:
        """Take no more messages for now."""

    def resume(self) -> None:
        """Take them again."""


class Requests(Generic[T]):
    """The messages of a call, to be read one by one. The peer waits for whoever reads."""

    def __init__(self, call: Answering, decode: Callable[[bytes], T]) -> None:
        self._call = call
        self._decode = decode
        self._messages: deque[bytes] = deque()
        self._is_ended = False
        self._came: asyncio.Future[None] | None = None

    def __aiter__(self) -> "Requests[T]":
        return self

    async def __anext__(self) -> T:
        while not self._messages:
            if self._is_ended:
                raise StopAsyncIteration
            self._came = asyncio.get_running_loop().create_future()
            await self._came
        data = self._messages.popleft()
        if not self._messages:
            self._call.resume()
        return self._decode(data)

    def put(self, message: bytes) -> None:
        """Add one message."""
        self._messages.append(message)
        if len(self._messages) >= MESSAGES_MAX:
            self._call.pause()
        self._tell()

    def end(self) -> None:
        """Say that there are no more."""
        self._is_ended = True
        self._tell()

    def _tell(self) -> None:
        if self._came is not None and not self._came.done():
            self._came.set_result(None)


class AbortError(Exception):
    """A call is to end with a status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Context:
    """As much of `grpc.aio.ServicerContext` as our services use."""

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        """End the call with this status."""
        raise AbortError(code.value[0], details)


class Unary(Generic[T, S]):
    """A call of one message, which `method` answers with one."""

    def __init__(
        self,
        method: Callable[[T, Context], Awaitable[S]],
        decode: Callable[[bytes], T],
        encode: Callable[[S], bytes],
        call: Call,
    ) -> None:
        self._method = method
        self._decode = decode
        self._encode = encode
        self._call = call
        self._message: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    def on_message(self, message: bytes) -> None:
        """Take the one."""
        if self._message is not None:
            self._call.finish(answers.UNIMPLEMENTED, "more than one message")
        self._message = message

    def on_end(self) -> None:
        """Answer it."""
        if self._message is None:
            self._call.finish(answers.UNIMPLEMENTED, "no message")
        else:
            self._task = background(self._answer(self._message))

    def on_cancel(self) -> None:
        """Give it up."""
        if self._task is not None:
            self._task.cancel()

    async def _answer(self, message: bytes) -> None:
        try:
            request = self._decode(message)
            self._call.send(self._encode(await self._method(request, Context())))
        except AbortError as error:
            self._call.finish(error.status, error.text)
        except Exception as error:  # noqa: BLE001  # a barrier between calls
            log_bug("call.failed", error)
            self._call.finish(answers.INTERNAL, "internal error")
        else:
            self._call.finish()
