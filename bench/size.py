"""Latency and CPU against the size of a request: bodies of 200 B to 8 MiB, chats of 1 to 200 turns.

    make bench-size         (python -m bench.size [--brief])

One request at a time, through an Envoy that answers by itself. "Cold": no text was ever seen.
"Warm": all texts of the body were, or, of a chat, all but those of its last turn. Beside it an
Envoy without the filter, which waits for the whole body too. Rounds take turns.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import uvloop
import yaml

from bench.corpus import chats, texts
from bench.load import drive
from bench.report import RESULTS, ratios, spread, table
from bench.telling import keep, machine, parser, tell
from bench.through_envoy import Peer, Round, at_once, behind_envoy
from tests.scenarios.table import SETTINGS

MEBI: Final = 1 << 20
BODY_BYTES: Final = (
    *(200, 512, 2048, 8192, 32_768, 65_536, 131_072, 200_000, 262_144, 300_000),
    *(524_288, MEBI, 2 * MEBI, 4 * MEBI, 8_000_000),
)
TURNS: Final = (1, 2, 5, 10, 20, 50, 100, 200)
TURN_BYTES: Final = 800
ROUND_BYTES: Final = 6 * MEBI
"""Of all bodies of a round together, so that small ones are measured often."""

REQUESTS_MAX: Final = 150
ROUNDS: Final = 3
BRIEF_SIZES: Final = (200, 262_144)
OURS: Final = "ours"
NONE: Final = "no filter"

Found = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""By size, by `cold` or `warm`, by figure: one for each round."""


def main(*arguments: str) -> None:
    """Measure, and tell."""
    options = parser("size").parse_args(arguments)
    rounds = 1 if options.brief else ROUNDS
    sizes = BRIEF_SIZES if options.brief else BODY_BYTES
    turns = (2,) if options.brief else TURNS
    result: dict[str, Any] = {"machine": machine(), "rounds": rounds}
    with tempfile.TemporaryDirectory() as directory, envoys(Path(directory)) as (ours, none):
        result["bodies"] = measured(ours, none, dict.fromkeys(sizes, body_of), rounds)
        result["chats"] = measured(ours, none, dict.fromkeys(turns, chat_of), rounds)
    text = tell("size", tables(result))
    if not options.brief:
        keep("size", result, text)
        draw(result)


@contextmanager
def envoys(directory: Path) -> Iterator[tuple[Peer, Peer]]:
    """Run the service behind an Envoy, and an Envoy without it."""
    settings = directory / "settings.yaml"
    settings.write_text(yaml.safe_dump(roomy()))
    arguments = ("serve", "--settings", str(settings), "--port", "0")
    command = (sys.executable, "-m", "extproc", *arguments)
    with ExitStack() as stack:
        found = []
        for name, server in ((OURS, command), (NONE, None)):
            home = directory / name.replace(" ", "-")
            home.mkdir()
            found.append(stack.enter_context(behind_envoy(server, directory=home)))
        yield found[0], found[1]


def roomy() -> dict[str, Any]:
    """Make settings that refuse no size up to 8 MiB; counts are exact as far as by default."""
    tree: dict[str, Any] = yaml.safe_load(SETTINGS.read_text())
    tree["limits"] = {"request_body_bytes": 8 * MEBI}
    for model in tree["models"].values():
        model["context_tokens"] = 100_000_000
    tree["identity"] = [{"header": "x-tenant-id"}]
    (per_minute, _) = tree["tenants"]["rich"]["budgets"]
    tree["tenants"]["rich"]["budgets"] = [per_minute]
    return tree


def body_of(size: int, *, number: int, seed: int, warm: bool) -> list[bytes]:
    """Make bodies of a size: the same again and again, or each anew."""
    if warm:
        return [next(chats(size, seed=seed))] * number
    return list(islice(chats(size, seed=seed), number))


