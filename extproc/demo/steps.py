"""The demo's steps: what is asked, by whom, and what must come of it."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from extproc.demo.accesslog import Record
from extproc.demo.clients import Ask, Outcome

STREAM_PIECES_MIN: Final = 20
SPREAD_SECONDS_MIN: Final = 0.2
"""From the first piece to the last. A stream that is held back comes all at once; ours in 1.3 s,
of which an SDK that is used for the first time, on a busy machine, may miss the first second."""


class Expected(NamedTuple):
    """What must come of a call.

    `served_by` is the service that answers, one of several that share a route (`a|b`), or empty for
    a refusal; `codes` are the statuses of all attempts that the SDK makes; `error` is the
    exception it then raises.
    """

    served_by: str = ""
    tier: str = ""
    downgraded_from: str = ""
    codes: tuple[int, ...] = (200,)
    error: str = ""
    reason: str = ""


class Step(NamedTuple):
    """One call. `tenant` is empty for somebody with a key that nobody knows."""

    title: str
    tenant: str
    ask: Ask
    expected: Expected
    begins_minute: bool = False
    """It and the next steps must fall into one minute, whose budget they use up."""
    is_held: bool = False
    """Its model waits with the answer, and the next steps are taken meanwhile."""
    ends_waiting: bool = False
    """Before it, answers that wait are let go, and all that is finished is settled."""


class Scene(NamedTuple):
    """Calls that are made at once: lanes of steps, one after the other in each."""

    title: str
    lanes: tuple[tuple[Step, ...], ...]


def problems(step: Step, outcome: Outcome, records: Sequence[Record]) -> list[str]:
    """Compare what must come of a step with what the SDK and Envoy say came of it."""
    expected = step.expected
    last = records[-1] if records else None
    llm = last.llm if last is not None else {}
    by = last.cluster if last is not None and last.was_forwarded else ""
    seen = Expected(
        served_by=expected.served_by if by in expected.served_by.split("|") else by,
        tier=llm.get("tier", ""),
        downgraded_from=llm.get("downgraded_from", ""),
        codes=tuple(record.code for record in records),
        error=outcome.error,
        reason=llm.get("reason", "") if outcome.error else "",
    )
    found = [
        f"{name} is {value!r}, not {wanted!r}"
        for name, value, wanted in zip(Expected._fields, seen, expected, strict=True)
        if value != wanted
    ]
    if step.ask.is_streamed and not expected.error:
        found += _late(outcome.arrivals)
    return found


def _late(arrivals: tuple[float, ...]) -> list[str]:
    if len(arrivals) < STREAM_PIECES_MIN:
        return [f"the answer came in {len(arrivals)} pieces, not in {STREAM_PIECES_MIN} or more"]
    if arrivals[-1] - arrivals[0] < SPREAD_SECONDS_MIN:
        return [f"the first piece came after {arrivals[0]:.2f} s, the last {arrivals[-1]:.2f} s"]
    return []


PREMIUM: Final = Expected("gpt4-adapter", "premium")
STANDARD: Final = Expected("gpt35-adapter|local-llama", "standard")
DEFAULT: Final = Expected("local-llama", "default")
ELSEWHERE: Final = Expected("platform")

_HARD: Final = "Weigh these two designs against each other, and say which you would build. " * 300
_ENDLESS: Final = "and then it said again what it had said before, " * 2000
_TOOLS: Final = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {}}},
    }
    for name in ("search", "calculate")
]
_SPOOFED: Final = {"x-llm-tier": "premium", "x-tenant-id": "acme", "x-llm-model": "gpt-4"}


def refused(code: int, error: str, reason: str) -> Expected:
    """Expect one attempt, refused by the filter, which the SDK does not repeat."""
    return Expected(codes=(code,), error=error, reason=reason)


def chat(text: object = "Say hello to the mesh.", model: str = "gpt-4", **more: object) -> Ask:
    """Ask with the OpenAI SDK. `text` may be what no schema allows."""
    messages = [{"role": "user", "content": text}]
    return Ask("openai.chat", {"model": model, "messages": messages, **more})


def message(text: str = "Say hello to the mesh.", **more: object) -> Ask:
    """Ask with the Anthropic SDK."""
    messages = [{"role": "user", "content": text}]
    body = {"model": "claude-sonnet", "max_tokens": 200, "messages": messages, **more}
    return Ask("anthropic.messages", body)


def streamed(ask: Ask) -> Ask:
    """Ask for the answer in pieces."""
    return ask._replace(api=ask.api + ".stream")


def _naive(ask: Ask) -> Ask:
    return ask._replace(api="http.chat.stream")


def _asking_for_usage(ask: Ask) -> Ask:
    return ask._replace(api="openai.chat.usage.stream")


def _hop(method: str, path: str, **more: object) -> Ask:
    return Ask("http.hop", {"method": method, "url": path, **more})


def _spoofing(ask: Ask) -> Ask:
    return ask._replace(headers=_SPOOFED)


def _once(ask: Ask) -> Ask:
    """Don't let the SDK wait for the next minute: a demo has to end."""
    return ask._replace(retries_max=0)


_COUNT: Final = Ask(
    "anthropic.count_tokens",
    {"model": "claude-sonnet", "messages": [{"role": "user", "content": "How long am I?"}]},
)
_FILE: Final = Ask("openai.files", {"file": ("batch.jsonl", b"{}\n" * 700_000), "purpose": "batch"})
_EMBED: Final = Ask("openai.embeddings", {"model": "text-embedding-3-small", "input": ["a", "b"]})
_RESPOND: Final = Ask("openai.responses", {"model": "gpt-4", "input": "Say hello."})

