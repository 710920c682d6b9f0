"""What comes of a call: DATA frames in, whole messages out to its handler.

A message that comes as one frame never gets here: `Connection.receive` hands it over itself.
"""

from struct import Struct
from typing import Final, Protocol

from extproc.server.h2 import answers
from extproc.server.h2.answers import PREFIX_BYTES
from extproc.server.h2.frames import window_update
from extproc.server.h2.heads import Head
from extproc.server.h2.link import Link

unpack_prefix: Final = Struct(">BI").unpack_from


class Handler(Protocol):
    """Takes what comes of one call. None of these may take long; what raises ends the call."""

    def on_message(self, message: bytes) -> None:
        """Take one message."""

    def on_end(self) -> None:
        """Hear that no more messages come."""

    def on_cancel(self) -> None:
        """Hear that nobody listens any more. Not said of a call that was finished before."""


class Nobody:
    """The handler of a call that is over: hears nothing, does nothing."""

    def on_message(self, message: bytes) -> None:
        """Let it go."""

    def on_end(self) -> None:
        """Let it go."""

    def on_cancel(self) -> None:
        """Let it go."""


NOBODY: Final = Nobody()


class Inbound:
    """The receiving half of a call; the call itself sets it up, in one go."""

    __slots__ = (
        "_is_draining",
        "_is_paused",
        "_is_told",
        "_link",
        "_rest",
        "handler",
        "head",
        "id",
        "is_ended",
        "is_open",
        "is_plain",
        "length_left",
        "window",
    )

    _link: Link
    id: int
    head: Head
    handler: Handler
    window: int
    """What the peer may send before it hears from us."""
    length_left: int | None
    """What is missing of the content-length, if there is one."""
    is_open: bool
    """Whether an answer may still be given."""
    is_plain: bool
    """Whether a message that comes as one frame needs no other look."""
    is_ended: bool
    """Whether the peer has said all."""
    _rest: bytearray | None
    _is_paused: bool
    _is_draining: bool
    _is_told: bool

    def begin(self, handler: Handler) -> None:
        """Have this handler from now on, unless the call is over already."""
        if self.is_open:
            self.handler = handler

    def finish(self, status: int = answers.OK, text: str = "") -> None:
        """End the call."""
        raise NotImplementedError

    def pause(self) -> None:
        """Hold back further messages until `resume`; the peer can send no more than a window."""
        self._is_paused = True
        self.is_plain = False

    def resume(self) -> None:
        """Hand over what was held back."""
        if not self._is_paused:
            return
        self._is_paused = False
        if self.is_open and not self._is_draining and self.handler is not NOBODY:
            self.drain()
            self.refill()

    def take(self, payload: bytes) -> None:
        """Add what came."""
        if self.length_left is not None:
            self.length_left -= len(payload)
        if not self.is_open or not payload:
            return
        if self._rest is None:
            self._rest = bytearray()
        self._rest += payload
        self.is_plain = False
        held = self._link.held
        held.bytes += len(payload)
        if not self._is_paused and not self._is_draining:
            self.drain()
        if held.bytes > self._link.limits.held_bytes_max and self._rest is not None:
            self.finish(answers.RESOURCE_EXHAUSTED, "too much in flight")

    def end(self) -> None:
        """Hear that the peer has said all."""
        self.is_ended = True
        self.is_plain = False
        if self.is_open and not self._is_paused and not self._is_draining:
            self.drain()

    def drain(self) -> None:
        """Hand over every message that is there as a whole, and then the end if it came."""
        rest = self._rest
        self._is_draining = True
        at = 0
        while rest is not None and self.is_open and not self._is_paused:
            size = self._size_at(rest, at)
            if size is None:
                break
            start = at + PREFIX_BYTES
            at = start + size
            with memoryview(rest) as view:
                message = bytes(view[start:at])
            self.hand_over(message)
        self._is_draining = False
        if self._rest is not None:
            del self._rest[:at]
            self._link.held.bytes -= at
            if not self._rest:
                self._rest = None
        if not self.is_open or self._is_paused:
            return
        if not self.is_ended:
            self.is_plain = self._rest is None and self.head.is_plain
        elif self._rest is not None:
            self.finish(answers.INTERNAL, "half a message")
        elif not self._is_told:
            self._is_told = True
            try:
                self.handler.on_end()
            except Exception as error:  # noqa: BLE001  # a barrier between calls
                self.fail(error)

    def hand_over(self, message: bytes) -> None:
        """Let the handler have one message."""
        try:
            self.handler.on_message(message)
        except Exception as error:  # noqa: BLE001  # a barrier between calls
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End the call because of a bug, of which the peer learns nothing."""
        self._link.on_bug(error)
        self.finish(answers.INTERNAL, "internal error")

    def refill(self) -> None:
        """Let the peer send more, unless what it sent is still held back."""
        size = self._link.limits.stream_window - self.window
        if size > self.window and self.is_open and not self.is_ended and not self._is_paused:
            self.window += size
            self._link.append(window_update(self.id, size))

    def _size_at(self, rest: bytearray, at: int) -> int | None:
        """The size of the next message; None if it isn't there yet, or never will be."""
        if len(rest) - at < PREFIX_BYTES:
            return None
        compressed, size = unpack_prefix(rest, at)
        if compressed == 1 and self.head.encoding != b"identity":
            self.finish(answers.UNIMPLEMENTED, "compression is not supported")
        elif compressed:
            self.finish(answers.INTERNAL, "compressed, but not said how")
        elif size > self._link.limits.message_bytes_max:
            self.finish(answers.RESOURCE_EXHAUSTED, "message too large")
        elif len(rest) - at - PREFIX_BYTES >= size:
            return int(size)
        return None

    def _let_go(self) -> None:
        """Forget what was held."""
        if self._rest is not None:
            self._link.held.bytes -= len(self._rest)
            self._rest = None
