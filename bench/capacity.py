"""What so many requests a second of so many new tokens take: the formula of docs/capacity.md.

    .venv/bin/python -m bench.capacity [--per-second 1000] [--tokens 500]

Two numbers, a request's own and each token's, are fitted to the medians of `results/size.json`,
to cold bodies that are counted exactly; the point at `HELD_OUT` is left out and predicted.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.corpus import chats
from bench.report import RESULTS, spread
from extproc.tokens.encodings import load

HELD_OUT: Final = "131072"
EXACT_BYTES_MAX: Final = 200_000
BUSY_MAX: Final = 0.5
"""Of a core that a process may take in the mean, so that no queue builds up (see overload)."""

ENCODING: Final = "cl100k_base"


class Cost(NamedTuple):
    """CPU in µs of one process, for a request and for each new token of it."""

    request_us: float
    token_us: float

    def of(self, tokens: float) -> float:
        """µs for a request of so many new tokens."""
        return self.request_us + self.token_us * tokens


def fitted(points: Sequence[tuple[float, float]]) -> Cost:
    """Fit by least squares of relative errors: small requests count as much as large ones."""
    weights = [1 / us**2 for _, us in points]
    total = sum(weights)
    x = sum(w * tokens for w, (tokens, _) in zip(weights, points, strict=True)) / total
    y = sum(w * us for w, (_, us) in zip(weights, points, strict=True)) / total
    both = [
        (w * (tokens - x) * (us - y), w * (tokens - x) ** 2)
        for w, (tokens, us) in zip(weights, points, strict=True)
    ]
    slope = sum(up for up, _ in both) / sum(down for _, down in both)
    return Cost(y - slope * x, slope)


def points(bodies: Mapping[str, Any], figure: str) -> dict[str, tuple[float, float]]:
    """Return tokens and µs of each size that is counted exactly."""
    count = load(ENCODING).count
    return {
        size: (
            count(json.loads(next(chats(int(size))))["messages"][1]["content"]),
            spread(both["cold"][figure]).median,
        )
        for size, both in bodies.items()
        if int(size) <= EXACT_BYTES_MAX
    }


def main(*arguments: str) -> None:
    """Print the fit, its check, and what is needed."""
    parser = argparse.ArgumentParser(prog="bench.capacity")
    parser.add_argument("--per-second", type=float, default=1000)
    parser.add_argument("--tokens", type=float, default=500)
    options = parser.parse_args(arguments)
    bodies = json.loads((RESULTS / "size.json").read_text())["bodies"]
    for who in ("service", "envoy"):
        known = points(bodies, f"{who}_us")
        tokens, measured = known.pop(HELD_OUT)
        cost = fitted(list(known.values()))
        told = cost.of(tokens)
        print(f"{who}: {cost.request_us:.0f} µs a request and {cost.token_us:.3f} µs a new token")
        print(f"  at {tokens} tokens {told:.0f} µs told, {measured:.0f} measured", end="")
        print(f" ({told / measured - 1:+.0%})")
        cores = options.per_second * cost.of(options.tokens) / 1e6
        needs = f"{cores:.2f} cores"
        if who == "service":
            needs += f", {math.ceil(cores / BUSY_MAX)} processes half busy"
        print(f"  {options.per_second:g} requests/s of {options.tokens:g} tokens: {needs}")


if __name__ == "__main__":
    main(*sys.argv[1:])
