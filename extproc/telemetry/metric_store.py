"""Counters and histograms of a service with one thread: a dict, a list, and nothing to lock.

They are fed from the event loop and cost it a few integer operations. prometheus-client makes
metrics of them when somebody asks, in any thread: each value is read by one operation.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from extproc.telemetry import metric_names as names
from extproc.telemetry.labels import OTHER

Key = tuple[str, ...]
"""The values of a metric's labels, in their order."""


class LabelSets:
    """Lets the first `sets_max` different sets of values through. Then the first value gives way.

    Beyond twice as many all of them do, so that there are never more than that and one.
    """

    def __init__(self, sets_max: int) -> None:
        self._sets_max = sets_max
        self._seen: set[Key] = set()

    def __call__(self, key: Key) -> Key:
        """The values to count this one under."""
        if key in self._seen:
            return key
        if len(self._seen) < self._sets_max:
            self._seen.add(key)
            return key
        general = (OTHER, *key[1:])
        if general not in self._seen:
            if len(self._seen) >= 2 * self._sets_max:
                return (OTHER,) * len(key)
            self._seen.add(general)
        return general


class Counts(Collector):
    """A counter. Those of `born` are there from the start: a first time is an increase then."""

    def __init__(self, name: str, about: str, born: Iterable[Key] = ()) -> None:
        self._name = name
        self._about = about
        self._counts: dict[Key, float] = dict.fromkeys(born, 0)

    def add(self, key: Key, amount: float = 1) -> None:
        """Count `amount` more."""
        counts = self._counts
        counts[key] = counts.get(key, 0) + amount

    def add_one_of(self, key: Key, otherwise: Key) -> None:
        """Count one more of those that were born; of `otherwise`, if it is none of them."""
        counts = self._counts
        counts[key if key in counts else otherwise] += 1

    def figures(self) -> dict[Key, float]:
        """What was counted so far."""
        return self._counts.copy()

    def show(self, figures: Mapping[Key, float]) -> None:
        """Have counted this, whatever it was before."""
        self._counts = dict(figures)

    def collect(self) -> Iterator[Metric]:
        """Say how things stand, as prometheus-client asks."""
        family = CounterMetricFamily(self._name, self._about, labels=names.LABELS[self._name])
        for key, count in self._counts.copy().items():
            family.add_metric(key, count)
        yield family


class Spread(Collector):
    """A histogram. Where it has no labels it is there from the start."""

    def __init__(self, name: str, about: str) -> None:
        self._name = name
        self._about = about
        self._bounds: Final = names.BUCKETS[name]
        self._texts = (*map(floatToGoString, self._bounds), "+Inf")
        self._rows: dict[Key, list[float]] = {}
        if not names.LABELS[name]:
            self._rows[()] = self._new_row()

    def add(self, key: Key, value: float) -> None:
        """Count a value where it belongs."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._new_row()
        row[bisect_left(self._bounds, value)] += 1
        row[-1] += value

    def figures(self) -> dict[Key, list[float]]:
        """The buckets, beginning with the lowest, and the sum."""
        return {key: row.copy() for key, row in self._rows.copy().items()}

    def show(self, figures: Mapping[Key, list[float]]) -> None:
        """Have counted this, whatever it was before."""
        self._rows = {key: row.copy() for key, row in figures.items()}

    def collect(self) -> Iterator[Metric]:
        """Say how things stand, as prometheus-client asks."""
        family = HistogramMetricFamily(self._name, self._about, labels=names.LABELS[self._name])
        for key, row in self._rows.copy().items():
            *counts, total = row.copy()
            so_far, buckets = 0.0, []
            for text, count in zip(self._texts, counts, strict=True):
                so_far += count
                buckets.append((text, so_far))
            family.add_metric(key, buckets, total)
        yield family

    def _new_row(self) -> list[float]:
        """The buckets, beginning with the lowest, and the sum."""
        return [0.0] * (len(self._bounds) + 2)
