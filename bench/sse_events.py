"""The events of `sse_upstream`: chunks of a chat, of one size, each with when it was made."""

from typing import Final, NamedTuple

TIME_DIGITS: Final = 19
_MARK: Final = b'"t":"'
_BEFORE: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"gpt-4","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],'
    b'"usage":null,' + _MARK
)
_AFTER: Final = b'"}\n\n'
EVENT_BYTES: Final = len(_BEFORE) + TIME_DIGITS + len(_AFTER)


def chunk(data: bytes) -> bytes:
    """Frame a piece of a body as HTTP/1.1 does."""
    return b"%x\r\n%b\r\n" % (len(data), data)


_OPENING: Final = b"%x\r\n" % EVENT_BYTES + _BEFORE
_CLOSING: Final = _AFTER + b"\r\n"
_USAGE: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"gpt-4","choices":[],'
    b'"usage":{"prompt_tokens":400,"completion_tokens":250,"total_tokens":650}}\n\n'
)
END: Final = b"0\r\n\r\n"
USAGE: Final = chunk(_USAGE)
LAST: Final = chunk(b"data: [DONE]\n\n") + END


def event(now_ns: int) -> bytes:
    """One event in a chunk of its own."""
    return b"%b%019d%b" % (_OPENING, now_ns, _CLOSING)


class Found(NamedTuple):
    """What was in the bytes of a stream: when each event was made, and how many were alone."""

    made_ns: tuple[int, ...]
    chunks: int
    """Chunks that held exactly one event."""


def found_in(data: bytes) -> Found:
    """Take events out of a piece of a stream that breaks inside none of them."""
    made = tuple(int(part[:TIME_DIGITS]) for part in data.split(_MARK)[1:])
    return Found(made, data.count(_OPENING))
