"""Answers as Anthropic's API gives them: whole, and as events."""

from collections.abc import Iterator

from extproc.demo.asked import Asked, Event, Json, Told


def message(asked: Asked) -> Json:
    """`message`, with its text in one block."""
    head = _head(asked) | {
        "content": [{"type": "text", "text": asked.text()}],
        "stop_reason": _reason(asked),
    }
    return head | _usage(told(asked))


def message_events(asked: Asked) -> Iterator[Event]:
    """From `message_start` to `message_stop`; usage comes first in part, then for good."""
    block = {"index": 0}
    last = told(asked)
    begun = None if last is None else last._replace(completion=1)
    start = _head(asked) | _usage(begun)
    yield _event("message_start", {"message": start})._replace(told=begun)
    yield _event("content_block_start", block | {"content_block": {"type": "text", "text": ""}})
    yield _event("ping", {})
    for piece in asked.pieces():
        yield _event(
            "content_block_delta", block | {"delta": {"type": "text_delta", "text": piece}}
        )._replace(words=1)
    yield _event("content_block_stop", block)
    delta = {"stop_reason": _reason(asked), "stop_sequence": None}
    usage = {} if last is None else {"usage": {"output_tokens": last.completion}}
    yield _event("message_delta", {"delta": delta} | usage)._replace(told=last)
    yield _event("message_stop", {})


def told(asked: Asked) -> Told | None:
    """What a message takes. How much of it were thoughts this API does not tell."""
    found = asked.told()
    return None if found is None else found._replace(reasoning=0)


def token_count(asked: Asked) -> Json:
    """What `count_tokens` says."""
    return {"input_tokens": asked.prompt_words()}


def _usage(took: Told | None) -> Json:
    """`usage`, in which what has to do with the cache is apart from the rest of the input."""
    if took is None:
        return {}
    cache = {
        "cache_read_input_tokens": took.cached,
        "cache_creation_input_tokens": took.cache_write,
    }
    rest = took.prompt - took.cached - took.cache_write
    return {"usage": {"input_tokens": rest, "output_tokens": took.completion, **cache}}


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
