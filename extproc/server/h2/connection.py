"""A connection without I/O: bytes in, calls and bytes out.

RFC 9113, the server's half. A peer that breaks it is told so by GOAWAY, or by RST_STREAM where
only one stream is at fault (§5.4); `is_over` then says that the connection may be closed.
"""

from collections.abc import Callable, Mapping
from typing import Final

from extproc.server.h2 import frames
from extproc.server.h2.answers import PREFIX_BYTES
from extproc.server.h2.call import Call
from extproc.server.h2.controls import Controls
from extproc.server.h2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    HAS_PRIORITY,
    HEAD_BYTES,
    HEADERS,
    ID_MAX,
    PADDED,
    PREFACE,
    PRIORITY_BYTES,
    Code,
    PeerError,
    unpack_head,
    unpadded,
)
from extproc.server.h2.heads import Head, Heads, Method, is_malformed
from extproc.server.h2.inbound import unpack_prefix
from extproc.server.h2.limits import Held, Limits

_WORD_MAX: Final = FRAME_BYTES_MAX << 8 | 0xFF


class Connection(Controls):
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
        super().__init__(limits, held or Held(), clock, wake, on_bug)
        self._heads = Heads(methods, limits)
        self._known = self._heads.known
        self._input = b""
        self._block: bytearray | None = None
        self._block_id = 0
        self._block_is_last = False
        self._continuations = 0
        self._window_low = limits.connection_window // 2
        self._call_window_low = limits.stream_window // 2

    # In and out.

    def receive(self, data: bytes) -> bytes:
        """Take what the peer sent; return what to send it now, which may be nothing."""
        if self.has_failed:
            return b""
        # So nobody is woken for what goes out with what we return.
        self.out.append(b"")
        self.is_quiet = False
        try:
            self._read(self._input + data if self._input else data)
        except PeerError as error:
            self.fail(error)
        if len(self.cut) > self.limits.cut_max:
            self.forget_cut()
        return self.flush()

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

        The two short ways are those of nearly all frames: a call that begins as another did,
        and a message that is one frame. Everything else is dispatched.
        """
        at, end = 0, len(data)
        if not self.is_greeted:
            self._input = data
            at = self._greet(data)
            if not at:
                return
        elif self._block is not None:
            at = self._continue(data, 0)
        calls, known = self.calls, self._known
        while end - at >= HEAD_BYTES:
            word, flags, stream_id = unpack_head(data, at)
            start = at + HEAD_BYTES
            stop = start + (word >> 8)
            if word > _WORD_MAX:
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
            elif kind == HEADERS and flags == END_HEADERS and self.last_id < stream_id <= ID_MAX:
                head = known.get(data[start:stop])
                if head is not None and stream_id & 1 and len(calls) < self.streams_max:
                    self._open(stream_id, head)
                    continue
            self._dispatch(kind, flags, stream_id & ID_MAX, data[start:stop])
            if self._block is not None:
                at = self._continue(data, at)
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
                self._on_headers(flags, stream_id, payload)
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
            self._end(call)
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
        """Let the peer send more, once half of a window is used."""
        if self.window < 0:
            raise PeerError(Code.FLOW_CONTROL_ERROR, "beyond the window of the connection")
        if self.window < self._window_low:
            size = self.limits.connection_window - self.window
            self.window += size
            self.append(frames.window_update(0, size))
        if call is not None:
            if call.window < 0:
                self.reset(call.id, Code.FLOW_CONTROL_ERROR)
            call.refill()

    def _end(self, call: Call) -> None:
        if call.length_left:
            self.reset(call.id, Code.PROTOCOL_ERROR)
        else:
            call.end()

    # Header blocks.

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        """§6.2."""
        if not stream_id & 1:
            raise PeerError(Code.PROTOCOL_ERROR, "headers of no stream of a client")
        if flags & PADDED:
            payload = unpadded(payload)
        if flags & HAS_PRIORITY:
            if len(payload) < PRIORITY_BYTES:
                raise PeerError(Code.FRAME_SIZE_ERROR, "no room for a priority")
            payload = payload[PRIORITY_BYTES:]
        is_last = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._on_block(stream_id, payload, is_last=is_last)
        else:
            self._block, self._continuations = bytearray(payload), 0
            self._block_id, self._block_is_last = stream_id, is_last

    def _continue(self, data: bytes, at: int) -> int:
        """Take CONTINUATION frames (§6.10), with which nothing may mix; return where they end."""
        while self._block is not None and len(data) - at >= HEAD_BYTES:
            word, flags, stream_id = unpack_head(data, at)
            start = at + HEAD_BYTES
            stop = start + (word >> 8)
            if word & 0xFF != CONTINUATION or stream_id & ID_MAX != self._block_id:
                raise PeerError(Code.PROTOCOL_ERROR, "a header block is not complete")
            if word > _WORD_MAX:
                raise PeerError(Code.FRAME_SIZE_ERROR, "frame too large")
            if stop > len(data):
                break
            at = stop
            self._continuations += 1
            self._block += data[start:stop]
            if self._continuations > self.limits.continuations_max:
                raise PeerError(Code.ENHANCE_YOUR_CALM, "too many continuations")
            if len(self._block) > self.limits.block_bytes_max:
                raise PeerError(Code.ENHANCE_YOUR_CALM, "header block too large")
            if flags & END_HEADERS:
                block, self._block = bytes(self._block), None
                self._on_block(self._block_id, block, is_last=self._block_is_last)
        return at

    def _on_block(self, stream_id: int, block: bytes, *, is_last: bool) -> None:
        if stream_id <= self.last_id:
            self._on_trailers(stream_id, block, is_last=is_last)
            return
        head = self._known.get(block) or self._heads.head(block)
        self.last_id = stream_id
        if head is None or len(self.calls) >= self.streams_max:
            self.charge()
            self.cut[stream_id] = None
            code = Code.PROTOCOL_ERROR if head is None else Code.REFUSED_STREAM
            self.reset(stream_id, code)
            return
        call = self._open(stream_id, head, is_ended=is_last)
        if is_last and call.is_open:
            self._end(call)

    def _open(self, stream_id: int, head: Head, *, is_ended: bool = False) -> Call:
        self.last_id = stream_id
        call = self.calls[stream_id] = Call(self, stream_id, head)
        if is_ended:
            call.is_ended, call.is_plain = True, False
        if head.timeout is not None:
            self.timed[stream_id] = (self.clock() + head.timeout, call)
        if head.method is None:
            call.refuse(head)
            return call
        try:
            call.begin(head.method(call))
        except Exception as error:  # noqa: BLE001  # a barrier between calls
            call.fail(error)
        return call

    def _on_trailers(self, stream_id: int, block: bytes, *, is_last: bool) -> None:
        fields = self._heads.fields(block)
        call = self.calls.get(stream_id)
        if call is None and stream_id in self.cut:
            if is_last:
                del self.cut[stream_id]
        elif call is None:
            raise PeerError(Code.STREAM_CLOSED, "headers of a stream that is closed")
        elif call.is_ended:
            self.charge()
            self.reset(stream_id, Code.STREAM_CLOSED)
        elif not is_last or any(is_malformed(name, value) for name, value in fields):
            self.charge()
            self.reset(stream_id, Code.PROTOCOL_ERROR)
        else:
            self._end(call)
