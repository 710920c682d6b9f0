"""Streams through Envoy: what each way to meter them does to their events, and costs.

    make bench-sse          (python -m bench.sse [--brief])

None: a plain Envoy. Lua meter: our filter, whose meter is in Envoy. Observe: answers are copied to
the service, and nothing waits. STREAMED: every event waits for a processor that does nothing at
all, on our own transport: what we avoid. Upstream and client are bare protocols in processes of
their own (this one is the client), and every event carries the instant of its making. Rounds go
through all ways in turn. CPU is what the kernel counted while all streams were flowing: after the
last one's first event, and before any ended.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from bench.corpus import chats
from bench.report import RESULTS, Spread, ratios, spread, table
from bench.sse_rounds import FIGURES, Load, first_event_ms, measure
from bench.sse_ways import LUA, NAMES, NO_ENVOY, NONE, OBSERVE, STREAMED, Way, ways
from bench.telling import keep, machine, parser, tell

BODY_BYTES: Final = 2048
SECONDS: Final = 3.0
ROUNDS: Final = 3
LOADS: Final = (Load(streams=1000, rate=4), Load(streams=40, rate=50))
ALONE: Final = "alone"


class Size(NamedTuple):
    """How much is measured."""

    loads: Sequence[Load]
    rounds: int
    seconds: float
    alone: int
    """Streams of a round that begin when nothing else happens."""


def main(*arguments: str) -> None:
    """Measure, and tell."""
    options = parser("sse").parse_args(arguments)
    size = Size(LOADS, ROUNDS, SECONDS, 60)
    if options.brief:
        size = Size((Load(streams=20, rate=20),), 1, 0.5, 3)
    result: dict[str, Any] = {"machine": machine(), "size": size._asdict()}
    with tempfile.TemporaryDirectory() as directory, ways(Path(directory)) as found:
        uvloop.run(_run(found, size, result))
    text = tell("sse", tables(result))
    if not options.brief:
        keep("sse", result, text)
        draw(result)


async def _run(found: Sequence[Way], size: Size, result: dict[str, Any]) -> None:
    result[ALONE] = await _alone(found, size)
    result["loads"] = {
        load.name: await _compare(found, load, size.seconds, size.rounds) for load in size.loads
    }


async def _alone(found: Sequence[Way], size: Size) -> Mapping[str, list[float]]:
    """Return ms to the first event, the median of each round: one stream at a time, each way."""
    bodies = chats(BODY_BYTES, seed=1, stream=True)
    told: dict[str, list[float]] = {way.name: [] for way in found}
    for turn in range(size.rounds + 1):
        times: dict[str, list[float]] = {way.name: [] for way in found}
        for _ in range(size.alone):
            for way in found:
                times[way.name].append(await first_event_ms(way, next(bodies)))
        if turn:
            for name, values in times.items():
                told[name].append(round(spread(values).median, 3))
    return told


async def _compare(
    found: Sequence[Way], load: Load, seconds: float, rounds: int
) -> Mapping[str, Mapping[str, list[float]]]:
    """Measure every way in turn, and again; of several turns the first warms up."""
    bodies: Iterator[bytes] = chats(BODY_BYTES, seed=load.streams, stream=True)
    told: dict[str, dict[str, list[float]]] = {way.name: {} for way in found}
    for turn in range(0 if rounds > 1 else 1, rounds + 1):
        for way in found:
            length = seconds if turn else 0.5
            one = await measure(way, load, seconds=length, bodies=bodies)
            for name, value in one.items() if turn else ():
                told[way.name].setdefault(name, []).append(round(value, 3))
    return told


def tables(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the table of streams that are alone, one for each load, and ratios."""
    alone = {name: spread(values) for name, values in result[ALONE].items()}
    rows = [[name, value.text(2)] for name, value in alone.items()]
    yield "First event of a stream that is alone, ms", table(["", "median"], rows)
    for name, load in result["loads"].items():
        rows = [
            [way, *(_cell(figures.get(figure), digits) for figure, (_, digits) in FIGURES.items())]
            for way, figures in load.items()
        ]
        head = ["", *(title for title, _ in FIGURES.values())]
        yield f"{name}: median (low..high) of rounds", table(head, rows)
        rows = [[way, *_beside(load[way], load)] for way in (LUA, OBSERVE, STREAMED)]
        head = ["", "Envoy ÷ none", "Envoy and service ÷ none", "Envoy and service ÷ Lua meter"]
        yield f"{name}: CPU of an event, ratios of the same round", table(head, rows)


def _beside(ours: Mapping[str, list[float]], load: Mapping[str, Any]) -> list[str]:
    def both(figures: Mapping[str, list[float]]) -> list[float]:
        pairs = zip(figures["Envoy_us"], figures["service_us"], strict=True)
        return [sum(pair) for pair in pairs]

    none = load[NONE]["Envoy_us"]
    found: list[Spread] = [ratios(ours["Envoy_us"], none), ratios(both(ours), none)]
    return [value.text(2) for value in (*found, ratios(both(ours), both(load[LUA])))]


def _cell(values: list[float] | None, digits: int) -> str:
    return "" if values is None else spread(values).text(digits)


def draw(result: Mapping[str, Any]) -> None:
    """Draw what an event costs, and when it comes."""
    from bench.pictures import bars  # noqa: PLC0415  # matplotlib is slow to load

    load = result["loads"][LOADS[0].name]
    cpu = {
        who: {
            name: spread(load[name][f"{who}_us"])
            for name in NAMES
            if f"{who}_us" in load.get(name, {})
        }
        for who in ("Envoy", "service")
    }
    title = f"CPU of an event, {LOADS[0].name}"
    bars(RESULTS / "sse-cpu.png", title, unit="µs", series=cpu)
    delays = {
        title: {name: spread(load[name][figure]) for name in NAMES if name != NO_ENVOY}
        for figure, title in (("delay_p50_ms", "median"), ("delay_p99_ms", "p99"))
    }
    title = f"An event from upstream to client, {LOADS[0].name}"
    bars(RESULTS / "sse-delay.png", title, unit="ms", series=delays)


if __name__ == "__main__":
    main(*sys.argv[1:])