def chat_of(turns: int, *, number: int, seed: int, warm: bool) -> list[bytes]:
    """Make chats of so many turns, which share all but the last; or nothing."""
    fresh = texts(TURN_BYTES, seed=seed)
    roles = ("user", "assistant")
    before: list[dict[str, str]] = []

    def messages() -> list[dict[str, str]]:
        count = 2 * (turns - 1)
        return [{"role": roles[i % 2], "content": next(fresh)} for i in range(count)]

    if warm:
        before = messages()
    found = []
    for _ in range(number):
        said = before if warm else messages()
        last = {"role": "user", "content": next(fresh)}
        body = {"model": "gpt-4", "messages": [*said, last], "max_tokens": 256}
        found.append(json.dumps(body).encode())
    return found


def measured(ours: Peer, none: Peer, sizes: Mapping[int, Any], rounds: int) -> Found:
    """Measure each size in turn, cold and warm, with the filter and without; and again."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for turn in range(rounds):
        for size, make in sizes.items():
            for temperature in ("cold", "warm"):
                is_warm = temperature == "warm"
                seed = hash((turn, size, is_warm))
                one = make(size, number=1, seed=seed, warm=is_warm)
                number = max(3, min(REQUESTS_MAX, ROUND_BYTES // len(one[0])))
                bodies = make(size, number=number + 1, seed=seed, warm=is_warm)
                # The first one warms up, in whichever way.
                figures = _figures(_round(ours, bodies), _round(none, bodies), len(bodies[0]))
                kept = found.setdefault(str(size), {}).setdefault(temperature, {})
                for name, value in figures.items():
                    kept.setdefault(name, []).append(value)
    return found


def _round(peer: Peer, bodies: Sequence[bytes]) -> Round:
    uvloop.run(drive(peer.envoy.port, bodies[:1], connections=1))
    return at_once(peer, bodies[1:], connections=1)


def _figures(ours: Round, none: Round, size: int) -> Mapping[str, float]:
    return {
        "bytes": size,
        "service_us": round(ours.server_us or 0.0, 1),
        "envoy_us": round(ours.envoy_us, 1),
        "envoy_alone_us": round(none.envoy_us, 1),
        "p50_ms": round(ours.p50_ms, 3),
        "alone_ms": round(none.p50_ms, 3),
        "added_ms": round(ours.p50_ms - none.p50_ms, 3),
    }


def tables(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a table of bodies, and one of chats."""
    return [
        ("Bodies: ms and µs, median (low..high) of rounds", _table("bytes", result["bodies"])),
        (
            f"Chats: turns of {2 * TURN_BYTES} B, an answer and a question",
            _table("turns", result["chats"]),
        ),
    ]


def _table(what: str, found: Found) -> str:
    head = [what, "", "added p50 ms", "service µs", "µs a KB", "Envoy µs", "Envoy alone µs"]
    head.append("cold ÷ warm, service")
    rows = []
    for size, both in found.items():
        for name, one in both.items():
            kilobytes = one["bytes"][0] / 1000
            each = spread(one["service_us"]).median / kilobytes
            row = [size if name == "cold" else "", name, spread(one["added_ms"]).text(2)]
            row += [spread(one["service_us"]).text(0), f"{each:.1f}"]
            row += [spread(one[figure]).text(0) for figure in ("envoy_us", "envoy_alone_us")]
            if name == "cold":
                row.append(ratios(one["service_us"], both["warm"]["service_us"]).text(1))
            else:
                row.append("")
            rows.append(row)
    return table(head, rows)


def draw(result: Mapping[str, Any]) -> None:
    """Draw latency and CPU against size."""
    from bench.pictures import lines  # noqa: PLC0415  # matplotlib is slow to load

    for what, unit in (("bodies", "bytes"), ("chats", "turns")):
        found: Found = result[what]
        series = {
            f"{temperature}, {title}": [
                (float(size), spread(both[temperature][figure])) for size, both in found.items()
            ]
            for figure, title in (("service_us", "service CPU"), ("envoy_us", "Envoy CPU"))
            for temperature in ("cold", "warm")
        }
        title = f"CPU of a request against {unit}"
        path = RESULTS / f"size-{what}.png"
        lines(path, title, x=unit, y="µs", series=series, logarithmic="xy")


if __name__ == "__main__":
    main(*sys.argv[1:])
