"""The half of a connection that sends, as its calls share it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from extproc.server.h2 import answers
from extproc.server.h2.frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    WINDOW_DEFAULT,
    Code,
    frame,
    rst_stream,
)
from extproc.server.h2.limits import Held, Limits
from extproc.server.h2.waits import Waits

if TYPE_CHECKING:
    from extproc.server.h2.call import Call


class Link:
    """What the calls of a connection share in order to send."""

    def __init__(
        self,
        limits: Limits,
        held: Held,
        clock: Callable[[], float],
        wake: Callable[[], None],
        on_bug: Callable[[Exception], None],
    ) -> None:
        self.limits = limits
        self.held = held
        self.clock = clock
        self.wake = wake
        self.on_bug = on_bug
        self.out: list[bytes] = []
        self.credit = WINDOW_DEFAULT
        self.initial_credit = WINDOW_DEFAULT
        self.calls: dict[int, Call] = {}
        """By stream, those whose end has not gone out yet."""
        self.cut: dict[int, None] = {}
        """Streams that we ended before the peer did."""
        self.timed: dict[int, tuple[float, Call]] = {}
        """Calls with a deadline."""
        self.queues: dict[int, Call] = {}
        """Calls that wait for a window, theirs or the connection's."""
        self.waiting: dict[int, Call] = {}
        """Those that wait for the connection's."""
        self.queued = 0
        """Bytes in their queues."""
        self.waits = Waits(clock(), limits.wait_seconds_max, held)
        self.is_choked = False
        self.must_resize = False
        """Whether the next header block has to say that we use no table."""

    def choke(self) -> None:
        """Give the connection up with the next `flush`: its peer takes nothing of what it asked."""
        self.is_choked = True
        self.append(b"")

    def header_frame(self, stream_id: int, block: bytes, *, is_last: bool) -> bytes:
        """Our header blocks fit one frame."""
        if self.must_resize:
            self.must_resize = False
            block = answers.RESIZED + block
        flags = END_HEADERS | END_STREAM if is_last else END_HEADERS
        return frame(HEADERS, flags, stream_id, block)

    def append(self, data: bytes) -> None:
        """Send this; the peer's windows don't hold for it."""
        if not self.out:
            self.wake()
        self.out.append(data)

    def reset(self, stream_id: int, code: Code) -> None:
        """End one stream with an error, and the call with it."""
        self.append(rst_stream(stream_id, code))
        call = self.calls.get(stream_id)
        if call is not None:
            if not call.is_ended:
                self.cut[stream_id] = None
            call.drop()
