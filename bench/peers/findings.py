"""What the rounds came to: ratios, tables, the line for programs. All of it from the JSON alone.

A ratio is taken in each round, of two that took turns in it, and summed up after that.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.peers.contestants import (
    CPP,
    GO,
    GRPC_AIO,
    NO_FILTER,
    OURS,
    OURS_ESTIMATE,
    OURS_GRPCIO,
    TONIC,
    TRANSPORT,
)
from bench.report import Spread, ratios, spread, table

Rounds = Mapping[str, Sequence[float]]
"""By the name of a figure: one for each round."""

Result = Mapping[str, Any]
"""As it is saved: `loads` has, for each load and each contestant, its `Rounds`."""


class Compared(NamedTuple):
    """CPU of one server beside that of another. `at_most` is what we are after, if anything."""

    name: str
    these: str
    others: str
    at_most: float | None = None


COMPARED: Final = (
    Compared("ours_over_cpp_noop", OURS, CPP, 1.0),
    Compared("ours_over_grpc_aio_noop", OURS, GRPC_AIO, 0.3),
    Compared("ours_estimate_over_go_noop", OURS_ESTIMATE, GO, 1.0),
    Compared("transport_over_tonic_noop", TRANSPORT, TONIC, 0.9),
    Compared("ours_over_go_noop", OURS, GO),
    Compared("ours_over_tonic_noop", OURS, TONIC),
    Compared("ours_estimate_over_cpp_noop", OURS_ESTIMATE, CPP),
    Compared("ours_grpcio_over_grpc_aio_noop", OURS_GRPCIO, GRPC_AIO),
    Compared("ours_over_ours_grpcio", OURS, OURS_GRPCIO),
    Compared("transport_over_cpp_noop", TRANSPORT, CPP),
    Compared("transport_over_go_noop", TRANSPORT, GO),
    Compared("transport_over_grpc_aio_noop", TRANSPORT, GRPC_AIO),
)


def compared(load: Mapping[str, Rounds], pair: Compared) -> Spread | None:
    """Sum up the ratio under one load; None where one of the two was not there."""
    if pair.these not in load or pair.others not in load:
        return None
    return ratios(load[pair.these]["server_us"], load[pair.others]["server_us"])


def added(load: Mapping[str, Rounds], name: str, figure: str) -> Spread | None:
    """Sum up what a latency is above that of an Envoy that asks nobody, in ms."""
    if name not in load or NO_FILTER not in load:
        return None
    pairs = zip(load[name][figure], load[NO_FILTER][figure], strict=True)
    return spread(one - other for one, other in pairs)


def summary(result: Result) -> dict[str, Any]:
    """Say it for programs: each ratio under the load at which it is worst, of those at saturation.

    Growing chats do not count there: caches are at home in them. `at_rate` has the ratios at the
    fixed rate, `spread` the lowest and highest round. None where somebody was not there.
    """
    found: dict[str, Any] = {}
    spreads: dict[str, Sequence[float]] = {}

    def tell(name: str, value: Spread | None) -> None:
        found[name] = None if value is None else round(value.median, 3)
        if value is not None:
            spreads[name] = [round(value.low, 3), round(value.high, 3)]

    loads = [result["loads"][name] for name in result["at_once"]]
    paced = result["loads"][result["paced"]]
    for pair in COMPARED:
        each = [value for load in loads if (value := compared(load, pair)) is not None]
        tell(pair.name, max(each, default=None))
    for figure in ("p50_ms", "p99_ms"):
        for short, name in (("ours", OURS), ("cpp_noop", CPP), ("grpc_aio_noop", GRPC_AIO)):
            tell(f"added_{figure}_{short}", added(paced, name, figure))
    at_rate = {pair.name: compared(paced, pair) for pair in COMPARED}
    told = {name: value and round(value.median, 3) for name, value in at_rate.items()}
    return {**found, "at_rate": told, "spread": spreads}


def tables(result: Result) -> Iterator[tuple[str, str]]:
    """Yield a title and a table: the ratios, then one for each load."""
    loads = result["loads"]
    yield "Ratios of the servers' CPU, median (low..high) of rounds", _ratios(result)
    for name, load in loads.items():
        is_paced = name == result["paced"]
        yield f"{name}, µs and ms", _load(load, result["missing"], is_paced=is_paced)


def _ratios(result: Result) -> str:
    columns = list(result["loads"])
    rows = []
    for pair in COMPARED:
        spreads = [compared(result["loads"][name], pair) for name in columns]
        target = "" if pair.at_most is None else f"≤ {pair.at_most}"
        cells = [_cell(value, 2) for value in spreads]
        rows.append([f"{pair.these} ÷ {pair.others}", target, *cells])
    return table(["", "aim", *columns], rows)


def _load(load: Mapping[str, Rounds], missing: Mapping[str, str], *, is_paced: bool) -> str:
    head = ["", "server's CPU", "Envoy's CPU"]
    head += ["added p50", "added p99"] if is_paced else ["requests/s"]
    head += ["p50", "p99"]
    rows = []
    for name, rounds in load.items():
        server = rounds["server_us"]
        row = [name, "" if None in server else _cell(spread(server), 0)]
        row.append(_cell(spread(rounds["envoy_us"]), 0))
        if is_paced:
            row += [_cell(added(load, name, figure), 2) for figure in ("p50_ms", "p99_ms")]
        else:
            row.append(_cell(spread(rounds["per_second"]), 0))
        row += [_cell(spread(rounds[figure]), 2) for figure in ("p50_ms", "p99_ms")]
        rows.append(row)
    rows += [[name, why, *[""] * (len(head) - 2)] for name, why in missing.items()]
    return table(head, rows)


def _cell(value: Spread | None, digits: int) -> str:
    return "" if value is None else value.text(digits)
