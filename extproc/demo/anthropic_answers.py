"""Answers as Anthropic's API gives them: whole, and as events."""

from collections.abc import Iterator

from extproc.demo.asked import Asked, Event, Json


def message(asked: Asked) -> Json:
    """`message`, with its text in one block."""
    return _head(asked) | {
        "content": [{"type": "text", "text": asked.text()}],
        "stop_reason": _reason(asked),
        "usage": {"input_tokens": asked.prompt_words(), "output_tokens": len(asked.words())},
    }


def message_events(asked: Asked) -> Iterator[Event]:
    """From `message_start` to `message_stop`; usage comes first in part, then for good."""
    block = {"index": 0}
    start = _head(asked) | {"usage": {"input_tokens": asked.prompt_words(), "output_tokens": 1}}
    yield _event("message_start", {"message": start})
    yield _event("content_block_start", block | {"content_block": {"type": "text", "text": ""}})
    yield _event("ping", {})
    for piece in asked.pieces():
        yield _event(
            "content_block_delta", block | {"delta": {"type": "text_delta", "text": piece}}
        )
    yield _event("content_block_stop", block)
    delta = {"stop_reason": _reason(asked), "stop_sequence": None}
    yield _event("message_delta", {"delta": delta, "usage": {"output_tokens": len(asked.words())}})
    yield _event("message_stop", {})


def token_count(asked: Asked) -> Json:
    """What `count_tokens` says."""
    return {"input_tokens": asked.prompt_words()}


def _event(name: str, data: Json) -> Event:
    return Event(name, {"type": name, **data})


def _head(asked: Asked) -> Json:
    return {
        "id": f"msg_{asked.number}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _reason(asked: Asked) -> str:
    return "max_tokens" if asked.is_cut() else "end_turn"
