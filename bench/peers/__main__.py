"""What our service and our transport cost beside others' servers, through the same real Envoy.

    make bench-peers        (python -m bench.peers [--brief])

Each contestant has an Envoy of its own, `--concurrency 1`; all run at once, and rounds go through
them in turn. A request is a gRPC stream of two messages each way, headers and a body of 2 KB that
nobody has seen before; the growing chats are a load of their own. Servers have their defaults,
threads included: CPU is counted, not time. The load comes from this process, on the same cores,
so throughput and latency at saturation tell how much all of them take together.

Writes `bench/results/peers.json` and pictures, fills in `bench/README.md`, and prints one line of
JSON last. `--brief` measures those that need no building, once, and writes nothing. `--tell` writes
everything but the JSON anew.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.corpus import chats, growing_chats
from bench.peers import build
from bench.peers.contestants import (
    ALL,
    GRPC_AIO,
    NO_FILTER,
    OURS,
    TRANSPORT,
    UNREAD,
    contestants,
)
from bench.peers.findings import Result, summary, tables
from bench.report import RESULTS, fill_in, save
from bench.through_envoy import Peer, Round, at_once, at_rate
from extproc.demo.envoy import NEWEST

BODY_BYTES: Final = 2048
PER_SECOND: Final = 200
CONNECTIONS: Final = (16, 64)
TURNS: Final = 8
TURN_BYTES: Final = 800
CONVERSATIONS: Final = 128
"""That go on together: more than connections, so that no turn overtakes the one before it."""

BRIEF: Final = (OURS, TRANSPORT, GRPC_AIO, NO_FILTER)
PACED: Final = f"{PER_SECOND} requests a second"
GROWING: Final = "growing chats, 64 connections"


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    requests: int
    paced: int
    """Requests of a round at a rate."""


def main(*arguments: str) -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(prog="bench.peers")
    parser.add_argument("--brief", action="store_true")
    parser.add_argument("--tell", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=1500)
    options = parser.parse_args(arguments)
    if options.tell:
        result = json.loads((RESULTS / "peers.json").read_text())
    else:
        size = Size(options.rounds, options.requests, 3 * PER_SECOND)
        if options.brief:
            size = Size(rounds=1, requests=200, paced=50)
        result = measured(size, BRIEF if options.brief else ALL)
    told = [f"**{title}**\n\n{text}" for title, text in tables(result)]
    print("\n\n".join(told))
    if not options.brief:
        from bench.peers.drawn import draw  # noqa: PLC0415  # matplotlib is slow to load

        save("peers", result)
        fill_in("peers", "\n\n".join(told))
        draw(result, RESULTS)
    print(json.dumps(summary(result)))


def measured(size: Size, names: Sequence[str]) -> Result:
    """Run those that are named under every load."""
    with (
        tempfile.TemporaryDirectory() as directory,
        contestants(Path(directory), names=names) as (peers, missing),
    ):
        print(f"measuring {', '.join(peers)}", file=sys.stderr)
        loads = _loads(peers, size)
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "versions": {"Envoy": NEWEST, **build.versions()},
        "size": size._asdict(),
        "missing": missing,
        "at_once": [_at_once(connections) for connections in CONNECTIONS],
        "paced": PACED,
        "loads": loads,
    }


def _at_once(connections: int) -> str:
    return f"{connections} connections"


def _loads(peers: Mapping[str, Peer], size: Size) -> dict[str, Any]:
    """Go through all loads and contestants in turn, round by round; the first only warms up."""
    rounds: dict[str, dict[str, list[Round]]] = {}
    paced = [name for name in peers if name != UNREAD]
    names = list(peers)
    for number in range(-1, size.rounds):
        names = [*names[1:], names[0]]
        for load, name, one in _turn(peers, names, paced, size, seed=number):
            if number >= 0:
                rounds.setdefault(load, {name: [] for name in peers})[name].append(one)
    return {
        load: {name: _columns(told) for name, told in by_name.items() if told}
        for load, by_name in rounds.items()
    }


def _turn(
    peers: Mapping[str, Peer], names: Sequence[str], paced: Sequence[str], size: Size, *, seed: int
) -> Iterator[tuple[str, str, Round]]:
    """One round of every load. All contestants get the same bodies, and each body once."""
    for connections in CONNECTIONS:
        bodies = list(islice(chats(BODY_BYTES, seed=10 * seed + connections), size.requests))
        for name in names:
            one = at_once(peers[name], bodies, connections=connections)
            yield _at_once(connections), name, one
    chats_grown = growing_chats(TURN_BYTES, turns=TURNS, together=CONVERSATIONS, seed=seed)
    bodies = list(islice(chats_grown, TURNS * CONVERSATIONS))
    for name in names:
        yield GROWING, name, at_once(peers[name], bodies, connections=CONNECTIONS[-1])
    bodies = list(islice(chats(BODY_BYTES, seed=10 * seed + 1), size.paced))
    for name in names:
        if name in paced:
            yield PACED, name, at_rate(peers[name], bodies, per_second=PER_SECOND, seed=seed)


def _columns(rounds: Sequence[Round]) -> dict[str, list[float | None]]:
    return {
        figure: [
            None if (value := getattr(one, figure)) is None else round(value, 3) for one in rounds
        ]
        for figure in Round._fields
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
