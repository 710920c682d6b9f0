"""What one process counted, as figures that can be sent elsewhere and added to others'."""

from collections.abc import Iterable

import msgspec

from extproc.telemetry.metric_store import Key


class Tally(msgspec.Struct, frozen=True):
    """By metric, then by the values of its labels: counters, and the rows of histograms."""

    counts: dict[str, dict[Key, float]]
    spreads: dict[str, dict[Key, list[float]]]


NOTHING = Tally({}, {})


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them together; none of them is changed."""
    counts: dict[str, dict[Key, float]] = {}
    spreads: dict[str, dict[Key, list[float]]] = {}
    for tally in tallies:
        for name, found in tally.counts.items():
            sums = counts.setdefault(name, {})
            for key, count in found.items():
                sums[key] = sums.get(key, 0) + count
        for name, rows in tally.spreads.items():
            summed = spreads.setdefault(name, {})
            for key, row in rows.items():
                before = summed.get(key)
                summed[key] = (
                    [one + other for one, other in zip(before, row, strict=True)]
                    if before
                    else row.copy()
                )
    return Tally(counts, spreads)
