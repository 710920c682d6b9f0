"""Which API a request speaks, told from its method and path alone.

Does not look at bodies: `request.py` does.
"""

import enum
import posixpath
import urllib.parse
from typing import Final


class Dialect(enum.StrEnum):
    """An API whose request bodies we understand."""

    OPENAI_CHAT = "openai_chat"
    OPENAI_COMPLETIONS = "openai_completions"
    OPENAI_EMBEDDINGS = "openai_embeddings"
    OPENAI_RESPONSES = "openai_responses"
    ANTHROPIC_MESSAGES = "anthropic_messages"
    ANTHROPIC_COUNT_TOKENS = "anthropic_count_tokens"

    @property
    def is_anthropic(self) -> bool:
        """Whether clients of this API expect Anthropic's error shape."""
        return self in _ANTHROPIC

    @property
    def has_output(self) -> bool:
        """Whether the answer holds generated tokens that cost something."""
        return self not in _WITHOUT_OUTPUT


_ANTHROPIC: Final = frozenset({Dialect.ANTHROPIC_MESSAGES, Dialect.ANTHROPIC_COUNT_TOKENS})
_WITHOUT_OUTPUT: Final = frozenset({Dialect.OPENAI_EMBEDDINGS, Dialect.ANTHROPIC_COUNT_TOKENS})

PATHS: Final = {
    "/v1/chat/completions": Dialect.OPENAI_CHAT,
    "/v1/chat": Dialect.OPENAI_CHAT,  # the platform's own endpoint, same shape
    "/v1/completions": Dialect.OPENAI_COMPLETIONS,
    "/v1/embeddings": Dialect.OPENAI_EMBEDDINGS,
    "/v1/responses": Dialect.OPENAI_RESPONSES,
    "/v1/messages": Dialect.ANTHROPIC_MESSAGES,
    "/v1/messages/count_tokens": Dialect.ANTHROPIC_COUNT_TOKENS,
}


def dialect_of(path: str) -> Dialect | None:
    """Name the API behind a `:path`, or None when it is no LLM call.

    Spellings that some server may take for the same path (`//`, `/./`, percent-escapes, a
    trailing slash, capitals) name the same API here, so that none of them goes round the
    policy.
    """
    known = PATHS.get(path)
    return known if known is not None else PATHS.get(_plain(path))


def _plain(path: str) -> str:
    path = path.partition("?")[0].partition("#")[0]
    path = urllib.parse.unquote(path).replace("\\", "/").lower()
    # Parameters after a semicolon belong to the segment, not to its name (RFC 3986, 3.3).
    path = "/".join(segment.partition(";")[0] for segment in path.split("/"))
    return posixpath.normpath("/" + path.lstrip("/"))
