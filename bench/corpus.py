"""Prompts that nobody has seen before, of English that everybody has: Python's own manual."""

import json
import random
import re
from collections.abc import Iterator
from pydoc_data.topics import topics

_SENTENCES = [
    sentence
    for topic in sorted(topics)
    for sentence in re.split(r"(?<=[.:])\s+", topics[topic])
    if 20 < len(sentence) < 300
]


def texts(size_bytes: int, *, seed: int = 0) -> Iterator[str]:
    """Yield texts of about `size_bytes`, each shuffled anew."""
    source = random.Random(seed)  # noqa: S311  # not for secrets
    while True:
        parts: list[str] = []
        length = 0
        while length < size_bytes:
            parts.append(source.choice(_SENTENCES))
            length += len(parts[-1]) + 1
        yield " ".join(parts)[:size_bytes]


def chats(size_bytes: int, *, seed: int = 0, stream: bool = False) -> Iterator[bytes]:
    """Yield chat bodies of about `size_bytes`: a system message, a question, a maximum."""
    for text in texts(max(1, size_bytes - 170), seed=seed):
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": text},
        ]
        body = {"model": "gpt-4", "messages": messages, "max_tokens": 256, "temperature": 0.7}
        if stream:
            body["stream"] = True
        yield json.dumps(body).encode()


def growing_chats(turn_bytes: int, *, turns: int, together: int, seed: int = 0) -> Iterator[bytes]:
    """Yield the bodies of conversations, each of which has all messages of the one before it.

    So many conversations go on together, a turn of each after the other; then others begin.
    A turn adds an answer of about `turn_bytes` and a question of a quarter of that.
    """
    answers, questions = texts(turn_bytes, seed=seed), texts(turn_bytes // 4, seed=-1 - seed)
    system = {"role": "system", "content": "You are a helpful assistant."}
    while True:
        conversations = [[system] for _ in range(together)]
        for turn in range(turns):
            for messages in conversations:
                if turn:
                    messages.append({"role": "assistant", "content": next(answers)})
                messages.append({"role": "user", "content": next(questions)})
                body = {"model": "gpt-4", "messages": messages, "max_tokens": 256}
                yield json.dumps(body).encode()
