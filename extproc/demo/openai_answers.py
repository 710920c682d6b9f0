"""Answers as OpenAI's APIs give them: whole, and as events."""

from collections.abc import Iterator
from typing import Any

from extproc.demo.asked import Asked, Event, Json, Told


def _usage(told: Told) -> Json:
    """As chats and completions have it; details only where there are any."""
    usage: Json = {
        "prompt_tokens": told.prompt,
        "completion_tokens": told.completion,
        "total_tokens": told.total,
    }
    if any(told[2:]):
        usage["prompt_tokens_details"] = _prompt_details(told)
        usage["completion_tokens_details"] = {"reasoning_tokens": told.reasoning}
    return usage


def _whole_usage(told: Told | None) -> Json:
    return {} if told is None else {"usage": _usage(told)}


def _prompt_details(told: Told) -> Json:
    return {"cached_tokens": told.cached, "cache_write_tokens": told.cache_write}


def _reason(asked: Asked) -> str:
    return "length" if asked.is_cut() else "stop"


def _wants_usage(asked: Asked) -> bool:
    options = asked.body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def chat(asked: Asked) -> Json:
    """`chat.completion`."""
    return {
        "id": f"chatcmpl-{asked.number}",
        "object": "chat.completion",
        "created": asked.created,
        "model": asked.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": asked.text(), "refusal": None},
                "logprobs": None,
                "finish_reason": _reason(asked),
            }
        ],
        **_whole_usage(asked.told()),
    }


def chat_events(asked: Asked) -> Iterator[Event]:
    """`chat.completion.chunk`s: the role, the words, the end, and usage where it is wanted."""

    def chunk(delta: Json, finish_reason: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return Event("", head | {"choices": [choice]})

    head: Json = {
        "id": f"chatcmpl-{asked.number}",
        "object": "chat.completion.chunk",
        "created": asked.created,
        "model": asked.model,
    }
    told = asked.told() if _wants_usage(asked) else None
    if told is not None:
        head["usage"] = None
    yield chunk({"role": "assistant", "content": ""})
    for piece in asked.pieces():
        yield chunk({"content": piece})._replace(words=1)
    yield chunk({}, _reason(asked))
    if told is not None:
        yield Event("", head | {"choices": [], "usage": _usage(told)}, told=told)


def completion(asked: Asked) -> Json:
    """`text_completion`, of the API before chats."""
    choice = {
        "index": 0,
        "text": asked.text(),
        "logprobs": None,
        "finish_reason": _reason(asked),
    }
    return _completion_head(asked) | {"choices": [choice]} | _whole_usage(asked.told())


def completion_events(asked: Asked) -> Iterator[Event]:
    """`text_completion`s, a word each."""
    head = _completion_head(asked)
    *pieces, last = asked.pieces()
    for piece, reason in [*((piece, None) for piece in pieces), (last, _reason(asked))]:
        choice = {"index": 0, "text": piece, "logprobs": None, "finish_reason": reason}
        yield Event("", head | {"choices": [choice]}, words=1)
    told = asked.told() if _wants_usage(asked) else None
    if told is not None:
        yield Event("", head | {"choices": [], "usage": _usage(told)}, told=told)


def _completion_head(asked: Asked) -> Json:
    return {
        "id": f"cmpl-{asked.number}",
        "object": "text_completion",
        "created": asked.created,
        "model": asked.model,
    }


def embeddings(asked: Asked) -> Json:
    """One small vector for each input."""
    given: Any = asked.body.get("input", "")
    texts = given if isinstance(given, list) else [given]
    told = embeddings_told(asked)
    usage = {} if told is None else {"prompt_tokens": told.prompt, "total_tokens": told.prompt}
    return {
        "object": "list",
        "model": asked.model,
        "data": [
            {"object": "embedding", "index": i, "embedding": [0.25, -0.5, 0.125]}
            for i in range(len(texts))
        ],
        "usage": usage,
    }


def embeddings_told(asked: Asked) -> Told | None:
    """What embeddings take: nothing is written."""
    told = asked.told()
    return None if told is None else Told(told.prompt, 0)


def response(asked: Asked) -> Json:
    """`response`, completed."""
    output = {"output": [_item(asked, "completed", [_part(asked.text())])]}
    return _response_head(asked, "completed") | output | {"usage": _response_usage(asked.told())}


def _response_usage(told: Told | None) -> Json | None:
    if told is None:
        return None
    return {
        "input_tokens": told.prompt,
        "input_tokens_details": _prompt_details(told),
        "output_tokens": told.completion,
        "output_tokens_details": {"reasoning_tokens": told.reasoning},
        "total_tokens": told.total,
    }


def response_events(asked: Asked) -> Iterator[Event]:
    """The Responses API's events, numbered, from `response.created` to `response.completed`."""
    at = {"item_id": f"msg-{asked.number}", "output_index": 0, "content_index": 0}
    text = {"logprobs": [], **at}
    output = {"output_index": 0}
    begun = _response_head(asked, "in_progress")
    events: list[tuple[str, Json]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {"item": _item(asked, "in_progress", []), **output}),
        ("response.content_part.added", {"part": _part(""), **at}),
        *(("response.output_text.delta", {"delta": piece, **text}) for piece in asked.pieces()),
        ("response.output_text.done", {"text": asked.text(), **text}),
        ("response.content_part.done", {"part": _part(asked.text()), **at}),
        (
            "response.output_item.done",
            {"item": _item(asked, "completed", [_part(asked.text())]), **output},
        ),
        ("response.completed", {"response": response(asked)}),
    ]
    for number, (name, data) in enumerate(events):
        words = 1 if name == "response.output_text.delta" else 0
        told = asked.told() if name == "response.completed" else None
        yield Event(name, {"type": name, "sequence_number": number, **data}, words, told)


def _response_head(asked: Asked, status: str) -> Json:
    return {
        "id": f"resp-{asked.number}",
        "object": "response",
        "created_at": asked.created,
        "status": status,
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
    }


def _item(asked: Asked, status: str, content: list[Json]) -> Json:
    return {
        "id": f"msg-{asked.number}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
