"""The last minutes as several processes saw them: taken apart, sent, and put together again."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import msgspec

from extproc.telemetry.recent import News, Recent
from extproc.telemetry.recent_entries import HopEntry
from extproc.telemetry.recent_slots import Amounts, Spread

ENTRIES_MAX: Final = 2000
"""Of one kind that are sent, those used last: only of budgets there may be more."""

ENTRIES_PER_TURN: Final = 200
"""Put together in one go: about a millisecond."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What is kept under one name."""

    name: str | tuple[str, ...]
    used: float
    is_model: bool
    amounts: list[dict[int, float]]
    spreads: list[dict[int, dict[int, int]]]


class Parts(msgspec.Struct, frozen=True):
    """All that a `Recent` knows. `tables` are in its own order."""

    tables: list[list[Entry]]
    news: list[tuple[tuple[str, ...], News]]


_DECODER: Final = msgspec.msgpack.Decoder(Parts)


def parts_of(recent: Recent) -> Parts:
    """Take it apart; it stays as it is."""
    now = recent.now()
    tables = []
    for table in recent.tables():
        entries = []
        for name, entry in islice(reversed(list(table.items(now))), ENTRIES_MAX):
            series = entry.series()
            entries.append(
                Entry(
                    name,
                    entry.used,
                    getattr(entry, "is_model", False),
                    [one.slots() for one in series if isinstance(one, Amounts)],
                    [one.slots() for one in series if isinstance(one, Spread)],
                )
            )
        tables.append(entries[::-1])
    return Parts(tables, list(recent.keyed_news()))


def encoded(recent: Recent) -> bytes:
    """The same, as it is sent."""
    return msgspec.msgpack.encode(parts_of(recent))


async def together(own: Recent, others: Sequence[bytes], clock: Callable[[], float]) -> Recent:
    """What `own` and others have seen that began at the same instant. None of them is changed."""
    whole = Recent(clock, own.since)
    found = [parts_of(own), *map(_DECODER.decode, others)]
    done = 0
    for parts in found:
        for table, entries in zip(whole.tables(), parts.tables, strict=True):
            for entry in entries:
                kept = table.use(entry.name, entry.used)
                if isinstance(kept, HopEntry):
                    kept.is_model = kept.is_model or entry.is_model
                series = kept.series()
                amounts = [one for one in series if isinstance(one, Amounts)]
                spreads = [one for one in series if isinstance(one, Spread)]
                for amount, amount_slots in zip(amounts, entry.amounts, strict=True):
                    amount.absorb(amount_slots)
                for spread, spread_slots in zip(spreads, entry.spreads, strict=True):
                    spread.absorb(spread_slots)
                done += 1
                if done % ENTRIES_PER_TURN == 0:
                    await asyncio.sleep(0)
    told = [news for parts in found for news in parts.news]
    for key, news in sorted(told, key=lambda one: one[1].last):
        whole.add_news(key, news)
    return whole
