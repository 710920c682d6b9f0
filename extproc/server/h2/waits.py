"""How long what a peer sends waits for us: asked by PINGs of our own.

The answer to a PING (RFC 9113 §6.7) takes its place behind all that the peer has sent, or is about
to, wherever it lies: in the peer's buffers, in the kernel's or in ours. So the time until we read
it is how long that has waited. And what we asked for since we sent the PING whose answer came last,
and has not come, is what lies in those buffers now, in front of all that we ask for next: that will
wait until as much is worked off. (What was asked for before would have come: its client is slow.)
"""

from collections import deque
from typing import Final, NamedTuple

from extproc.server.h2 import frames
from extproc.server.h2.frames import PING_BYTES
from extproc.server.h2.limits import Held

ASK_SECONDS: Final = 0.1
"""From one PING to the next, as long as something comes."""

ASKED_MAX: Final = 64
"""PINGs that are not answered yet."""


class _Asked(NamedTuple):
    payload: bytes
    at: float
    asked: int


class Waits:
    """Of one connection."""

    __slots__ = (
        *("_asked", "_before", "_count", "_heard", "_held", "_is_behind", "_seconds_max", "due"),
    )

    def __init__(self, now: float, seconds_max: float, held: Held) -> None:
        self.due = now + ASK_SECONDS
        """When to ask next."""
        self._is_behind = False
        self._seconds_max = seconds_max
        self._held = held
        self._asked: deque[_Asked] = deque()
        self._heard = held.asked
        self._count = 0
        self._before = 0.0

    def are_long(self) -> bool:
        """Whether what comes now has waited for longer than is well, or what we ask for next will.

        Two PINGs in a row say that it has: one alone may have waited for the peer.
        """
        held = self._held
        ahead = min(held.asked - self._heard, held.awaited)
        return self._is_behind or ahead * held.seconds > self._seconds_max

    def ask(self, now: float) -> bytes:
        """Return what to send, which may be nothing."""
        if not self._asked and now > self.due + ASK_SECONDS:
            self._heard = self._held.asked
        self.due = now + ASK_SECONDS
        if len(self._asked) >= ASKED_MAX:
            return b""
        self._count += 1
        payload = b"wait" + self._count.to_bytes(PING_BYTES)[-4:]
        self._asked.append(_Asked(payload, now, self._held.asked))
        return frames.ping(payload)

    def hear(self, payload: bytes, now: float) -> bool:
        """Take the answer to a PING; whether it is the one that was to come."""
        if not self._asked or self._asked[0].payload != payload:
            return False
        asked = self._asked.popleft()
        self._heard = asked.asked
        before, self._before = self._before, now - asked.at
        self._is_behind = min(before, self._before) > self._seconds_max
        return True
