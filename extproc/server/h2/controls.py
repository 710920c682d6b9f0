"""What a connection does beside its calls: settings, signs of life, windows, and its end."""

from collections.abc import Callable, Mapping
from typing import Final

from extproc.server.h2 import answers, frames
from extproc.server.h2.call import Call
from extproc.server.h2.frames import (
    ACK,
    ID_MAX,
    PING_BYTES,
    PRIORITY_BYTES,
    RST_BYTES,
    WINDOW_DEFAULT,
    WINDOW_MAX,
    Code,
    PeerError,
    Setting,
    goaway,
    window_update,
)
from extproc.server.h2.limits import Allowance, Held, Limits
from extproc.server.h2.link import Link

_LEAVING: Final = b"leaving\0"
_ALIVE: Final = b"alive?\0\0"
_TABLE_BYTES: Final = 4096
"""The default of HEADER_TABLE_SIZE."""


class Controls(Link):
    """A connection but for its calls."""

    def __init__(
        self,
        limits: Limits,
        held: Held,
        clock: Callable[[], float],
        wake: Callable[[], None],
        on_bug: Callable[[Exception], None],
    ) -> None:
        super().__init__(limits, held, clock, wake, on_bug)
        now = clock()
        self.last_id = 0
        """The newest stream of the peer."""
        self.turned_away = 0
        """Streams that never were a call, and earn no allowance."""
        self.window = limits.connection_window
        self.streams_max = limits.streams_max
        """None are to be opened once we have left."""
        self.is_greeted = self.is_settled = self.is_acknowledged = False
        """Whether the peer's preface, its settings, and its acknowledgement of ours have come."""
        self.is_quiet = True
        """Whether nothing has come since the clock was last looked at."""
        self.is_leaving = False
        """Whether one of us has said GOAWAY. Then `is_over` is worth a look."""
        self.has_failed = False
        self._has_left = self._is_left = False
        self._controls = Allowance(
            limits.controls_burst,
            per_second=limits.controls_per_second,
            per_stream=limits.controls_per_stream,
            now=now,
        )
        self._resets = Allowance(limits.resets_burst, per_second=limits.resets_per_second, now=now)
        self._began = self._heard_at = self._called_at = now
        self._asked_at: float | None = None
        self._left_at: float | None = None
        self._id_seen = 0

    @property
    def is_over(self) -> bool:
        """Whether the connection may be closed, once all is sent."""
        return self.has_failed or (self._has_left and not self.calls)

    def greeting(self) -> bytes:
        """What we say first, §3.4."""
        limits = self.limits
        greeting = frames.settings(
            (
                (Setting.MAX_CONCURRENT_STREAMS, limits.streams_max),
                (Setting.INITIAL_WINDOW_SIZE, limits.stream_window),
                (Setting.MAX_HEADER_LIST_SIZE, limits.header_list_bytes_max),
            )
        )
        more = limits.connection_window - WINDOW_DEFAULT
        return greeting + window_update(0, more) if more else greeting

    def leave(self) -> None:
        """Ask the peer to go elsewhere, and let open calls end (§6.8)."""
        if self._left_at is None:
            self._left_at = self.clock()
            self.is_leaving = True
            # What was sent before the peer hears of it is still served: its answer to the PING
            # comes after that.
            self.append(goaway(ID_MAX, Code.NO_ERROR) + frames.ping(_LEAVING))

    def cut_off(self) -> None:
        """End what is open, and the connection. Never well: ext_proc takes that for consent."""
        for call in list(self.calls.values()):
            call.give_up(answers.UNAVAILABLE, "draining")
        for call in list(self.calls.values()):
            self.reset(call.id, Code.CANCEL)
        self._close_door()

    def fail(self, error: PeerError) -> None:
        """End the connection because of the peer."""
        self.lost()
        self.append(goaway(self.last_id, error.code, error.text))
        self.is_leaving = True

    def lost(self) -> None:
        """Forget all calls, and tell their handlers; nothing reaches the peer any more."""
        self.has_failed = True
        for call in list(self.calls.values()):
            call.drop()

    def charge(self, cost: int = 1) -> None:
        """Count a frame that asks for work and is no call.

        Raises:
            PeerError: there were too many.
        """
        if not self._controls.spend(self.clock(), (self.last_id >> 1) - self.turned_away, cost):
            raise PeerError(Code.ENHANCE_YOUR_CALM, "too many control frames")

    def forget_cut(self) -> None:
        """Forget the oldest of the streams that we ended."""
        for stream_id in list(self.cut)[: len(self.cut) - self.limits.cut_max]:
            del self.cut[stream_id]

    def look_at_clock(self) -> None:
        """Do what is due by now.

        Raises:
            PeerError: the peer has kept us waiting for too long.
        """
        limits, now = self.limits, self.clock()
        self._look_for_life(now)
        for deadline, call in list(self.timed.values()):
            if deadline <= now:
                call.give_up(answers.DEADLINE_EXCEEDED, "deadline exceeded")
        for call in list(self.queues.values()):
            if call.is_stalled(now):
                self.reset(call.id, Code.CANCEL)
        if self.calls or self.last_id != self._id_seen:
            self._called_at, self._id_seen = now, self.last_id
        idle_seconds = limits.leave_seconds if self._is_left else limits.idle_seconds
        if now - self._began > limits.age_seconds or now - self._called_at > idle_seconds:
            self.leave()
        if self._left_at is not None and now - self._left_at > limits.leave_seconds:
            self.cut_off()

    def _look_for_life(self, now: float) -> None:
        limits = self.limits
        if not self.is_settled and now - self._began > limits.handshake_seconds:
            raise PeerError(Code.PROTOCOL_ERROR, "no preface")
        if not self.is_acknowledged and now - self._began > limits.settings_seconds:
            raise PeerError(Code.SETTINGS_TIMEOUT, "settings not acknowledged")
        if not self.is_quiet:
            self.is_quiet = True
            self._heard_at, self._asked_at = now, None
        elif self._asked_at is not None:
            if now - self._asked_at > limits.keepalive_wait_seconds:
                raise PeerError(Code.NO_ERROR, "no sign of life")
        elif now - self._heard_at > limits.keepalive_seconds:
            self._asked_at = now
            self.append(frames.ping(_ALIVE))

    def _close_door(self) -> None:
        if not self._has_left:
            self._has_left = self.is_leaving = True
            self.streams_max = 0
            self.append(goaway(self.last_id, Code.NO_ERROR))

    # Frames.

    def on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        """§6.5."""
        if stream_id:
            raise PeerError(Code.PROTOCOL_ERROR, "settings of a stream")
        if flags & ACK:
            if payload:
                raise PeerError(Code.FRAME_SIZE_ERROR, "acknowledgement of a wrong size")
            self.is_acknowledged = True
            return
        self.charge()
        found = frames.read_settings(payload)
        self.is_settled = True
        if found.get(Setting.HEADER_TABLE_SIZE, _TABLE_BYTES) < _TABLE_BYTES:
            self.must_resize = True
        if Setting.INITIAL_WINDOW_SIZE in found:
            self._resize_windows(found[Setting.INITIAL_WINDOW_SIZE])
        self.append(frames.SETTINGS_ACK)
        self._pump(self.queues)

    def _resize_windows(self, size: int) -> None:
        """Change the window of every stream by as much, which may leave less than nothing."""
        self.charge(len(self.calls) >> 4)
        change = size - self.initial_credit
        self.initial_credit = size
        for call in list(self.calls.values()):
            call.credit += change
            if call.credit > WINDOW_MAX:
                raise PeerError(Code.FLOW_CONTROL_ERROR, "window too large")

    def on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        """§6.7."""
        if stream_id:
            raise PeerError(Code.PROTOCOL_ERROR, "ping of a stream")
        if len(payload) != PING_BYTES:
            raise PeerError(Code.FRAME_SIZE_ERROR, "ping of a wrong size")
        if flags & ACK and self.waits.hear(payload, self.clock()):
            return
        self.charge()
        if not flags & ACK:
            self.append(frames.ping(payload, is_ack=True))
        elif payload == _LEAVING and self._left_at is not None:
            self._close_door()

    def on_goaway(self, stream_id: int, payload: bytes) -> None:
        """§6.8: the peer is to close the connection, once it has what it asked for."""
        if stream_id:
            raise PeerError(Code.PROTOCOL_ERROR, "goaway of a stream")
        if len(payload) < 8:  # noqa: PLR2004  # last stream, error code
            raise PeerError(Code.FRAME_SIZE_ERROR, "goaway of a wrong size")
        self.charge()
        self._is_left = True

    def on_window_update(self, stream_id: int, payload: bytes) -> None:
        """§6.9."""
        if len(payload) != 4:  # noqa: PLR2004  # one number
            raise PeerError(Code.FRAME_SIZE_ERROR, "window update of a wrong size")
        self._not_idle(stream_id)
        self.charge()
        increment = int.from_bytes(payload) & WINDOW_MAX
        call = self.calls.get(stream_id)
        if stream_id == 0:
            if not increment:
                raise PeerError(Code.PROTOCOL_ERROR, "window update of nothing")
            self.credit += increment
            if self.credit > WINDOW_MAX:
                raise PeerError(Code.FLOW_CONTROL_ERROR, "window too large")
            self._pump(self.waiting)
        elif call is not None:
            call.credit += increment
            if not increment:
                self.reset(stream_id, Code.PROTOCOL_ERROR)
            elif call.credit > WINDOW_MAX:
                self.reset(stream_id, Code.FLOW_CONTROL_ERROR)
            else:
                call.pump()

    def _pump(self, calls: Mapping[int, Call]) -> None:
        for call in list(calls.values()):
            if self.credit <= 0:
                break
            call.pump()

    def on_rst_stream(self, stream_id: int, payload: bytes) -> None:
        """§6.4."""
        if len(payload) != RST_BYTES:
            raise PeerError(Code.FRAME_SIZE_ERROR, "rst_stream of a wrong size")
        if stream_id == 0:
            raise PeerError(Code.PROTOCOL_ERROR, "rst_stream of no stream")
        self._not_idle(stream_id)
        call = self.calls.get(stream_id)
        if call is not None:
            call.drop()
            if not self._resets.spend(self.clock(), 0):
                raise PeerError(Code.ENHANCE_YOUR_CALM, "too many calls taken back")
        elif self.cut.pop(stream_id, 0) == 0:
            self.charge()

    def on_priority(self, stream_id: int, payload: bytes) -> None:
        """§6.3; what it asks for is ignored (§5.3.2)."""
        if stream_id == 0:
            raise PeerError(Code.PROTOCOL_ERROR, "priority of no stream")
        self.charge()
        if len(payload) != PRIORITY_BYTES:
            if stream_id > self.last_id:
                raise PeerError(Code.FRAME_SIZE_ERROR, "priority of a wrong size")
            self.reset(stream_id, Code.FRAME_SIZE_ERROR)

    def _not_idle(self, stream_id: int) -> None:
        """Raise a PeerError if this stream was never opened, §5.1."""
        if stream_id > self.last_id or (stream_id and not stream_id & 1):
            raise PeerError(Code.PROTOCOL_ERROR, "frame of an idle stream")
