"""What becomes of requests when more come than can be decided: goodput, latency, how excess ends.

    make bench-overload     (python -m bench.overload [--brief])

An open loop, as wrk2's: requests come at random instants whatever comes back, at shares of the
capacity that was measured just before in the same round. Admitted is who got 200; who did not is
told by status.
"""

import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final

import uvloop
import yaml

from bench.corpus import chats
from bench.load import drive, request
from bench.open_loop import Run, offer
from bench.processes import family_cpu_seconds
from bench.report import RESULTS, Spread, spread, table
from bench.scale_parts import command
from bench.size import roomy
from bench.telling import keep, machine, parser, tell
from bench.through_envoy import Peer, behind_envoy

BODY_BYTES: Final = 32_768
"""Of which counting alone takes the service more than everything else takes the others."""

SHARES: Final = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
SECONDS: Final = 5.0
ROUNDS: Final = 3
CONNECTIONS: Final = 32
CAPACITY_REQUESTS: Final = 400

Figures = dict[str, list[float]]


def main(*arguments: str) -> None:
    """Measure, and tell."""
    options = parser("overload").parse_args(arguments)
    rounds, seconds, requests = ROUNDS, SECONDS, CAPACITY_REQUESTS
    shares: tuple[float, ...] = SHARES
    if options.brief:
        rounds, seconds, shares, requests = 1, 0.5, (0.5, 2.0), 50
    result: dict[str, Any] = {"machine": machine(), "rounds": rounds, "seconds": seconds}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        path = Path(name) / "settings.yaml"
        path.write_text(yaml.safe_dump(roomy()))
        peer = stack.enter_context(behind_envoy(command(path), directory=Path(name)))
        _capacity(peer, requests // 3, seed=99)
        capacities: list[float] = []
        found: dict[str, Figures] = {}
        statuses: dict[str, Counter[str]] = {}
        for turn in range(rounds):
            capacities.append(_capacity(peer, requests, seed=turn))
            for share in shares:
                one, ends = _offered(peer, capacities[-1], share, seconds=seconds, seed=turn)
                for figure, value in one.items():
                    found.setdefault(str(share), {}).setdefault(figure, []).append(round(value, 3))
                statuses.setdefault(str(share), Counter()).update(ends)
        result |= {"capacity": capacities, "loads": found}
        result["statuses"] = {share: dict(ends) for share, ends in statuses.items()}
    text = tell("overload", tables(result))
    if not options.brief:
        keep("overload", result, text)
        draw(result)


def _capacity(peer: Peer, requests: int, *, seed: int) -> float:
    """Return the requests a second that are decided when there are always some to decide."""
    bodies = list(islice(chats(BODY_BYTES, seed=1000 + seed), requests))
    answers = uvloop.run(drive(peer.envoy.port, bodies, connections=CONNECTIONS))
    return requests / answers.seconds


def _offered(
    peer: Peer, capacity: float, share: float, *, seconds: float, seed: int
) -> tuple[Mapping[str, float], Counter[str]]:
    """Offer a share of the capacity for so long, and wait until all is answered."""
    server = peer.server
    assert server is not None  # noqa: S101  # it was asked for
    pids = {"service": server.process.pid, "envoy": peer.envoy.child.process.pid}
    per_second = capacity * share
    bodies = islice(
        chats(BODY_BYTES, seed=seed * 100 + round(10 * share)), round(per_second * seconds)
    )
    requests = [request(body) for body in bodies]
    before = {name: family_cpu_seconds(pid) for name, pid in pids.items()}
    began = time.perf_counter()
    run = uvloop.run(offer(peer.envoy.port, requests, per_second=per_second, seed=seed))
    took = time.perf_counter() - began
    used = {name: family_cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    return _figures(run, per_second, took, used), Counter(str(one.status) for one in run.answers)


def _figures(
    run: Run, per_second: float, took: float, used: Mapping[str, float]
) -> Mapping[str, float]:
    admitted = [one.latency_ms for one in run.answers if one.status == 200]
    others = [one.latency_ms for one in run.answers if one.status != 200]
    # Until the last was due: what came afterwards was no longer under this load.
    until = max(one.due for one in run.answers)
    good = sum(one.status == 200 and one.ended <= until for one in run.answers)
    found = {
        "offered": per_second,
        "goodput": good / until,
        "refused_share": len(others) / len(run.answers),
        "late_p99_ms": _share(run.late_ms, 99),
        "generator_cores": run.cpu_seconds / took,
        **{f"{name}_cores": seconds / took for name, seconds in used.items()},
    }
    for name, times in (("admitted", admitted), ("refused", others)):
        found |= {f"{name}_p{share}_ms": _share(times, share) for share in (50, 99)}
    return found


def _share(values: Sequence[float], percent: int) -> float:
    """Return a percentile; 0 of nothing."""
    times = list(values) or [0.0]
    return statistics.quantiles([*times, times[-1]], n=100, method="inclusive")[percent - 1]


def tables(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the table of loads, and how requests ended."""
    head = ["offered ÷ capacity", "offered/s", "admitted in time/s", "admitted ÷ capacity"]
    head += ["not admitted", "admitted p50 ms", "p99 ms", "not admitted p50 ms", "answers"]
    head += ["generator late p99 ms", "cores: generator", "Envoy", "service"]
    rows = []
    for share, one in result["loads"].items():
        goodput = zip(one["goodput"], result["capacity"], strict=True)
        ends = ", ".join(f"{status}: {n}" for status, n in result["statuses"][share].items())
        cells = [share, _of(one, "offered").text(), _of(one, "goodput").text()]
        cells += [spread(good / all_ for good, all_ in goodput).text(2)]
        cells += [_of(one, "refused_share").text(2)]
        cells += [_of(one, f"admitted_p{p}_ms").text() for p in (50, 99)]
        cells += [_of(one, "refused_p50_ms").text(), ends, _of(one, "late_p99_ms").text()]
        cells += [_of(one, f"{who}_cores").text(2) for who in ("generator", "envoy", "service")]
        rows.append(cells)
    capacity = spread(result["capacity"]).text()
    yield f"Capacity {capacity} requests/s of {BODY_BYTES} B; median (low..high)", table(head, rows)


def _of(one: Figures, figure: str) -> Spread:
    return spread(one[figure])


def draw(result: Mapping[str, Any]) -> None:
    """Draw goodput and latency against offered load."""
    from bench.pictures import lines  # noqa: PLC0415  # matplotlib is slow to load

    loads = {float(share): one for share, one in result["loads"].items()}
    capacity = result["capacity"]
    goodput = [
        (share, spread(a / b for a, b in zip(one["goodput"], capacity, strict=True)))
        for share, one in loads.items()
    ]
    x = "offered load ÷ capacity"
    lines(
        RESULTS / "overload-goodput.png",
        "Goodput against offered load",
        x=x,
        y="admitted in time ÷ capacity",
        series={"admitted": goodput},
    )
    latency = {
        f"admitted, p{p}": [
            (share, spread(one[f"admitted_p{p}_ms"])) for share, one in loads.items()
        ]
        for p in (50, 99)
    }
    title = "Latency of what is admitted against offered load"
    lines(RESULTS / "overload-latency.png", title, x=x, y="ms", series=latency)


if __name__ == "__main__":
    main(*sys.argv[1:])
