"""How calls begin and end: header blocks, in however many frames."""

from collections.abc import Callable, Mapping
from typing import Final

from extproc.server.h2.call import Call
from extproc.server.h2.controls import Controls
from extproc.server.h2.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    HAS_PRIORITY,
    HEAD_BYTES,
    ID_MAX,
    PADDED,
    PRIORITY_BYTES,
    Code,
    PeerError,
    unpack_head,
    unpadded,
)
from extproc.server.h2.heads import Head, Heads, Method, is_malformed
from extproc.server.h2.limits import Held, Limits

WORD_MAX: Final = FRAME_BYTES_MAX << 8 | 0xFF
"""The most that the first word of a frame may be: its length and its type."""


class Opening(Controls):
    """A connection but for the messages of its calls."""

    def __init__(  # noqa: PLR0913, PLR0917  # each is a thing of its own, and none has a better place
        self,
        methods: Mapping[bytes, Method],
        limits: Limits,
        held: Held,
        clock: Callable[[], float],
        wake: Callable[[], None],
        on_bug: Callable[[Exception], None],
    ) -> None:
        super().__init__(limits, held, clock, wake, on_bug)
        self.heads = Heads(methods, limits)
        self.block: bytearray | None = None
        """Of headers that have not come as a whole yet; nothing else may come before."""
        self._block_id = 0
        self._block_is_last = False
        self._continuations = 0

    def on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
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
            self.block, self._continuations = bytearray(payload), 0
            self._block_id, self._block_is_last = stream_id, is_last

    def continue_block(self, data: bytes, at: int) -> int:
        """Take CONTINUATION frames (§6.10), with which nothing may mix; return where they end."""
        while self.block is not None and len(data) - at >= HEAD_BYTES:
            word, flags, stream_id = unpack_head(data, at)
            start = at + HEAD_BYTES
            stop = start + (word >> 8)
            if word & 0xFF != CONTINUATION or stream_id & ID_MAX != self._block_id:
                raise PeerError(Code.PROTOCOL_ERROR, "a header block is not complete")
            if word > WORD_MAX:
                raise PeerError(Code.FRAME_SIZE_ERROR, "frame too large")
            if stop > len(data):
                break
            at = stop
            self._continuations += 1
            self.block += data[start:stop]
            if self._continuations > self.limits.continuations_max:
                raise PeerError(Code.ENHANCE_YOUR_CALM, "too many continuations")
            if len(self.block) > self.limits.block_bytes_max:
                raise PeerError(Code.ENHANCE_YOUR_CALM, "header block too large")
            if flags & END_HEADERS:
                block, self.block = bytes(self.block), None
                self._on_block(self._block_id, block, is_last=self._block_is_last)
        return at

    def _on_block(self, stream_id: int, block: bytes, *, is_last: bool) -> None:
        if stream_id <= self.last_id:
            self._on_trailers(stream_id, block, is_last=is_last)
            return
        head = self.heads.known.get(block) or self.heads.head(block)
        self.last_id = stream_id
        if head is None or len(self.calls) >= self.streams_max:
            self.turned_away += 1
            self.charge()
            self.cut[stream_id] = None
            code = Code.PROTOCOL_ERROR if head is None else Code.REFUSED_STREAM
            self.reset(stream_id, code)
            return
        call = self.open_call(stream_id, head, is_ended=is_last)
        if is_last and call.is_open:
            self.end_call(call)

    def open_call(self, stream_id: int, head: Head, *, is_ended: bool = False) -> Call:
        """Begin a call; it may be over at once."""
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
        fields = self.heads.fields(block)
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
            self.end_call(call)

    def end_call(self, call: Call) -> None:
        """Hear that the peer has said all of this call."""
        if call.length_left:
            self.reset(call.id, Code.PROTOCOL_ERROR)
        else:
            call.end()
