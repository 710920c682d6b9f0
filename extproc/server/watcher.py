"""Streams of the filter `llm.observe`: an answer comes by in copies, and nothing goes back.

Envoy waits for us only if we stop reading; so whatever comes is read at once, metered in small
pieces of work, and forgotten. A stream ends as soon as nothing more is to be seen, since Envoy
keeps one open that we don't end for `deferred_close_timeout`. It always ends well: Envoy might
take a fault of ours out on the client.
"""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Final

from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from extproc.exchange.sightings import Sighting
from extproc.llm.sse import AnswerMeter
from extproc.server.meeting import Case, Count
from extproc.wire.observed import AnswerChunk, AnswerHead, observed

STREAMS_MAX: Final = 10_000
"""Answers that are watched at a time, about 20 kB each at worst; others go by unobserved."""

SLICE_BYTES: Final = 4_096
"""Read in one go: 0.2 ms of work, or 8 of brackets and nothing else. Then whoever waits for a
decision has its turn."""

HEADLESS_MAX: Final = 2
"""Messages before the head of an answer: the request's, of a filter that sends them in vain."""

BUG: Final = "bug"
"""`meter_error` of an answer that the meter failed at."""

_log = logging.getLogger(__name__)


class Watcher:
    """Watches answers and tells `see` of each. `count` is told how each stream ended."""

    def __init__(self, see: Callable[[Sighting], None], count: Count) -> None:
        self._see = see
        self._count = count
        self._streams = 0

    async def watch(self, first: ProcessingRequest, rest: AsyncIterator[ProcessingRequest]) -> None:
        """Watch one answer until it ends, however it ends."""
        if self._streams >= STREAMS_MAX:
            self._count("too_many")
            return
        self._streams += 1
        try:
            await self._watch(first, rest)
        finally:
            self._streams -= 1

    async def _watch(
        self, first: ProcessingRequest, rest: AsyncIterator[ProcessingRequest]
    ) -> None:
        head = await _head(first, rest)
        unwanted = _unwanted(head)
        if head is None or unwanted is not None:
            self._count(unwanted or "malformed")
            return
        meter = AnswerMeter(head.content_type, head.content_encoding)
        is_whole, error = head.is_last, ""
        try:
            if not is_whole:
                is_whole = await _follow(meter, rest)
        except Exception as failure:  # noqa: BLE001  # a barrier between streams
            where = "".join(traceback.format_tb(failure.__traceback__))
            _log.error("watch.failed %s\n%s", type(failure).__name__, where)
            error = BUG
        finally:
            # Also where Envoy gave the stream up, which cancels us.
            seen = meter.seen
            seen = seen._replace(error=seen.error or error)
            self._count("failed" if error else "watched" if is_whole else "cut_off")
            self._see(Sighting(head.reservation, seen, is_whole))


async def _head(
    first: ProcessingRequest, rest: AsyncIterator[ProcessingRequest]
) -> AnswerHead | None:
    """The head of the answer; None if something else comes, or nothing."""
    found = observed(first)
    for _ in range(HEADLESS_MAX):
        message = await anext(rest, None) if found is None else None
        if message is None:
            break
        found = observed(message)
    return found if isinstance(found, AnswerHead) else None


def _unwanted(head: AnswerHead | None) -> Case | None:
    """Why an answer is not watched, if it is not."""
    if head is None:
        return "malformed"
    if not head.is_wanted:
        return "not_wanted"
    if not head.reservation:
        return "unnamed"
    return None if 200 <= head.status < 300 else "not_wanted"  # noqa: PLR2004  # RFC 9110


async def _follow(meter: AnswerMeter, rest: AsyncIterator[ProcessingRequest]) -> bool:
    """Read to the end of the answer; whether it came."""
    async for message in rest:
        chunk = observed(message)
        if isinstance(chunk, AnswerChunk):
            meter.take(chunk.data[:SLICE_BYTES])
            for at in range(SLICE_BYTES, len(chunk.data), SLICE_BYTES):
                await asyncio.sleep(0)
                meter.take(chunk.data[at : at + SLICE_BYTES])
            if chunk.is_last:
                return True
    return False
