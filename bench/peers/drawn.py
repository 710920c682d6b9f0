"""Pictures of the peers."""

from pathlib import Path

from bench.peers.contestants import NO_FILTER
from bench.peers.findings import Result, added
from bench.pictures import bars
from bench.report import spread


def draw(result: Result, folder: Path) -> None:
    """Draw CPU by load, and what is added to latency."""
    cpu = {
        load: {
            name: spread(rounds["server_us"])
            for name, rounds in result["loads"][load].items()
            if name != NO_FILTER
        }
        for load in result["at_once"]
    }
    bars(
        folder / "peers-cpu.png",
        "ext_proc through Envoy: the server's CPU for a request",
        unit="µs",
        series=cpu,
    )
    paced = result["loads"][result["paced"]]
    latency = {
        name: value
        for name in paced
        if name != NO_FILTER and (value := added(paced, name, "p50_ms")) is not None
    }
    title = f"What ext_proc adds to the median latency at {result['paced']}"
    bars(folder / "peers-latency.png", title, unit="ms", series={"added": latency})
