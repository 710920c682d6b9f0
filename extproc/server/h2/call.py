"""A call, as its handler sees it.

`send` and `finish` are the short way of nearly every call: they append bytes that were nearly
made before. Whatever does not fit the peer's windows takes the long way, a queue.
"""

from extproc.server.h2 import answers
from extproc.server.h2.answers import PREFIX_BYTES, first_message, next_message
from extproc.server.h2.frames import DATA, END_STREAM, FRAME_BYTES_MAX, Code, frame, rst_stream
from extproc.server.h2.heads import Head
from extproc.server.h2.inbound import NOBODY, Handler, Inbound
from extproc.server.h2.link import Link


class Call(Inbound):
    """One call, as its handler sees it: `send`, `finish`, `pause` and the like."""

    __slots__ = ("_queue", "_queued_at", "_tail", "credit", "is_answered")

    def __init__(self, link: Link, stream_id: int, head: Head) -> None:
        self._link = link
        self.id = stream_id
        self.head = head
        self.handler = NOBODY
        self.window = link.limits.stream_window
        self.credit = link.initial_credit
        self.length_left = head.length
        self.is_open = True
        self.is_plain = head.is_plain
        self.is_ended = self.is_answered = False
        self._is_paused = self._is_draining = self._is_told = False
        self._rest: bytearray | None = None
        self._queue: bytearray | None = None
        self._queued_at = 0.0
        self._tail: bytes | None = None

    # What a handler asks for.

    @property
    def is_late(self) -> bool:
        """Whether what comes now waited for longer than `wait_seconds_max`, or its rest will."""
        return self._link.waits.are_long()

    def expect(self) -> None:
        """Say that the peer was just asked for a message."""
        held = self._link.held
        held.asked += 1
        held.awaited += 1

    def expect_no_more(self) -> None:
        """Say that this has come, or never will."""
        self._link.held.awaited -= 1

    def took(self, seconds: float) -> None:
        """Say for how long one worked on a message that the peer was asked for."""
        self._link.held.took(seconds)

    def send(self, message: bytes) -> None:
        """Send one message. Does nothing once the call is over.

        While anything is queued, one of the windows has nothing left: so none overtakes it.
        """
        if not self.is_open:
            return
        link = self._link
        size = len(message) + PREFIX_BYTES
        if size > self.credit or size > link.credit or size > FRAME_BYTES_MAX or link.must_resize:
            self._answer()
            self._enqueue(b"\0" + (size - PREFIX_BYTES).to_bytes(4) + message)
            return
        self.credit -= size
        link.credit -= size
        out = link.out
        if not out:
            link.wake()
        if self.is_answered:
            out.append(next_message(self.id, size))
        else:
            self.is_answered = True
            out.append(first_message(self.id, size))
        out.append(message)

    def finish(self, status: int = answers.OK, text: str = "") -> None:
        """End the call. Does nothing once it is over.

        A client that has not said all yet need not: its stream is ended for it as well.
        """
        if not self.is_open:
            return
        link = self._link
        if status or text or not self.is_answered or self._queue is not None:
            self._finish(status, text)
            return
        if not link.out:
            link.wake()
        self.is_open = self.is_plain = False
        self.handler = NOBODY
        if self.is_ended:
            link.out.append(answers.end(self.id))
        else:
            link.out.append(answers.cut(self.id))
            link.cut[self.id] = None
        del link.calls[self.id]
        if link.timed:
            link.timed.pop(self.id, None)
        if self._rest is not None:
            self._let_go()

    # The long way out.

    def _answer(self) -> None:
        if not self.is_answered:
            self.is_answered = True
            self._link.append(self._link.header_frame(self.id, answers.ANSWER, is_last=False))

    def _enqueue(self, data: bytes) -> None:
        link = self._link
        if self._queue is None:
            self._queue = bytearray()
            self._queued_at = link.clock()
            link.queues[self.id] = self
        self._queue += data
        link.queued += len(data)
        self.pump()
        if link.queued > link.limits.queued_bytes_max:
            link.choke()

    def pump(self) -> None:
        """Send what the windows let through of what is queued."""
        link, queue = self._link, self._queue
        if queue is None:
            return
        at = 0
        while (size := min(len(queue) - at, self.credit, link.credit, FRAME_BYTES_MAX)) > 0:
            link.append(frame(DATA, 0, self.id, bytes(queue[at : at + size])))
            at += size
            self.credit -= size
            link.credit -= size
        if self.credit > 0 and at < len(queue):
            link.waiting[self.id] = self
        else:
            link.waiting.pop(self.id, None)
        if not at:
            return
        del queue[:at]
        link.queued -= at
        self._queued_at = link.clock()
        if not queue:
            self._queue = None
            del link.queues[self.id]
            if self._tail is not None:
                self._close(self._tail)

    def refuse(self, head: Head) -> None:
        """Answer as `head` says, without a method."""
        refusal = head.refusal
        if refusal is None:
            return
        self._stop()
        if refusal.body:
            self._link.append(self._link.header_frame(self.id, refusal.block, is_last=False))
            self._tail = b""
            self._enqueue(refusal.body)
        else:
            self._close(refusal.block)

    def _finish(self, status: int, text: str) -> None:
        block = answers.trailers(status, text)
        if not self.is_answered:
            block = answers.ANSWER + block
        self._stop()
        if self._queue is None:
            self._close(block)
        else:
            self._tail = block

    def _stop(self) -> None:
        self.is_open = self.is_plain = False
        self.handler = NOBODY
        self._link.timed.pop(self.id, None)
        self._let_go()

    def _close(self, block: bytes) -> None:
        """Send the end of the stream, and be rid of it."""
        link = self._link
        if block:
            link.append(link.header_frame(self.id, block, is_last=True))
        else:
            link.append(frame(DATA, END_STREAM, self.id, b""))
        if not self.is_ended:
            link.append(rst_stream(self.id, Code.NO_ERROR))
            link.cut[self.id] = None
        del link.calls[self.id]

    def drop(self) -> None:
        """Forget the call, and tell its handler that nobody listens any more."""
        link, handler = self._link, self.handler
        if link.calls.pop(self.id, None) is None:
            return
        if self._queue is not None:
            link.queued -= len(self._queue)
            self._queue = None
            del link.queues[self.id]
            link.waiting.pop(self.id, None)
        was_open = self.is_open
        self._stop()
        if was_open:
            self._tell(handler)

    def give_up(self, status: int, text: str) -> None:
        """End the call, and tell its handler that nobody listens any more."""
        handler, was_open = self.handler, self.is_open
        self.finish(status, text)
        if was_open:
            self._tell(handler)

    def _tell(self, handler: Handler) -> None:
        try:
            handler.on_cancel()
        except Exception as error:  # noqa: BLE001  # a barrier between calls
            self._link.on_bug(error)

    def is_stalled(self, now: float) -> bool:
        """Whether its answer has waited for too long."""
        return self._queue is not None and now - self._queued_at > self._link.limits.stall_seconds
