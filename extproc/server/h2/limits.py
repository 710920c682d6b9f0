"""What one peer may cost us. Each limit has a name, and an error code where it is passed."""

from typing import Final, NamedTuple

MEBI: Final = 1 << 20
FOREVER: Final = float("inf")


class Limits(NamedTuple):
    """Of one connection, unless it says otherwise. Times are in seconds."""

    message_bytes_max: int = 4 * MEBI
    """Of one message; beyond, its call ends with RESOURCE_EXHAUSTED."""

    streams_max: int = 10_000
    """Open at a time; further ones are refused with REFUSED_STREAM. Each takes less than a
    kilobyte. An Envoy that has more opens another connection; one that just started does not know
    yet, and answers each request with 500 whose stream is refused."""

    stream_window: int = MEBI
    """What a call may send before we have read it. Not below 65,535, which is every stream's
    until the peer has read our settings."""

    connection_window: int = 1024 * MEBI
    """How much of all calls of a connection may be on its way. Not below 65,535 either. So much
    that it holds nobody up: what waits for a window lets PINGs pass, and they would not tell of it
    (`waits.py`)."""

    held_bytes_max: int = 256 * MEBI
    """Of messages that are not there yet as a whole, or not read, of *all* connections of a
    server. A call that goes beyond ends with RESOURCE_EXHAUSTED, so that others can end well:
    were the windows held back instead, half-sent messages would wait for each other for ever."""

    header_list_bytes_max: int = 16_384
    """As RFC 9113 §6.5.2 counts, and as we announce; a call beyond is answered with 431. At twice
    this size, decoding stops and the connection ends."""

    block_bytes_max: int = 32_768
    """Of a header block in its frames; beyond, the connection ends."""

    continuations_max: int = 16
    """Frames of a header block after the first; beyond, the connection ends."""

    heads_max: int = 64
    """Header blocks remembered, of at most `HEAD_BLOCK_BYTES_MAX` each."""

    cut_max: int = 1000
    """Streams remembered that we ended before the peer did, so that its late frames are no
    fault of its."""

    queued_bytes_max: int = 16 * MEBI
    """Of answers that wait for the peer's windows; beyond, ENHANCE_YOUR_CALM."""

    stall_seconds: float = 60.0
    """How long an answer waits for a window, or the whole connection for the peer to read."""

    controls_burst: int = 1000
    """Frames that ask for work and are no call: SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty
    DATA, unknown types, streams refused, and what comes for streams that are closed. Beyond,
    ENHANCE_YOUR_CALM."""

    controls_per_second: float = 100.0
    controls_per_stream: float = 10.0
    """By which the allowance grows again with each stream that is opened."""

    resets_burst: int = 2000
    """Calls that the peer opens and takes back before they are answered (CVE-2023-44487). As
    many as a stalled service may cause; beyond, ENHANCE_YOUR_CALM."""

    resets_per_second: float = 1000.0
    """Each costs us about what a call costs."""

    wait_seconds_max: float = 0.5
    """How long what the peer sends may wait for us, before its new calls are told that it was too
    long (`Call.is_late`). Envoy gives up after the filter's `message_timeout`, 2 s in our
    manifests, and a request waits twice: with its head and with its body."""

    handshake_seconds: float = 10.0
    """From the connection to the preface and its SETTINGS; beyond, PROTOCOL_ERROR."""

    settings_seconds: float = 20.0
    """From our SETTINGS to their acknowledgement; beyond, SETTINGS_TIMEOUT."""

    idle_seconds: float = FOREVER
    """Without a call; then the connection ends well."""

    age_seconds: float = FOREVER
    """Then the peer is asked to open another connection, and calls may end on this one."""

    leave_seconds: float = 20.0
    """How long calls may last from then on; they are cut off with UNAVAILABLE."""

    keepalive_seconds: float = 60.0
    """Without a byte; then the peer is asked for a sign of life."""

    keepalive_wait_seconds: float = 20.0
    """How long we wait for that; then the connection is given up."""


HEAD_BLOCK_BYTES_MAX: Final = 1024


class Held:
    """What all connections of a server hold, and what is to come: they share the time as well."""

    __slots__ = ("asked", "awaited", "bytes", "seconds")

    def __init__(self) -> None:
        self.bytes = 0
        """Of unfinished messages."""
        self.asked = 0
        """Messages that were asked for so far."""
        self.awaited = 0
        """Those that have not come."""
        self.seconds = 0.0
        """What one of them takes, as of late."""

    def took(self, seconds: float) -> None:
        """Hear what one took. Long ones count less, since it is better to let in too many."""
        share = SHARE_OF_ONE if seconds > self.seconds else 4 * SHARE_OF_ONE
        self.seconds += (seconds - self.seconds) * share


SHARE_OF_ONE: Final = 1 / 64
"""Which a message has in what one is thought to take."""


class Allowance:
    """A bucket of tokens: full at first, and filled by time and by streams that are opened."""

    __slots__ = ("_at", "_burst", "_left", "_opened", "_per_second", "_per_stream")

    def __init__(
        self, burst: float, *, per_second: float, per_stream: float = 0.0, now: float
    ) -> None:
        self._burst = self._left = burst
        self._per_second = per_second
        self._per_stream = per_stream
        self._at = now
        self._opened = 0

    def spend(self, now: float, opened: int, cost: int = 1) -> bool:
        """Take as much; whether it was there. `opened` is how many streams there were so far."""
        gained = (now - self._at) * self._per_second + (opened - self._opened) * self._per_stream
        self._at, self._opened = now, opened
        self._left = min(self._burst, self._left + gained) - cost
        return self._left >= 0
