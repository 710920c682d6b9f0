"""Calls through Envoy by the SDKs that people use and by those who use none; what came of each."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import aiohttp
import anthropic
import openai

STEP_HEADER: Final = "x-demo-step"
TIMEOUT_SECONDS: Final = 20.0

Headers = Mapping[str, str]
Listener = Callable[[str, float], None]
"""Told each piece of a streamed answer, and when it came, in seconds since it was asked for."""


class Ask(NamedTuple):
    """One call: which method of which SDK, with what."""

    api: str
    body: Mapping[str, Any]
    headers: Headers = MappingProxyType({})
    retries_max: int = 2
    """The SDKs' own default."""

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes in pieces."""
        return self.api.endswith("stream")


class Outcome(NamedTuple):
    """What the caller of an SDK got. `error` is the class of the exception, or empty."""

    error: str = ""
    said: str = ""
    retry_after: str | None = None
    arrivals: tuple[float, ...] = ()
    """When each piece of the answer came, in seconds since it was asked for."""


class UsageMissingError(Exception):
    """A stream ended without the usage that its client had asked for."""


class Sdks(NamedTuple):
    """Both, with one tenant's key, which each sends in a header of its own; and plain HTTP."""

    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    http: aiohttp.ClientSession

    async def aclose(self) -> None:
        """Let go of all connections."""
        await self.openai.close()
        await self.anthropic.close()
        await self.http.close()


def sdks(url: str, key: str) -> Sdks:
    """Point all of them at a gateway. Whoever asks for them closes them."""
    return Sdks(
        # Proxies of the environment are for other networks than this machine.
        openai.AsyncOpenAI(
            base_url=url + "/v1",
            api_key=key,
            timeout=TIMEOUT_SECONDS,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        ),
        anthropic.AsyncAnthropic(
            base_url=url,
            api_key=key,
            timeout=TIMEOUT_SECONDS,
            http_client=anthropic.DefaultAsyncHttpxClient(trust_env=False),
        ),
        aiohttp.ClientSession(
            url,
            headers={"authorization": f"Bearer {key}"},
            timeout=aiohttp.ClientTimeout(TIMEOUT_SECONDS),
        ),
    )


async def call(own: Sdks, ask: Ask, step: str, listener: Listener) -> Outcome:
    """Make one call and say what came of it. `step` marks it in Envoy's access log."""
    now = asyncio.get_running_loop().time
    began = now()
    pieces: list[str] = []
    arrivals: list[float] = []
    try:
        async for piece in _APIS[ask.api](own, ask, {STEP_HEADER: step, **ask.headers}):
            pieces.append(piece)
            arrivals.append(now() - began)
            if ask.is_streamed:
                listener(piece, arrivals[-1])
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        return Outcome(
            type(error).__name__,
            _message_of(error.body) or error.message,
            error.response.headers.get("retry-after"),
        )
    except (openai.APIConnectionError, anthropic.APIConnectionError) as error:
        return Outcome(type(error).__name__, str(error))
    except (aiohttp.ClientError, LookupError, UsageMissingError) as error:
        return Outcome(type(error).__name__, str(error), arrivals=tuple(arrivals))
    return Outcome(said="".join(pieces), arrivals=tuple(arrivals))


async def _chat(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    chat: Any = own.openai.with_options(max_retries=ask.retries_max).chat.completions
    answer = await chat.create(extra_headers=headers, **ask.body)
    yield answer.choices[0].message.content


async def _chat_stream(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    chat: Any = own.openai.chat.completions
    async for chunk in await chat.create(extra_headers=headers, stream=True, **ask.body):
        if chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


async def _usage_stream(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    """Ask for usage, and insist on it."""
    chat: Any = own.openai.chat.completions
    body = {**ask.body, "stream": True, "stream_options": {"include_usage": True}}
    usage = None
    async for chunk in await chat.create(extra_headers=headers, **body):
        usage = chunk.usage or usage
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content
    if usage is None:
        raise UsageMissingError
    yield f" [{usage.prompt_tokens} + {usage.completion_tokens} tokens]"


async def _naive_stream(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    """Read `choices[0]` of every event, as people do who have never seen one without."""
    body = {**ask.body, "stream": True}
    async with own.http.post("/v1/chat/completions", json=body, headers=headers) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            data = line.removeprefix(b"data: ").strip()
            if data and data != b"[DONE]":
                piece = json.loads(data)["choices"][0]["delta"].get("content")
                if piece:
                    yield piece


async def _hop(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    """Ask a service that is no model."""
    async with own.http.request(headers=headers, **ask.body) as answer:
        yield (await answer.read()).decode()


async def _response(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    answer = await own.openai.responses.create(extra_headers=headers, **ask.body)
    yield answer.output_text


async def _embedding(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    answer = await own.openai.embeddings.create(extra_headers=headers, **ask.body)
    yield f"{len(answer.data)} vectors"


async def _file(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    answer = await own.openai.files.create(extra_headers=headers, **ask.body)
    yield str(answer.model_extra)


async def _message(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    messages: Any = own.anthropic.with_options(max_retries=ask.retries_max).messages
    answer = await messages.create(extra_headers=headers, **ask.body)
    yield answer.content[0].text


async def _message_stream(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    messages: Any = own.anthropic.messages
    async with messages.stream(extra_headers=headers, **ask.body) as stream:
        async for text in stream.text_stream:
            yield text


async def _count(own: Sdks, ask: Ask, headers: Headers) -> AsyncIterator[str]:
    messages: Any = own.anthropic.messages
    answer = await messages.count_tokens(extra_headers=headers, **ask.body)
    yield f"{answer.input_tokens} tokens"


_APIS: Final[Mapping[str, Callable[[Sdks, Ask, Headers], AsyncIterator[str]]]] = {
    "openai.chat": _chat,
    "openai.chat.stream": _chat_stream,
    "openai.chat.usage.stream": _usage_stream,
    "openai.responses": _response,
    "openai.embeddings": _embedding,
    "openai.files": _file,
    "anthropic.messages": _message,
    "anthropic.messages.stream": _message_stream,
    "anthropic.count_tokens": _count,
    "http.chat.stream": _naive_stream,
    "http.hop": _hop,
}


def _message_of(body: object) -> str:
    """The words of a refusal. The OpenAI SDK has taken the outer `error` off already."""
    if not isinstance(body, Mapping):
        return ""
    inner = body.get("error", body)
    return str(inner.get("message", "")) if isinstance(inner, Mapping) else ""
