"""Mixed requests, drawn from a seed: which API, how it is answered, when its client leaves."""

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from extproc.demo.clients import STEP_HEADER

STEADY: Final = ("steady", "calm", "patient")
TIGHT: Final = ("tight-tokens", "tight-usd", "tight-requests", "tight-slots", "thrifty")
FICKLE: Final = ("fickle", "hasty")
TENANTS: Final = (*STEADY * 2, *TIGHT, *FICKLE * 2)
"""One of them is drawn for each request."""

MODELS: Final = ("gpt-4", "gpt-3.5-turbo", "local-llama")
CHAT: Final = "/v1/chat/completions"
COUNT_TOKENS: Final = "/v1/messages/count_tokens"
EMBEDDINGS: Final = "/v1/embeddings"
ELSEWHERE: Final = "/v1/files"

STAYS: Final = -1
LEAVES_AT_ONCE: Final = 0
"""Before anything came of the answer."""

_APIS: Final = (CHAT,) * 5 + (
    "/v1/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages",
    "/v1/messages",
    EMBEDDINGS,
    COUNT_TOKENS,
    ELSEWHERE,
)
_WORDS: Final = (
    *("tell", "me", "why", "proxies", "count", "tokens", "and", "who", "pays", "for"),
    *("antidisestablishmentarianism", "0x7ffe", "größer", "你好", "x=1;"),
)
_STREAMLESS: Final = (EMBEDDINGS, COUNT_TOKENS, ELSEWHERE)
_ERRORS: Final = (429, 500, 503)


class Call(NamedTuple):
    """One request. `step` names it in Envoy's log and in the models' books."""

    step: str
    tenant: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    leaves_after: int = STAYS
    """The client goes away once so many pieces of the answer came."""
    leaves_seconds: float = 0.0
    """Where it leaves before any came: so long after it asked."""


def calls(seed: int, *, tenants: Sequence[str] = TENANTS, prefix: str = "c") -> Iterator[Call]:
    """Draw requests without end; the same seed draws the same."""
    dice = random.Random(seed)  # noqa: S311  # nothing is kept secret by it
    for number in itertools.count():
        yield _call(dice, f"{prefix}{number}", dice.choice(tenants))


def _call(dice: random.Random, step: str, tenant: str) -> Call:
    path = dice.choice(_APIS)
    is_streamed = path not in _STREAMLESS and dice.random() < 0.65  # noqa: PLR2004
    model = dice.choice(MODELS)
    body = _body(dice, path, model, is_streamed=is_streamed)
    headers = {STEP_HEADER: step, "x-adapter-pause-ms": str(dice.randint(1, 4))}
    if dice.random() < 0.2:  # noqa: PLR2004
        headers["x-adapter-delay-ms"] = str(dice.randint(5, 60))
    is_fickle = tenant in FICKLE
    headers |= _manners(dice, may_be_vague=is_fickle)
    call = Call(step, tenant, path, json.dumps(body).encode(), headers)
    if path == CHAT and dice.random() < 0.02:  # noqa: PLR2004
        return call._replace(body=b'{"model": ')
    if is_fickle and "x-adapter-usage" not in headers and dice.random() < 0.5:  # noqa: PLR2004
        if dice.random() < 0.3:  # noqa: PLR2004
            seconds = dice.choice((0.0, 0.001, 0.003, 0.01, 0.03))
            return call._replace(leaves_after=LEAVES_AT_ONCE, leaves_seconds=seconds)
        return call._replace(leaves_after=dice.randint(1, 30))
    return call


def _body(dice: random.Random, path: str, model: str, *, is_streamed: bool) -> dict[str, Any]:
    text = " ".join(dice.choices(_WORDS, k=dice.randint(1, 60)))
    limit = dice.choice((1, 5, 12, 25, 60))
    body: dict[str, Any] = {"model": model}
    match path:
        case "/v1/completions":
            body |= {"prompt": text, "max_tokens": limit}
        case "/v1/embeddings":
            body |= {"input": [text, "another"]}
        case "/v1/responses":
            body |= {"input": text, "max_output_tokens": limit}
        case "/v1/messages" | "/v1/messages/count_tokens":
            body |= {"messages": [{"role": "user", "content": text}], "max_tokens": limit}
        case _:
            body |= {"messages": [{"role": "user", "content": text}]}
            if dice.random() < 0.8:  # noqa: PLR2004
                body["max_completion_tokens"] = limit
    if is_streamed:
        body["stream"] = True
        if path in (CHAT, "/v1/completions") and dice.random() < 0.4:  # noqa: PLR2004
            body["stream_options"] = {"include_usage": dice.random() < 0.7}  # noqa: PLR2004
    return body


def _manners(dice: random.Random, *, may_be_vague: bool) -> dict[str, str]:
    """How the model is to behave: most of the time well.

    `may_be_vague`: in ways too that leave open what the answer costs.
    """
    drawn = dice.random()
    if drawn < 0.06:  # noqa: PLR2004
        return {"x-adapter-status": str(dice.choice(_ERRORS))}
    if drawn < 0.09:  # noqa: PLR2004
        return {"x-adapter-reset": "start"}
    if drawn < 0.24:  # noqa: PLR2004
        return {"x-adapter-usage": "details"}
    if may_be_vague and drawn < 0.30:  # noqa: PLR2004
        return {"x-adapter-usage": "missing"}
    if may_be_vague and drawn < 0.38:  # noqa: PLR2004
        return {"x-adapter-reset": str(dice.randint(0, 25))}
    return {}