STEPS: Final = (
    Step("a premium subscriber gets premium", "acme", chat(), PREMIUM),
    Step("a plain request of the standard plan gets default", "initech", chat(), DEFAULT),
    Step(
        "a complex one gets standard", "initech", chat(_HARD, tools=_TOOLS, max_tokens=60), STANDARD
    ),
    Step("the answer streams event by event", "acme", streamed(chat()), PREMIUM),
    Step("Anthropic's SDK, whole", "initech", message(), DEFAULT),
    Step("Anthropic's SDK, streaming", "acme", streamed(message()), PREMIUM),
    Step("counting tokens is a call too", "initech", _COUNT, DEFAULT),
    Step("the Responses API", "initech", _RESPOND, DEFAULT),
    Step("embeddings", "initech", _EMBED, DEFAULT),
    Step("a spoofed x-llm-tier gains nothing", "initech", _spoofing(chat()), DEFAULT),
    Step("nor on a path that is no LLM call", "initech", _spoofing(_FILE), ELSEWHERE),
    Step(
        "a naive client never meets an event that has no choice", "initech", _naive(chat()), DEFAULT
    ),
    Step(
        "one that asks for usage is told it",
        "initech",
        _asking_for_usage(chat(_HARD, tools=_TOOLS, max_tokens=25)),
        STANDARD,
    ),
    Step(
        "that first answer, now whole",
        "hooli",
        chat(max_tokens=500),
        PREMIUM,
        is_held=True,
    ),
    Step(
        "while one answer is written, a cheaper tier serves",
        "hooli",
        chat(max_tokens=500),
        STANDARD._replace(downgraded_from="premium"),
    ),
    Step(
        "and for a longer one, the cheapest",
        "hooli",
        chat(max_tokens=4000),
        DEFAULT._replace(downgraded_from="premium"),
    ),
    Step(
        "what it did not use is back: premium again",
        "hooli",
        chat(max_tokens=500),
        PREMIUM,
        ends_waiting=True,
    ),
    Step("money for one short answer", "wonka", chat(max_tokens=20), PREMIUM),
    Step(
        "it is used up, and the SDK does not try again",
        "wonka",
        chat(max_tokens=20),
        refused(429, "RateLimitError", "budget_exhausted"),
        ends_waiting=True,
    ),
    Step("room for one in this minute", "globex", chat(max_tokens=30), DEFAULT, begins_minute=True),
    Step(
        "no room for another: try again later",
        "globex",
        _once(chat(max_tokens=30)),
        refused(429, "RateLimitError", "rate_limited"),
    ),
    Step(
        "Anthropic's SDK is told the same in its own words",
        "globex",
        _once(message(max_tokens=30)),
        refused(429, "RateLimitError", "rate_limited"),
    ),
    Step(
        "more than a minute can ever hold",
        "globex",
        chat(max_tokens=4000),
        refused(400, "BadRequestError", "budget_too_small"),
    ),
    Step(
        "a suspended tenant",
        "umbrella",
        chat(),
        refused(429, "RateLimitError", "tenant_suspended"),
    ),
    Step("an unknown key", "", chat(), refused(401, "AuthenticationError", "unknown_tenant")),
    Step(
        "an unknown key, Anthropic's SDK",
        "",
        message(),
        refused(401, "AuthenticationError", "unknown_tenant"),
    ),
    Step(
        "a body of wrong types",
        "acme",
        chat(7),
        refused(400, "BadRequestError", "malformed_request"),
    ),
    Step(
        "a prompt longer than any context",
        "acme",
        chat(_ENDLESS),
        refused(400, "BadRequestError", "context_exceeded"),
    ),
)


def _question(number: int) -> tuple[Step, ...]:
    """What a chain asks, and whom, until it has an answer; then somebody asks the same."""
    title, tenant = "a question", "initech"
    text = f"What is a mesh good for? Give me reason number {number}."
    key = f"/cache/{number}"
    return (
        Step(title, tenant, _hop("GET", key), _from("cache", 404)),
        Step(title, tenant, _hop("POST", "/retrieval/search", json=text), _from("retrieval", 200)),
        Step(title, tenant, chat(f"Envoy is a proxy. {text}", max_tokens=30), DEFAULT),
        Step(title, tenant, _hop("PUT", key, data=b"It is good for you."), _from("cache", 204)),
        Step(title, tenant, _hop("GET", key), _from("cache", 200)),
    )


def _from(cluster: str, code: int) -> Expected:
    return Expected(cluster, codes=(code,))


CHAIN: Final = Scene("six questions: the cache, a search, a model", tuple(map(_question, range(6))))

CROWD: Final = Scene(
    "forty at once",
    tuple(
        (Step("one of forty", tenant, ask, expected),)
        for _ in range(10)
        for tenant, ask, expected in (
            ("acme", chat(max_tokens=20), PREMIUM),
            ("initech", chat("What is a mesh?", max_tokens=20), DEFAULT),
            ("initech", chat(_HARD, tools=_TOOLS, max_tokens=20), STANDARD),
            ("acme", message(max_tokens=20), PREMIUM),
        )
    ),
)

SCENES: Final = (CHAIN, CROWD)
