"""What grows with what: memory and CPU against tenants, budgets, waiting streams, workers, time.

    make bench-scale        (python -m bench.scale [--brief] [--soak-seconds 60])

Tenants and budgets: the rules and an in-memory ledger in this process, memory as Python counts it,
CPU of a whole call from bytes to bytes by tenants that are drawn. Streams: connections to Envoy
whose bodies are half there, so that each holds an ext_proc stream open; requests of others beside
them. Soak: a steady rate, settled by Envoy's records, and the service's memory each second.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.report import RESULTS, spread, table
from bench.scale_parts import Tenants, settings, soak, waiting, workers
from bench.telling import keep, machine, parser, tell

TENANTS: Final = (10, 1000, 10_000)
BUDGETS: Final = (0, 1, 4, 8)
TENANTS_OF_BUDGETS: Final = 500
CALLS: Final = 500
STREAMS: Final = (0, 1000, 5000, 10_000)
WORKERS: Final = (1, 2)
ROUNDS: Final = 3
SOAK_SECONDS: Final = 60.0
SOAK_PER_SECOND: Final = 100.0
KILO: Final = 1000


def main(*arguments: str) -> None:
    """Measure, and tell."""
    known = parser("scale")
    known.add_argument("--soak-seconds", type=float, default=SOAK_SECONDS)
    options = known.parse_args(arguments)
    is_brief = options.brief
    rounds = 1 if is_brief else ROUNDS
    seconds = 1.5 if is_brief else options.soak_seconds
    result: dict[str, Any] = {"machine": machine(), "rounds": rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result["tenants"] = _tenants(
            folder, {number: (number, 2) for number in ((10, 100) if is_brief else TENANTS)}, rounds
        )
        result["budgets"] = _tenants(
            folder,
            {1: (10, 1)} if is_brief else {each: (TENANTS_OF_BUDGETS, each) for each in BUDGETS},
            rounds,
        )
        result["streams"] = waiting(folder, [0, 50] if is_brief else list(STREAMS), rounds=rounds)
        result["workers"] = workers(
            folder, WORKERS, rounds=rounds, requests=100 if is_brief else 1500
        )
        result["soak"] = soak(folder, seconds=seconds, per_second=SOAK_PER_SECOND)
    text = tell("scale", tables(result))
    if not is_brief:
        keep("scale", result, text)
        draw(result)


def _tenants(
    folder: Path, sizes: Mapping[int, tuple[int, int]], rounds: int
) -> list[Mapping[str, Any]]:
    """Measure settings of so many tenants with so many budgets each; calls take turns."""
    found = {
        key: Tenants(settings(folder, tenants=tenants, budgets=budgets), tenants=tenants)
        for key, (tenants, budgets) in sizes.items()
    }
    us: dict[int, list[float]] = {key: [] for key in found}
    for _ in range(rounds):
        for key, one in found.items():
            us[key].append(round(one.us(CALLS), 1))
    return [
        {
            "number": key,
            "settings_bytes": one.settings_bytes,
            "request_bytes": round(one.request_bytes),
            "us": us[key],
        }
        for key, one in found.items()
    ]


def tables(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a table for each part."""
    yield "Tenants with two budgets each", _by_number(result["tenants"], "tenants", per_tenant=True)
    title = f"Budgets of each of {TENANTS_OF_BUDGETS} tenants"
    yield title, _by_number(result["budgets"], "budgets", per_tenant=False)
    yield "Streams that wait for their body", _streams(result["streams"])
    rows = [
        [
            number,
            spread(one["us"]).text(0),
            spread(one["per_second"]).text(0),
            spread(value / 1e6 for value in one["bytes"]).text(0),
        ]
        for number, one in result["workers"].items()
    ]
    head = ["workers", "CPU of a request, all together, µs", "requests/s", "memory, MB"]
    yield "Workers, 64 connections", table(head, rows)
    yield "Soak", _soak(result["soak"])


def _by_number(rows: Sequence[Mapping[str, Any]], what: str, *, per_tenant: bool) -> str:
    head = [what, "settings, MB", "of a tenant more in the settings, B"]
    head += ["of a tenant's first request, B", "CPU of a call, µs"]
    least = rows[0]
    cells = []
    for row in rows:
        more = row["settings_bytes"] - least["settings_bytes"]
        number = (row["number"] - least["number"]) if per_tenant else TENANTS_OF_BUDGETS
        each = f"{more / number:.0f}" if more and number else ""
        cells.append(
            [
                str(row["number"]),
                f"{row['settings_bytes'] / 1e6:.1f}",
                each,
                str(row["request_bytes"]),
                spread(row["us"]).text(0),
            ]
        )
    return table(head, cells)


def _streams(rows: Sequence[Mapping[str, float]]) -> str:
    head = ["streams", "service, MB", "a stream more, KB", "Envoy, MB", "a stream more, KB"]
    head.append("CPU of a request beside them, µs")
    none = rows[0]
    cells = []
    for row in rows:
        cell = [f"{row['streams']:.0f}"]
        for who in ("service_bytes", "envoy_bytes"):
            cell.append(f"{row[who] / 1e6:.1f}")
            more = (row[who] - none[who]) / KILO
            cell.append(f"{more / row['streams']:.1f}" if row["streams"] else "")
        times = [value for name, value in row.items() if name.startswith("us_")]
        cells.append([*cell, spread(times).text(0)])
    return table(head, cells)


def _soak(found: Mapping[str, Any]) -> str:
    memory = found["bytes"]
    third = memory[len(memory) // 3]
    rows = [
        ["requests", str(found["requests"])],
        ["refused", str(found["refused"])],
        ["memory after a second, MB", f"{memory[0] / 1e6:.1f}"],
        ["after a third of the time", f"{third / 1e6:.1f}"],
        ["at the end", f"{memory[-1] / 1e6:.1f}"],
        [
            "grown since the third, B a request",
            f"{(memory[-1] - third) / (found['requests'] * 2 / 3):.0f}",
        ],
    ]
    return table([f"{found['seconds']:g} s of {found['per_second']:g} requests/s", ""], rows)


def draw(result: Mapping[str, Any]) -> None:
    """Draw memory against streams and against time."""
    from bench.pictures import lines  # noqa: PLC0415  # matplotlib is slow to load

    series = {
        who: [(row["streams"], spread([row[f"{who}_bytes"] / 1e6])) for row in result["streams"]]
        for who in ("service", "envoy")
    }
    title = "Memory against streams that wait"
    lines(RESULTS / "scale-streams.png", title, x="streams", y="MB", series=series)
    memory = [
        (float(second), spread([value / 1e6]))
        for second, value in enumerate(result["soak"]["bytes"], 1)
    ]
    title = f"Memory of the service at {SOAK_PER_SECOND:g} requests/s"
    lines(RESULTS / "scale-soak.png", title, x="seconds", y="MB", series={"service": memory})


if __name__ == "__main__":
    main(*sys.argv[1:])
