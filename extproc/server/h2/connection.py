"""A connection without I/O: bytes in, calls and bytes out.

RFC 9113, the server's half. A peer that breaks it is told so by GOAWAY, or by RST_STREAM where
only one stream is at fault (§5.4); `is_over` then says that the connection may be closed.
"""

from collections.abc import Callable, Mapping
from typing import Final

from extproc.server.h2 import frames
from extproc.server.h2.answers import PREFIX_BYTES
from extproc.server.h2.call import Call
from extproc.server.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD_BYTES,
    HEADERS,
    ID_MAX,
    PADDED,
    PREFACE,
    RST_BYTES,
    RST_STREAM,
    Code,
    PeerError,
    unpack_head,
    unpadded,
)
from extproc.server.h2.heads import Method
from extproc.server.h2.inbound import unpack_prefix
from extproc.server.h2.limits import Held, Limits
from extproc.server.h2.opening import WORD_MAX, Opening

_NOT_CUT: Final = 0


class Connection(Opening):
    """Serves `methods`, by path.

    `wake` is called when there is something to `flush` that did not come of `receive` or `tick`.
    `on_bug` is told what a handler raised; its call has ended by then, the connection goes on.
    `clock` is monotonic, in seconds.
    """

    def __init__(  # noqa: PLR0913  # each is a thing of its own, and none has a better place
        self,
        methods: Mapping[bytes, Method],
        limits: Limits,
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
        on_bug: Callable[[Exception], None],
        held: Held | None = None,
    ) -> None:
        super().__init__(methods, limits, held or Held(), clock, wake, on_bug)
        self._input = b""
        self._cut_max = limits.cut_max
        self._window_low = limits.connection_window // 2
        self._call_window_low = limits.stream_window // 2

    # In and out.

    def receive(self, data: bytes) -> bytes:
        """Take what the peer sent; return what to send it now, which may be nothing."""
        if self.has_failed:
            return b""
        # So nobody is woken for what goes out with what we return.
        out = self.out
        out.append(b"")
        self.is_quiet = False
        now = self.clock()
        if now >= self.waits.due:
            out.append(self.waits.ask(now))
        try:
            self._read(self._input + data if self._input else data)
        except PeerError as error:
            self.fail(error)
        if len(self.cut) > self._cut_max:
            self.forget_cut()
        if self.is_choked:
            return self.flush()
        data = b"".join(out)
        out.clear()
        return data

    def flush(self) -> bytes:
        """Return what is to be sent now."""
        if self.is_choked and not self.has_failed:
            self.fail(PeerError(Code.ENHANCE_YOUR_CALM, "answers are not taken"))
        data = b"".join(self.out)
        self.out.clear()
        return data

    def tick(self) -> bytes:
        """Do what is due by now; return what to send. To be called a few times a second."""
        if self.has_failed:
            return b""
        self.out.append(b"")
        try:
            self.look_at_clock()
        except PeerError as error:
            self.fail(error)
        return self.flush()

    # Frames.

    def _read(self, data: bytes) -> None:  # noqa: C901, PLR0912  # the short ways, in one piece
        """Take every frame that is there as a whole, and keep the rest.

        The three short ways are those of nearly all frames: a call that begins as another did,
        a message that is one frame, and the end of a stream that we had ended before. Everything
        else is dispatched.
        """
        at, end = 0, len(data)
        if not self.is_greeted:
            self._input = data
            at = self._greet(data)
            if not at:
                return
        elif self.block is not None:
            at = self.continue_block(data, 0)
        calls, cut, known = self.calls, self.cut, self.heads.known
        while end - at >= HEAD_BYTES:
            word, flags, stream_id = unpack_head(data, at)
            start = at + HEAD_BYTES
            stop = start + (word >> 8)
            if word > WORD_MAX:
                raise PeerError(Code.FRAME_SIZE_ERROR, "frame too large")
            if stop > end:
                break
            at = stop
            kind = word & 0xFF
            if kind == DATA:
                call = calls.get(stream_id)
                if (
                    call is not None
                    and call.is_plain
                    and not flags
                    and stop - start >= PREFIX_BYTES
                ):
                    compressed, size = unpack_prefix(data, start)
                    if not compressed and size == stop - start - PREFIX_BYTES:
                        size = stop - start
                        self.window -= size
                        call.window -= size
                        if self.window < self._window_low or call.window < self._call_window_low:
                            self._refill(call)
                        try:
                            call.handler.on_message(data[start + PREFIX_BYTES : stop])
                        except Exception as error:  # noqa: BLE001  # a barrier between calls
                            call.fail(error)
                        continue
            elif kind == RST_STREAM:
                if stop - start == RST_BYTES and cut.pop(stream_id, _NOT_CUT) is None:
                    continue
            elif kind == HEADERS and flags == END_HEADERS and self.last_id < stream_id <= ID_MAX:
                head = known.get(data[start:stop])
                if head is not None and stream_id & 1 and len(calls) < self.streams_max:
                    self.open_call(stream_id, head)
                    continue
            self._dispatch(kind, flags, stream_id & ID_MAX, data[start:stop])
            if self.block is not None:
                at = self.continue_block(data, at)
        self._input = data[at:]

    def _greet(self, data: bytes) -> int:
        """Take the preface, §3.4; return where it ends, 0 if it isn't there yet."""
        if not data.startswith(PREFACE):
            if not PREFACE.startswith(data):
                raise PeerError(Code.PROTOCOL_ERROR, "no preface")
            return 0
        self.is_greeted = True
        return len(PREFACE)

    def _dispatch(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: C901  # one case a type
        if not self.is_settled and kind != frames.SETTINGS:
            raise PeerError(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        match kind:
            case frames.DATA:
                self._on_data(flags, stream_id, payload)
            case frames.HEADERS:
                self.on_headers(flags, stream_id, payload)
            case frames.RST_STREAM:
                self.on_rst_stream(stream_id, payload)
            case frames.WINDOW_UPDATE:
                self.on_window_update(stream_id, payload)
            case frames.SETTINGS:
                self.on_settings(flags, stream_id, payload)
            case frames.PING:
                self.on_ping(flags, stream_id, payload)
            case frames.GOAWAY:
                self.on_goaway(stream_id, payload)
            case frames.PRIORITY:
                self.on_priority(stream_id, payload)
            case frames.PUSH_PROMISE | frames.CONTINUATION:
                raise PeerError(Code.PROTOCOL_ERROR, f"frame of type {kind} out of place")
            case _:
                self.charge()

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        """§6.1."""
        if stream_id == 0:
            raise PeerError(Code.PROTOCOL_ERROR, "data of no stream")
        self._not_idle(stream_id)
        size = len(payload)
        self.window -= size
        self._refill()
        if flags & PADDED:
            payload = unpadded(payload)
        is_last = bool(flags & END_STREAM)
        call = self.calls.get(stream_id)
        if not payload and not is_last:
            self.charge()
        if call is None or call.is_ended:
            self._on_late_data(stream_id, is_last=is_last)
            return
        call.window -= size
        if call.window < 0:
            self.reset(stream_id, Code.FLOW_CONTROL_ERROR)
            return
        call.take(payload)
        if is_last:
            self.end_call(call)
        else:
            call.refill()

    def _on_late_data(self, stream_id: int, *, is_last: bool) -> None:
        """It is no fault where we ended the stream first: then it was on its way."""
        if stream_id not in self.cut:
            self.charge()
            self.reset(stream_id, Code.STREAM_CLOSED)
        elif is_last:
            del self.cut[stream_id]

    def _refill(self, call: Call | None = None) -> None:
        """Let the peer send more, once half of a window is used.

        The window of the connection is never held back, so nobody can go beyond it.
        """
        if self.window < self._window_low:
            size = self.limits.connection_window - self.window
            self.window += size
            self.append(frames.window_update(0, size))
        if call is not None:
            call.refill()
