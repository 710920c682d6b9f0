"""A client without I/O: frames by hyperframe, headers by hpack, so that nothing of ours is used."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from extproc.server.h2.call import Call
from extproc.server.h2.connection import Connection
from extproc.server.h2.limits import Held, Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ECHO = "/test.Echo/Echo"
HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", ECHO),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


def headers(*changed: tuple[str, str], without: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Those of a call, with some replaced or added, and some left out."""
    names = {name for name, _ in changed} | set(without)
    kept = [pair for pair in HEADERS if pair[0] not in names]
    pseudo = [pair for pair in changed if pair[0].startswith(":")]
    return [*pseudo, *kept, *(pair for pair in changed if pair not in pseudo)]


def message(text: bytes, *, flag: int = 0) -> bytes:
    """A message with its prefix."""
    return bytes([flag]) + len(text).to_bytes(4) + text


class Handler:
    """Echoes each message and ends with its client; says all that it heard."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.heard: list[Any] = []
        self.answers = True

    def on_message(self, message: bytes) -> None:
        self.heard.append(message)
        if message == b"bug":
            msg = "s3cret"
            raise KeyError(msg)
        if message == b"pause":
            self.call.pause()
        if self.answers:
            self.call.send(message)

    def on_end(self) -> None:
        self.heard.append("end")
        if self.answers:
            self.call.finish()

    def on_cancel(self) -> None:
        self.heard.append("cancel")


class Silent(Handler):
    """Answers nothing by itself."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.answers = False


class Peer:
    """A connection and the client that talks to it. `now` is its clock."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        method: Callable[[Call], Any] = Handler,
        is_greeted: bool = True,
        held: Held | None = None,
        settings: dict[int, int] | None = None,
    ) -> None:
        self.now = 1000.0
        self.woken = 0
        self.bugs: list[Exception] = []
        self.handlers: list[Any] = []

        def new(call: Call) -> Any:
            self.handlers.append(method(call))
            return self.handlers[-1]

        self.connection = Connection(
            {ECHO.encode(): new},
            limits or Limits(),
            clock=lambda: self.now,
            wake=self._wake,
            on_bug=self.bugs.append,
            held=held,
        )
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.greeting = parsed(self.connection.greeting())
        if is_greeted:
            self.raw(PREFACE)
            self.send(SettingsFrame(0, settings=settings or {}), SettingsFrame(0, flags=["ACK"]))

    def _wake(self) -> None:
        self.woken += 1

    def raw(self, data: bytes) -> list[Any]:
        """Send bytes; return the frames of the answer."""
        return parsed(self.connection.receive(data))

    def send(self, *frames: Frame) -> list[Any]:
        """Send frames."""
        return self.raw(b"".join(frame.serialize() for frame in frames))

    def headers_frame(
        self,
        stream_id: int,
        fields: Sequence[tuple[str, str]] = HEADERS,
        *flags: str,
        **more: Any,
    ) -> HeadersFrame:
        """A whole header block in one frame."""
        block = self.encoder.encode(fields)
        frame = HeadersFrame(stream_id, block, **more)
        frame.flags.add("END_HEADERS")
        for flag in flags:
            frame.flags.add(flag)
        return frame

    def open(self, stream_id: int, *flags: str) -> list[Any]:
        """Begin a call."""
        return self.send(self.headers_frame(stream_id, HEADERS, *flags))

    def data(self, stream_id: int, payload: bytes, *flags: str) -> list[Any]:
        """Send a part of it, in as many frames as it takes."""
        *parts, last = [payload[at : at + 16_384] for at in range(0, len(payload) or 1, 16_384)]
        frames = [DataFrame(stream_id, part) for part in parts]
        return self.send(*frames, DataFrame(stream_id, last, flags=list(flags)))

    def tick(self, seconds: float) -> list[Any]:
        """Let time pass, and the connection look at its clock."""
        self.now += seconds
        return parsed(self.connection.tick())

    def flush(self) -> list[Any]:
        """What came up in the meantime."""
        return parsed(self.connection.flush())

    def fields(self, frame: Frame) -> dict[str, str]:
        """The headers of a frame. Blocks are to be decoded in the order of their coming."""
        assert isinstance(frame, HeadersFrame)
        return {str(name): str(value) for name, value in self.decoder.decode(frame.data)}


def parsed(data: bytes) -> list[Any]:
    """All frames of these bytes, which end with a frame."""
    found: list[Frame] = []
    while data:
        frame, size = Frame.parse_frame_header(memoryview(data[:9]))
        assert len(data) >= 9 + size, "half a frame"
        frame.parse_body(memoryview(data[9 : 9 + size]))
        found.append(frame)
        data = data[9 + size :]
    return found


def brief(frames: Iterable[Frame]) -> list[str]:
    """What matters of each frame, to be compared."""
    return [_brief(frame) for frame in frames]


def _brief(frame: Frame) -> str:
    match frame:
        case HeadersFrame():
            return f"headers {frame.stream_id}" + " end" * ("END_STREAM" in frame.flags)
        case DataFrame():
            last = " end" * ("END_STREAM" in frame.flags)
            return f"data {frame.stream_id} {len(frame.data)}{last}"
        case RstStreamFrame():
            return f"rst {frame.stream_id} {frame.error_code}"
        case GoAwayFrame():
            return f"goaway {frame.last_stream_id} {frame.error_code}"
        case WindowUpdateFrame():
            return f"window {frame.stream_id} {frame.window_increment}"
        case SettingsFrame():
            return "settings ack" if "ACK" in frame.flags else "settings"
        case PingFrame():
            return "pong" if "ACK" in frame.flags else "ping"
        case PriorityFrame() | ContinuationFrame():
            return type(frame).__name__
        case _:
            return repr(frame)
