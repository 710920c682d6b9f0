"""The way to the store: calls of scripts, gathered into pipelines, that end soon whatever happens.

1.  A call ends within its time. The first that fails opens the breaker: then every call fails at
    once, those that wait too, until a probe that writes has come through.
2.  Nothing is tried twice here. What a call that failed has done is not known.
3.  Scripts need no `SCRIPT` command: a server that does not know one is sent its text.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple, Self

from valkey.asyncio import Valkey, ValkeyCluster
from valkey.asyncio.retry import Retry
from valkey.backoff import NoBackoff
from valkey.exceptions import NoScriptError, ResponseError, ValkeyError

_log = logging.getLogger(__name__)

PIPELINES_MAX: Final = 4
"""Under way at a time, each on a connection of its own."""

CALLS_PER_PIPELINE_MAX: Final = 64
TURNS_LATE_MAX: Final = 5
"""Of the event loop, for an answer that came while this process was held up itself."""

WAITING_MAX: Final = 20_000
"""Calls not sent yet. Beyond it the store is too slow: they fail."""

PROBE_KEY: Final = "llm-extproc:probe"
PROBE_KEPT_SECONDS: Final = 60


class Patience(NamedTuple):
    """How long the store may take, in seconds."""

    decision: float = 0.05
    """An answer that a request waits for. A store that is slower is as good as away."""

    record: float = 2.0
    """An answer that no request waits for: a settlement, a reading."""

    connect: float = 0.5
    probe_every: float = 0.25

    quiet: float = 1.0
    """Once the store is back it is told what happened, and decides nothing for so long, or as long
    as it was away: until every other replica must have noticed as well, and told what it let in."""


class Away(Exception):  # noqa: N818  # a state, not an error: the store is away
    """The store did not answer, or not in time. What was asked may have been done or not."""


class Script(NamedTuple):
    """A script by its text and the digest that servers know it by."""

    text: str
    digest: str

    @classmethod
    def load(cls, *names: str) -> Self:
        """The scripts of this package by these names, one after the other, as one."""
        folder = files("extproc.ledger") / "scripts"
        text = "\n".join([(folder / f"{name}.lua").read_text("utf-8") for name in names])
        # Redis and Valkey name a script by its SHA-1.
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class _Call(NamedTuple):
    script: Script
    keys: Sequence[str]
    body: bytes
    answered: asyncio.Future[bytes]


class Link:
    """Connections to one server or cluster. Use it in the event loop that made it."""

    def __init__(self, url: str, patience: Patience, *, is_cluster: bool) -> None:
        self.reason = ""
        """Why the store is away; empty while it is not."""
        self.calls = 0
        """Sent so far."""
        self.run = ""
        """Tells one life of the server from another; known once it was away."""
        self.on_back: Callable[[], None] = _nothing
        """Is called when the store is there again."""
        self.away_seconds = 0.0
        """How long the store was away the last time."""
        self._away_since = 0.0
        self._patience = patience
        self._is_cluster = is_cluster
        self._client = _client(url, patience, is_cluster=is_cluster)
        self._is_closed = False
        self._waiting: deque[_Call] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._probing: asyncio.Task[None] | None = None
        self._unanswered: set[asyncio.Future[bytes]] = set()

    async def close(self) -> None:
        """Let go of all connections. Calls that wait fail."""
        self._is_closed = True
        self.reason = self.reason or "closed"
        self._fail_all(self.reason)
        tasks = [*self._sending] + ([self._probing] if self._probing else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(ValkeyError, OSError, TimeoutError):
            await asyncio.wait_for(self._client.aclose(), self._patience.connect)

    async def call(
        self, script: Script, keys: Sequence[str], body: bytes, *, is_urgent: bool
    ) -> bytes:
        """What the script answers.

        Raises:
            Away: nothing came, or not in time.
        """
        if self.reason:
            raise Away(self.reason)
        if len(self._waiting) >= WAITING_MAX:
            msg = f"{WAITING_MAX} calls wait for the store"
            raise Away(msg)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(script, keys, body, answered))
        self._unanswered.add(answered)
        self._send()
        seconds = self._patience.decision if is_urgent else self._patience.record
        try:
            await asyncio.wait([answered], timeout=seconds)
            for _ in range(TURNS_LATE_MAX):
                if answered.done():
                    break
                await asyncio.sleep(0)
        finally:
            self._unanswered.discard(answered)
        if not answered.done():
            self._open(f"no answer within {seconds:g} s")
            raise Away(self.reason)
        return answered.result()

    def _send(self) -> None:
        while self._waiting and len(self._sending) < PIPELINES_MAX:
            if self._sending and len(self._waiting) < CALLS_PER_PIPELINE_MAX // 8:
                has_room = len(self._sending) < PIPELINES_MAX // 2
                if not has_room:
                    return  # more will gather until one comes back
            count = min(len(self._waiting), CALLS_PER_PIPELINE_MAX)
            batch = [self._waiting.popleft() for _ in range(count)]
            task = asyncio.ensure_future(self._run([c for c in batch if not c.answered.done()]))
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._send()

    async def _run(self, batch: Sequence[_Call]) -> None:
        try:
            # Those who wait give up earlier; this ends a connection that nobody waits for.
            async with asyncio.timeout(self._patience.record):
                answers = await self._pipeline(batch, is_known=True)
                missing = [
                    i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)
                ]
                again = await self._pipeline([batch[i] for i in missing], is_known=False)
                for i, answer in zip(missing, again, strict=True):
                    answers[i] = answer
        except TimeoutError:
            self._open(f"no answer within {self._patience.record:g} s")
        except (ValkeyError, OSError) as error:
            self._open(_one_line(error))
        else:
            for call, answer in zip(batch, answers, strict=True):
                self._take(call, answer)

    async def _pipeline(self, batch: Sequence[_Call], *, is_known: bool) -> list[Any]:
        if not batch:
            return []
        self.calls += len(batch)
        pipeline = self._client.pipeline(transaction=False)
        for script, keys, body, _ in batch:
            how = ("EVALSHA", script.digest) if is_known else ("EVAL", script.text)
            pipeline.execute_command(*how, len(keys), *keys, body)
        return list(await pipeline.execute(raise_on_error=False))

    def _take(self, call: _Call, answer: object) -> None:
        if isinstance(answer, Exception):
            self._open(_one_line(answer))
        elif not call.answered.done():
            call.answered.set_result(answer if isinstance(answer, bytes) else b"")

    def _open(self, reason: str) -> None:
        """Let every call fail at once, until a probe comes through."""
        if self._probing is None:
            _log.warning("the store of budgets is away: %s", reason)
            self._away_since = time.monotonic()
            self._probing = asyncio.ensure_future(self._probe())
        self.reason = reason
        self._fail_all(reason)

    def _fail_all(self, reason: str) -> None:
        self._waiting.clear()
        for answered in tuple(self._unanswered):
            if not answered.done():
                answered.set_exception(Away(reason))

    async def _probe(self) -> None:
        while not self._is_closed:
            await asyncio.sleep(self._patience.probe_every)
            try:
                async with asyncio.timeout(self._patience.connect):
                    await self._write()  # which may have to connect first
                    self.run = await self._life()
                async with asyncio.timeout(self._patience.decision):
                    await self._write()
            except (ValkeyError, OSError, TimeoutError) as error:
                self.reason = _one_line(error) or self.reason
                continue
            break
        if self._is_closed:
            return
        self.reason = ""
        self.away_seconds = time.monotonic() - self._away_since
        self._probing = None
        _log.warning("the store of budgets is back")
        self.on_back()

    async def _write(self) -> None:
        await self._client.set(PROBE_KEY, 1, ex=PROBE_KEPT_SECONDS)

    async def _life(self) -> str:
        where = {"target_nodes": ValkeyCluster.PRIMARIES} if self._is_cluster else {}
        try:
            told = await self._client.info("server", **where)
        except ResponseError:  # it may not be asked: then it is taken for another each time
            return uuid.uuid4().hex
        servers = [told] if "run_id" in told else told.values()
        return "".join(sorted(str(server["run_id"]) for server in servers))

    async def identify(self) -> None:
        """Learn in which life the server is.

        Raises:
            Away: it did not answer.
        """
        self.run = await self._timely(self._life())

    async def command(self, *words: str | bytes | int) -> Any:  # noqa: ANN401  # any command
        """One plain command, in the time of a record.

        Raises:
            Away: nothing came, or an error did.
        """
        return await self._timely(self._client.execute_command(*words))

    async def _timely(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401  # any answer
        if self.reason:
            work.close()
            raise Away(self.reason)
        try:
            async with asyncio.timeout(self._patience.record):
                return await work
        except (ValkeyError, OSError, TimeoutError) as error:
            self._open(_one_line(error) or f"no answer within {self._patience.record:g} s")
            raise Away(self.reason) from None


def _nothing() -> None:
    """Nobody listens."""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    kind = "refused by the store: " if isinstance(error, ResponseError) else ""
    return f"{kind}{text}"[:300]


def _client(url: str, patience: Patience, *, is_cluster: bool) -> Any:  # noqa: ANN401  # two kinds
    options: dict[str, Any] = {
        "socket_connect_timeout": patience.connect,
        "socket_timeout": patience.record,
        "retry": Retry(NoBackoff(), 0),
    }
    if is_cluster:
        return ValkeyCluster.from_url(url, **options)
    return Valkey.from_url(url, **options)
