"""What is told of the peers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.peers import build
from bench.peers.build import NotBuilt
from bench.peers.contestants import CPP, GRPC_AIO, NO_FILTER, OURS, TONIC
from bench.peers.findings import Result, summary, tables


def rounds(server_us: float | None, *more: float, p50_ms: float = 1.0) -> dict[str, Any]:
    return {
        "server_us": [server_us, *more],
        "envoy_us": [200.0] * (1 + len(more)),
        "per_second": [1000.0] * (1 + len(more)),
        "p50_ms": [p50_ms] * (1 + len(more)),
        "p99_ms": [9.0] * (1 + len(more)),
    }


RESULT: Result = {
    "missing": {TONIC: "not built: no cargo"},
    "at_once": ["16", "64"],
    "paced": "paced",
    "loads": {
        "16": {OURS: rounds(50, 60), CPP: rounds(100, 100), GRPC_AIO: rounds(500, 500)},
        "64": {OURS: rounds(90, 100), CPP: rounds(100, 50), GRPC_AIO: rounds(1000, 1000)},
        "growing": {OURS: rounds(900), CPP: rounds(100), GRPC_AIO: rounds(1)},
        "paced": {
            OURS: rounds(300, p50_ms=2.5),
            CPP: rounds(100, p50_ms=1.25),
            NO_FILTER: rounds(None, p50_ms=0.5),
        },
    },
}


def test_a_ratio_is_told_where_it_is_worst_for_us_and_never_from_chats_that_grow() -> None:
    told = summary(RESULT)

    assert told["ours_over_cpp_noop"] == 1.45  # of 0.9 and 2.0
    assert told["spread"]["ours_over_cpp_noop"] == [0.9, 2.0]
    assert told["ours_over_grpc_aio_noop"] == 0.11  # with 16 connections


def test_at_a_rate_there_are_ratios_of_their_own() -> None:
    assert summary(RESULT)["at_rate"]["ours_over_cpp_noop"] == 3.0


def test_who_was_not_there_has_no_ratio() -> None:
    told = summary(RESULT)

    assert told["transport_over_tonic_noop"] is None
    assert "transport_over_tonic_noop" not in told["spread"]


def test_added_latency_is_what_is_above_no_filter() -> None:
    told = summary(RESULT)

    assert (told["added_p50_ms_ours"], told["added_p50_ms_cpp_noop"]) == (2.0, 0.75)
    assert told["added_p50_ms_grpc_aio_noop"] is None


def test_tables_say_why_a_peer_is_missing() -> None:
    told = dict(tables(RESULT))

    assert "| tonic doing nothing | not built: no cargo |" in told["16, µs and ms"]
    assert "| ours, h2 ÷ C++ gRPC doing nothing | ≤ 1.0 | 0.55 (0.50..0.60) |" in "\n".join(
        told.values()
    )


@pytest.mark.parametrize(
    ("made_by", "tool"), [(build.cpp, "g++"), (build.go, "go"), (build.rust, "cargo")]
)
def test_without_its_tools_a_peer_is_not_built(
    monkeypatch: pytest.MonkeyPatch, made_by: Callable[[], Path | NotBuilt], tool: str
) -> None:
    monkeypatch.setenv("PATH", "")

    assert made_by() == NotBuilt(f"no {tool}")
